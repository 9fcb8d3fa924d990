"""Clock: the server's time, by which all processes count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..errors import BucketUnavailable
from ..rate import NANO
from ..transports.base import Operators
from . import BUCKET, STREAM

EVERY = 10.0  # seconds until the server is asked again
NEAR = 0.05  # seconds an answer may take; a later one is asked for again,
TRIES = 3  # so often in all


class ServerClock:
    """Time of the server, never ahead of it: behind by what its answer was on the way.

    Asked for now and then, and counted on by the loop's clock. Two machines' own clocks may be
    hours apart, and then one of them would take what is everybody's.
    """

    def __init__(
        self,
        operators: Operators,
        bucket: Callable[[], Awaitable[object]],
        stream: str = STREAM,
    ) -> None:
        self._operators = operators
        self._stream = stream  # any one: an answer about it has the time
        self._bucket = bucket
        self._now = asyncio.get_running_loop().time
        self._behind: float | None = None  # seconds that the loop's clock is behind the server's
        self._asked_at = 0.0  # loop time
        self._asking = asyncio.Lock()

    async def now(self) -> int:
        """Epoch nanoseconds. Raises TransportError if they cannot be known."""
        if self._is_due():
            async with self._asking:
                if self._is_due():
                    await self.ask()
        assert self._behind is not None
        return int((self._behind + self._now()) * NANO)

    async def ask(self) -> None:
        """Ask the server for its time. Raises TransportError."""
        nearest = float("inf")
        for _ in range(TRIES):
            began = self._now()
            info = await self._operators.stream_info(self._stream)
            came = self._now()
            if info is None:
                await self._bucket()  # it creates the bucket again, where that is allowed
            elif came - began < nearest:
                nearest, self._behind = came - began, info.answered_at / NANO - came
            if nearest <= NEAR:
                break
        if nearest == float("inf"):
            what = f"bucket {BUCKET}" if self._stream == STREAM else f"stream {self._stream}"
            raise BucketUnavailable(
                f"the {what} is missing: omni-worker plan MODULE:APP --apply creates it"
            )
        self._asked_at = self._now()

    def _is_due(self) -> bool:
        return self._behind is None or self._now() - self._asked_at >= EVERY

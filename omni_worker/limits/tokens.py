"""Tokens: the times at which runs of one key may begin, taken by compare-and-set in chunks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from ..handlers import Handler
from ..rate import NANO, SET_BACK, Grant, Rate, Taken, take
from ..transports.key_value import KeyValue
from .clock import ServerClock

REMEMBERED = 10_000  # keys whose state was read last
AT_ONCE = 64  # keys that are written at the same time
CROWDED = 0.02  # seconds, at most, until a write that others overtook is tried again
TEXTS = (str, int, float, bool, type(None))


class Tokens:
    """Tokens of one handler."""

    def __init__(
        self,
        bucket: Callable[[], Awaitable[KeyValue]],
        clock: ServerClock,
        handler: Handler,
        rate: Rate,
    ) -> None:
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._clock = clock
        self._handler = handler
        self._rate = rate
        self._known: OrderedDict[str, tuple[Taken, int]] = OrderedDict()  # with its revision
        self._turn = asyncio.Semaphore(AT_ONCE)

    def name(self, key: Hashable) -> str:
        """Return the name of a key in the bucket. Raises TypeError for one that cannot be one."""
        return token_name(self._handler.app, self._handler.name, key)

    async def take(self, name: str, wanted: int) -> tuple[Grant, int] | float:
        """Take tokens for up to ``wanted`` runs; or return the seconds until there are some.

        The second number is the server's time. Raises TransportError if the state is unknown.
        """
        async with self._turn:
            if self._bucket is None:
                self._bucket = await self._open_bucket()
            known = self._known.get(name)
            while True:
                now = await self._clock.now()
                if known is not None and known[0].at > now + SET_BACK:
                    await self._clock.ask()  # the clock of a server or of a process was set
                    now = await self._clock.now()
                taken = take(self._rate, known and known[0], now, wanted)
                if isinstance(taken, int):  # a later write can only make it longer
                    return taken / NANO
                grant, state = taken
                revision = await self._write(name, state, known and known[1])
                if revision is not None:
                    self._remember(name, state, revision)
                    return grant, now
                known = await self._read(name)
                await asyncio.sleep(random.uniform(0, CROWDED))

    async def _write(self, name: str, state: Taken, revision: int | None) -> int | None:
        assert self._bucket is not None
        value = json.dumps({"at": state.at, "free": state.free}).encode()
        if revision is None:
            return await self._bucket.create(name, value)
        return await self._bucket.update(name, value, revision)

    async def _read(self, name: str) -> tuple[Taken, int] | None:
        assert self._bucket is not None
        entry = await self._bucket.get(name)
        if entry is None:
            self._known.pop(name, None)
            return None
        state = read_state(entry.value)
        self._remember(name, state, entry.revision)
        return state, entry.revision

    def _remember(self, name: str, state: Taken, revision: int) -> None:
        self._known[name] = (state, revision)
        self._known.move_to_end(name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def token_name(app: str, handler: str, key: Hashable) -> str:
    """Return the name of a key in the bucket. Raises TypeError for one that cannot be one."""
    # As JSON: a key may hold whatever would stand between two names.
    text = json.dumps([app, handler, plain_key(key)])
    return f"rate.{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def plain_key(key: Hashable) -> Any:
    """Return a key as JSON. Raises TypeError for one that reads otherwise in another process."""
    if isinstance(key, tuple):
        return [plain_key(one) for one in key]
    if isinstance(key, TEXTS):
        return key
    kind = type(key).__name__
    raise TypeError(f"rate_by= returned {kind}: expected a string, a number, or a tuple of them")


def read_state(value: bytes) -> Taken:
    """Read a state; one that cannot be read counts as none."""
    try:
        raw = json.loads(value)
        return Taken(int(raw["at"]), int(raw["free"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return Taken(0, 0)

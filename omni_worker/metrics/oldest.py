"""OldestWaiting: when the oldest unsettled event of each consumer was stored.

The server is asked by a scrape, at most every fifteen seconds, and the next scrape has the answer:
a scrape waits for nothing, and without scrapes nothing is asked.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from ..bus import EventBus
from ..errors import OmniWorkerError
from ..operations.status import first_unsettled
from ..tasks import own
from ..transports.infos import ConsumerInfo

LOOK_EVERY = 15.0  # seconds


class OldestWaiting:
    """Ages of the oldest events of one bus's consumers."""

    def __init__(self, bus: EventBus, loop: asyncio.AbstractEventLoop) -> None:
        self._bus = bus
        self._loop = loop
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._stored: dict[tuple[str, str], float] = {}  # epoch seconds, by stream and consumer

    def seconds(self, info: ConsumerInfo) -> float:
        """Seconds for which the oldest event of a consumer waits, as of the last look."""
        stored = self._stored.get((info.stream, info.name))
        if stored is None or not (info.num_pending or info.num_ack_pending):
            return 0.0
        return max(0.0, time.time() - stored)

    def look_if_due(self) -> None:
        """Ask the server soon, if it is time; called from any thread."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY:
            return
        self._looked_at = now
        with suppress(RuntimeError):  # the loop is closed: this process ends
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look(), name=own("metrics"))

    async def _look(self) -> None:
        infos = [
            info
            for subscription in self._bus.subscriptions
            for info in list(subscription.unanswered.seen.values())
        ]
        found: dict[tuple[str, str], float] = {}
        for info in infos:
            if not (info.num_pending or info.num_ack_pending):
                continue
            with suppress(OmniWorkerError):
                oldest = await first_unsettled(self._bus.transport.operators, info)
                if oldest is not None:
                    found[info.stream, info.name] = oldest.timestamp()
        self._stored = found

"""OldestWaiting: when the oldest unsettled event of each consumer was stored."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from ..bus import EventBus
from ..errors import OmniWorkerError
from ..operations.status import first_unsettled
from ..transports.infos import ConsumerInfo
from .look import Look


class OldestWaiting(Look):
    """Ages of the oldest events of one bus's consumers."""

    def __init__(self, bus: EventBus, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(bus, loop)
        self._stored: dict[tuple[str, str], float] = {}  # epoch seconds, by stream and consumer

    def seconds(self, info: ConsumerInfo) -> float:
        """Seconds for which the oldest event of a consumer waits, as of the last look."""
        stored = self._stored.get((info.stream, info.name))
        if stored is None or not (info.num_pending or info.num_ack_pending):
            return 0.0
        return max(0.0, time.time() - stored)

    async def look(self) -> None:
        """Ask for the oldest event of each consumer that has any."""
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

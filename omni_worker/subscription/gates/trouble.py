"""Trouble: a bucket that a gate needs does not work. Nothing begins until it does."""

from __future__ import annotations

import asyncio

from ...errors import OmniWorkerError
from . import Flow

PAUSES = (0.5, 1.0, 2.0, 4.0, 5.0)  # seconds until it is tried again
STALLED_AFTER = 3.0  # seconds of failures until they are reported: most end with the next election


class BucketTrouble:
    """Trouble of one gate with its bucket; ``what`` names the option that stands still."""

    def __init__(self, flow: Flow, what: str) -> None:
        self._flow = flow
        self._what = what
        self._failures = 0
        self._failed_since: float | None = None  # loop time
        self._until = 0.0  # loop time

    async def pause(self, error: OmniWorkerError) -> None:
        """Stop pulling, report a failure that lasts, and wait until the next try."""
        now = self._flow.now()
        if self._failed_since is None:
            self._failed_since = now
        if now >= self._until:  # else another event has failed just before
            self._until = now + PAUSES[min(self._failures, len(PAUSES) - 1)]
            self._failures += 1
        self._flow.hold(self._what)
        if now - self._failed_since >= STALLED_AFTER:
            self._flow.stall(self._what, f"{self._what}= takes no events: {error}")
        await asyncio.sleep(self._until - now)

    def over(self) -> None:
        """Go on after a success."""
        if self._failed_since is not None:
            self._failed_since, self._failures = None, 0
            self._flow.stall_ended(self._what)
            self.rest()

    def rest(self) -> None:
        """Pull again: nothing waits here that would try again."""
        self._flow.release(self._what)

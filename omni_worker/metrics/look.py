"""Look: what the server is asked for by a scrape, at most every fifteen seconds.

The next scrape has the answer: a scrape waits for nothing, and without scrapes nothing is asked.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from ..bus import EventBus
from ..errors import OmniWorkerError, PermissionDenied
from ..tasks import own

EVERY = 15.0  # seconds


class Look:
    """A question to the server, asked again and again as long as there are scrapes."""

    def __init__(self, bus: EventBus, loop: asyncio.AbstractEventLoop) -> None:
        self._bus = bus
        self._loop = loop
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self.is_denied = False  # this login may not ask: it is not asked again

    def look_if_due(self) -> None:
        """Ask the server soon, if it is time; called from any thread."""
        now = time.monotonic()
        if self.is_denied or now - self._looked_at < EVERY:
            return
        self._looked_at = now
        with suppress(RuntimeError):  # the loop is closed: this process ends
            self._loop.call_soon_threadsafe(self._begin)

    async def look(self) -> None:
        """Ask. What an OmniWorkerError ends is tried again at the next look."""
        raise NotImplementedError

    def _begin(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look(), name=own("metrics"))

    async def _look(self) -> None:
        try:
            await self.look()
        except PermissionDenied:
            self.is_denied = True
        except OmniWorkerError:
            pass

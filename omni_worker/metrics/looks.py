"""Looks: everything that one bus's scrapes ask the server for."""

from __future__ import annotations

import asyncio

from ..bus import EventBus
from .oldest import OldestWaiting
from .stored import KeptForLater, OpenLetterCounts


class Looks:
    """Looks of one bus."""

    def __init__(self, bus: EventBus, loop: asyncio.AbstractEventLoop) -> None:
        self.oldest = OldestWaiting(bus, loop)
        self.letters = OpenLetterCounts(bus, loop)
        self.kept = KeptForLater(bus, loop)

    def look_if_due(self) -> None:
        """Ask the server soon, if it is time; called from any thread."""
        for one in (self.oldest, self.letters, self.kept):
            one.look_if_due()

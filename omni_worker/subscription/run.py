"""Run: a delivery on its way to the handler, with everything known of it."""

from __future__ import annotations

import asyncio
from typing import Any

from ..events import Event
from ..transports.base import Delivery
from .slots import Slot
from .source_state import SourceState


class Run:
    """Run of an event: its delivery, the slot it occupies, and what happened before.

    It has its event as soon as that is read.
    """

    __slots__ = (
        "delivery", "event", "is_alone", "is_noted", "is_repeat", "line", "slot", "started",
        "state", "trouble",
    )  # fmt: skip

    event: Event[Any]

    def __init__(self, slot: Slot, state: SourceState, delivery: Delivery) -> None:
        self.slot = slot
        self.state = state
        self.delivery = delivery
        self.trouble = state.trouble_for(delivery)  # attempts that failed, and since when
        # A first delivery may be a repeat as well: a server killed with -9 forgets counts.
        self.is_repeat = not state.is_first(delivery)
        self.is_noted = False  # its start: should the process die now, it may have done it
        self.is_alone = False  # nothing else of its handler runs
        self.line: Line | None = None  # whose head it is, until its key is known
        self.started: float | None = None  # loop time; None until the handler is called

    def leave_line(self) -> None:
        """Let the next event get its key."""
        if self.line is not None:
            self.line.leave(self)

    @property
    def attempt(self) -> int:
        """Number of this run: 1 is the first."""
        return self.trouble.failures + 1


class Line:
    """Line of runs that get their keys one after the other, as they came.

    An event in the line has a slot and has not begun: it is let go like one in the buffer, since
    events that others hold may have to come before it.
    """

    def __init__(self) -> None:
        self._head = asyncio.Lock()  # wakes in the order of the calls
        self._length = 0

    @property
    def is_empty(self) -> bool:
        """True if an event may get its key at once."""
        return not self._length

    async def enter(self, run: Run) -> None:
        """Wait until every event that came before has its key."""
        self._length += 1
        run.slot.is_in_line = True
        try:
            await self._head.acquire()
            run.line = self
        finally:
            if run.line is None:
                self._gone(run)

    def leave(self, run: Run) -> None:
        """Let the next one be the head."""
        run.line = None
        self._head.release()
        self._gone(run)

    def _gone(self, run: Run) -> None:
        self._length -= 1
        run.slot.is_in_line = False

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
        "delivery", "event", "in_line", "is_alone", "is_noted", "is_repeat", "slot", "started",
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
        self.in_line: asyncio.Lock | None = None  # held until its key is known, with an order
        self.started: float | None = None  # loop time; None until the handler is called

    def leave_line(self) -> None:
        """Let the next event get its key."""
        line, self.in_line = self.in_line, None
        if line is not None:
            line.release()

    @property
    def attempt(self) -> int:
        """Number of this run: 1 is the first."""
        return self.trouble.failures + 1

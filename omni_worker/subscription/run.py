"""Run: a delivery on its way to the handler, with everything known of it."""

from __future__ import annotations

from typing import Any

from ..events import Event
from ..transports.base import Delivery
from .slots import Slot
from .source_state import SourceState


class Run:
    """Run of an event: its delivery, the slot it occupies, and what happened before."""

    __slots__ = (
        "delivery", "event", "is_repeat", "is_suspect", "slot", "started", "state", "trouble",
    )  # fmt: skip

    def __init__(
        self, slot: Slot, state: SourceState, delivery: Delivery, event: Event[Any]
    ) -> None:
        self.slot = slot
        self.state = state
        self.delivery = delivery
        self.event = event
        self.trouble = state.trouble_for(delivery)  # attempts that failed, and since when
        # A first delivery may be a repeat as well: a server killed with -9 forgets counts.
        self.is_repeat = not state.is_first(delivery)
        self.is_suspect = False  # its last run may have ended its process
        self.started: float | None = None  # loop time; None until the handler is called

    @property
    def attempt(self) -> int:
        """Number of this run: 1 is the first."""
        return self.trouble.failures + 1

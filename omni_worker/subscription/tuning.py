"""Tuning: looks at a handler whose concurrency adapts itself, and lets the climb decide.

Everything is read from what is counted anyway, a few times a second: no event pays for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..adaptive import Auto, Climb
from ..settle import Counts
from .gates import Flow
from .gates.breaker import Breaker

LOOK, IDLE_LOOK = 0.25, 1.0  # seconds between two looks: while events wait, while none does


class Tuning:
    """Tuning of one handler; ``change`` is called with another number of events at once."""

    def __init__(
        self,
        bounds: Auto,
        flow: Flow,
        counts: Counts,
        breaker: Breaker,
        change: Callable[[int], None],
    ) -> None:
        self._climb = Climb(bounds)
        self._flow = flow
        self._counts = counts
        self._breaker = breaker
        self._change = change
        self.is_on = True  # False: an order holds
        self._look_after(LOOK)

    @property
    def size(self) -> int:
        """Number of events at once that was found."""
        return self._climb.size

    def _look_after(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        slots = self._flow.slots
        if slots.is_closed:
            return
        busy = len(slots.all) - len(slots.idle)
        is_full = bool(slots.buffer) and busy >= slots.size and not self._breaker.is_open
        before = self._climb.size
        if self.is_on:
            size = self._climb.look(self._flow.now(), self._counts.handled, is_full=is_full)
            if size != before:
                self._change(size)
        else:
            self._climb.begin_again(self._flow.now(), self._counts.handled)
        self._look_after(LOOK if is_full else IDLE_LOOK)

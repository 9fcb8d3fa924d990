"""Leases: held deliveries stay ours, and handlers end in time. One timer per subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..handlers import Handler
from ..signals import Signals, ThreadStuck
from ..transports.base import Delivery, Source
from .slots import NEVER, Slot, Slots
from .source_state import SourceState


class Leases:
    """Extend the leases of held deliveries every third of the server's ``ack_wait``.

    A lease that lapsed all the same (a stopped process, a blocked loop, a long outage) means that
    the server has given the event away: see ``has_lapsed``.
    """

    def __init__(
        self,
        states: dict[Source, SourceState],
        slots: Slots,
        *,
        ack_wait: float,
        timeout: float | None,
        can_cancel: bool,
        is_connected: Callable[[], bool],
        handler: Handler,
        signals: Signals,
    ) -> None:
        self.ack_wait = ack_wait  # after so long the server gives an event away
        self.extended_by = ack_wait  # shorter for a while before a shorter ack_wait is in force
        self.timeout = timeout
        self._states = states
        self._slots = slots
        self._can_cancel = can_cancel
        self._is_connected = is_connected
        self._handler = handler
        self._signals = signals
        self._loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None  # None while nothing is held
        self._calls: set[asyncio.TimerHandle] = set()
        self.now = self._loop.time

    def watch(self) -> None:
        """Start the timer for a held delivery, if there is none."""
        if self.timer is None:
            self._schedule(self.extended_by / 6)

    def begin_run(self, slot: Slot) -> None:
        """Start the time limit of a run; ``timeout`` is set."""
        assert self.timeout is not None
        slot.deadline = self.now() + self.timeout
        if self.timer is None or self.timer.when() > slot.deadline:
            self._schedule(self.timeout)

    def end_run(self, slot: Slot) -> bool:
        """End the time limit of a run. Return True if the run was stopped by it."""
        slot.deadline = NEVER
        if not slot.timed_out:
            return False
        slot.timed_out = False
        while slot.task is not None and slot.task.cancelling():
            slot.task.uncancel()
        return True

    def has_lapsed(self, delivery: Delivery) -> bool:
        """Return True if the lease ran out: the server has given the event away."""
        if not delivery.lapsed and self.now() - delivery.leased_at > self.ack_wait:
            delivery.lapsed = True
        return delivery.lapsed

    def touch(self, state: SourceState) -> None:
        """Extend at once, after a reconnect, every lease that is still ours."""
        for delivery in state.held.values():
            if not self.has_lapsed(delivery):
                self._extend(delivery)

    def call_later(self, delay: float, call: Callable[[Delivery], None], one: Delivery) -> None:
        """Call later; nothing is called after ``close``."""

        def when_due() -> None:
            self._calls.discard(timer)
            call(one)

        timer = self._loop.call_later(delay, when_due)
        self._calls.add(timer)

    def close(self) -> None:
        """Cancel every timer."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _extend(self, delivery: Delivery) -> None:
        delivery.in_progress()
        delivery.leased_at = self.now()

    def _schedule(self, within: float) -> None:
        when = self.now() + min(within, self.extended_by / 6)
        if self.timer is not None:
            if self.timer.when() <= when:
                return
            self.timer.cancel()
        self.timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self.timer = None
        if self._is_connected():
            self._extend_due()
        now = self.now()
        nearest = NEVER
        for slot in self._slots.all:
            if slot.deadline <= now:
                self._stop_overdue(slot)
            nearest = min(nearest, slot.deadline)
        # A run of a consumer that was lost holds no lease any more, but has its time.
        if nearest < NEVER or any(state.held for state in self._states.values()):
            self._schedule(max(0.001, nearest - now))

    def _extend_due(self) -> None:
        due = self.now() - self.extended_by / 3
        for state in self._states.values():
            for delivery in state.held.values():
                if delivery.leased_at <= due and not self.has_lapsed(delivery):
                    self._extend(delivery)

    def _stop_overdue(self, slot: Slot) -> None:
        assert self.timeout is not None
        if self._can_cancel and slot.task is not None:
            # Again at every timeout: a handler may swallow a cancellation.
            slot.deadline = self.now() + self.timeout
            slot.timed_out = True
            slot.task.cancel()
            return
        slot.deadline = NEVER
        slot.timed_out = True
        if slot.delivery is not None:
            self._signals.emit(
                ThreadStuck(handler=self._handler, delivery=slot.delivery, timeout=self.timeout)
            )

"""Leases: held deliveries stay ours, and handlers end in time. One timer per subscription."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..transports.base import Delivery, Source
from .reading import Reading
from .workers import NEVER, Worker, Workers

log = logging.getLogger("omni_worker.worker")


class Leases:
    """Extends what is held every third of ``ack_wait``, which is the server's word on it.

    A lease that lapsed all the same (a stopped process, a blocked loop, a long outage) means that
    the server has given the event away: ``has_lapsed`` tells.
    """

    def __init__(
        self,
        readings: dict[Source, Reading],
        workers: Workers,
        *,
        ack_wait: float,
        timeout: float | None,
        can_cancel: bool,
        is_connected: Callable[[], bool],
    ) -> None:
        self.ack_wait = ack_wait
        self.timeout = timeout
        self._readings = readings
        self._workers = workers
        self._can_cancel = can_cancel
        self._is_connected = is_connected
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.TimerHandle] = set()
        self.now = self._loop.time

    def begin(self, delivery: Delivery) -> None:
        """A delivery came: its lease runs from now."""
        delivery.leased_at = self.now()
        if self._timer is None:
            self._schedule(self.ack_wait / 6)

    def begin_run(self, worker: Worker) -> None:
        """A handler begins: it has ``timeout`` seconds, which is set."""
        assert self.timeout is not None
        worker.deadline = self.now() + self.timeout
        if self._timer is None or self._timer.when() > worker.deadline:
            self._schedule(self.timeout)

    def end_run(self, worker: Worker) -> bool:
        """It ended. Says whether it had been told to."""
        worker.deadline = NEVER
        if not worker.timed_out:
            return False
        worker.timed_out = False
        while worker.task is not None and worker.task.cancelling():
            worker.task.uncancel()
        return True

    def has_lapsed(self, delivery: Delivery) -> bool:
        """Whether it is somebody else's by now."""
        if not delivery.lapsed and self.now() - delivery.leased_at > self.ack_wait:
            delivery.lapsed = True
        return delivery.lapsed

    def touch(self, reading: Reading) -> None:
        """After a reconnect: extend what is still ours at once."""
        for delivery in reading.held.values():
            if not self.has_lapsed(delivery):
                self._extend(delivery)

    def call_later(self, delay: float, call: Callable[[Delivery], None], one: Delivery) -> None:
        """Later; nothing is called after ``close``."""

        def when_due() -> None:
            self._calls.discard(timer)
            call(one)

        timer = self._loop.call_later(delay, when_due)
        self._calls.add(timer)

    def close(self) -> None:
        """No more timers."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _extend(self, delivery: Delivery) -> None:
        delivery.in_progress()
        delivery.leased_at = self.now()

    def _schedule(self, within: float) -> None:
        when = self.now() + min(within, self.ack_wait / 6)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._is_connected():
            self._extend_due()
        now = self.now()
        nearest = NEVER
        for worker in self._workers.all:
            if worker.deadline <= now:
                self._stop_overdue(worker)
            nearest = min(nearest, worker.deadline)
        # A run of a consumer that was lost holds no lease any more, but has its time.
        if nearest < NEVER or any(reading.held for reading in self._readings.values()):
            self._schedule(max(0.001, nearest - now))

    def _extend_due(self) -> None:
        due = self.now() - self.ack_wait / 3
        for reading in self._readings.values():
            for delivery in reading.held.values():
                if delivery.leased_at <= due and not self.has_lapsed(delivery):
                    self._extend(delivery)

    def _stop_overdue(self, worker: Worker) -> None:
        assert self.timeout is not None
        if self._can_cancel and worker.task is not None:
            # Again at every timeout: a handler may swallow a cancellation.
            worker.deadline = self.now() + self.timeout
            worker.timed_out = True
            worker.task.cancel()
            return
        worker.deadline = NEVER
        worker.timed_out = True
        if worker.delivery is not None:
            log.warning(
                "a thread cannot be stopped: its event keeps lease and slot until it ends",
                extra={"subject": worker.delivery.subject, "timeout": self.timeout},
            )

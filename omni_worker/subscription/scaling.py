"""Scaling: a handler's concurrency, changed while it runs."""

from __future__ import annotations

from ..signals import Scaled
from ..threads import DaemonThreads
from .gates import Flow
from .surplus import Surplus


class Scaling:
    """Concurrency of one handler in this process: as declared, or as ordered.

    ``order`` says, in words, who ordered it; None if it is as declared. With batches it is the
    number of those, of ``batch`` events each.
    """

    def __init__(
        self, flow: Flow, surplus: Surplus, threads: DaemonThreads | None, *, batch: int = 1
    ) -> None:
        self.order: str | None = None
        self._batch = batch
        self.declared = flow.slots.size // batch
        self._flow = flow
        self._surplus = surplus
        self._threads = threads

    @property
    def concurrency(self) -> int:
        """Number of events, or batches, that may run at once."""
        return self._flow.slots.size // self._batch

    def follow(self, concurrency: int | None, order: str | None) -> None:
        """Run as many events at once as ordered; None: as declared.

        Nothing that runs is stopped: with fewer, what waits beyond them is handed back, no attempt
        spent, and nothing begins until enough runs have ended.
        """
        is_news, self.order = order != self.order, order
        slots, size = self._flow.slots, self.declared if concurrency is None else concurrency
        if slots.is_closed:
            return
        before = self.concurrency
        if size != before:
            if self._threads is not None:
                self._threads.grow(size)
            slots.resize(size * self._batch)
            self._flow.credit.scale(size * self._batch)
            if size < before:
                self._surplus.trim()
        if is_news:
            self._flow.emit(
                Scaled(
                    handler=self._flow.handler,
                    concurrency=size,
                    declared=self.declared,
                    reason=order or "",
                )
            )

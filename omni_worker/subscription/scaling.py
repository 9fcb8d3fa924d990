"""Scaling: a handler's concurrency, changed while it runs."""

from __future__ import annotations

from ..signals import Scaled, Tuned
from .gates import Flow
from .parts import Parts
from .surplus import Surplus
from .tuning import Tuning


class Scaling:
    """Concurrency of one handler in this process: as declared, as it adapts itself, or as ordered.

    ``order`` says, in words, who ordered it; None without an order. With batches it is the
    number of those, of ``batch`` events each.
    """

    def __init__(self, flow: Flow, surplus: Surplus, parts: Parts, *, batch: int = 1) -> None:
        self.order: str | None = None
        self._batch = batch
        self._declared = flow.slots.size // batch
        self._flow = flow
        self._surplus = surplus
        self._threads = parts.threads
        bounds = parts.handler.adapts
        self._tuning: Tuning | None = None
        if bounds is not None:
            self._tuning = Tuning(bounds, flow, parts.counts, parts.breaker, self._adapt)

    @property
    def concurrency(self) -> int:
        """Number of events, or batches, that may run at once."""
        return self._flow.slots.size // self._batch

    @property
    def declared(self) -> int:
        """Number without an order: the declared one, or what was found until now."""
        return self._declared if self._tuning is None else self._tuning.size

    @property
    def adapts(self) -> bool:
        """True if the number is found here, and no order holds."""
        return self._tuning is not None and self.order is None

    def follow(self, concurrency: int | None, order: str | None) -> None:
        """Run as many events at once as ordered; None: as declared, or as it adapts itself.

        Nothing that runs is stopped: with fewer, what waits beyond them is handed back, no attempt
        spent, and nothing begins until enough runs have ended.
        """
        is_news, self.order = order != self.order, order
        size = self.declared if concurrency is None else concurrency
        if self._flow.slots.is_closed:
            return
        if self._tuning is not None:
            self._tuning.is_on = concurrency is None
        before = self.concurrency
        self._resize(size)
        if size < before:
            self._surplus.trim()
        if is_news:
            self._flow.emit(
                Scaled(
                    handler=self._flow.handler,
                    concurrency=size,
                    declared=self.declared,
                    reason=order or "",
                    adapts=self._tuning is not None,
                )
            )

    def _adapt(self, size: int) -> None:
        """Follow the tuning; what waits here already stays, and is begun a little later."""
        before = self.concurrency
        self._resize(size)
        self._flow.emit(Tuned(handler=self._flow.handler, concurrency=size, before=before))

    def _resize(self, size: int) -> None:
        if size == self.concurrency:
            return
        if self._threads is not None:
            self._threads.grow(size)
        self._flow.slots.resize(size * self._batch)
        self._flow.credit.scale(size * self._batch)

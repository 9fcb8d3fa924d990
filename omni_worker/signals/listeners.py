"""Listeners: who hears which kinds of signals, and how a signal reaches them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..events import Event
from ..handlers import Handler
from ..outcomes import Outcome
from ..transports.base import Delivery
from .base import Signal

log = logging.getLogger("omni_worker.signals")

AnySignal = TypeVar("AnySignal", bound=Signal)


@dataclass(frozen=True, slots=True)
class Listener:
    """A function, and the kinds of signals it is called with."""

    hear: Callable[[Any], None]
    kinds: tuple[type[Signal], ...] = (Signal,)


class RunSpans(Protocol):
    """Spans around the runs of a handler: the socket for a tracer, cheaper than two signals.

    Both are called in the task of the run. Nothing here raises.
    """

    def begin(self, handler: Handler, delivery: Delivery, event: Event[Any], attempt: int) -> None:
        """Begin the span of a run, and make it the current one."""

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        """End the span of a run, or note why it failed until the delivery is answered."""


class BatchSpan(Protocol):
    """The span of one call of a batch handler, current until it is ended."""

    def ended(self, error: BaseException | None) -> None:
        """End it, as failed if the call raised."""


class BatchSpans(Protocol):
    """Spans around the calls of batch handlers: the socket for a tracer. Nothing here raises."""

    def begin(
        self, handler: Handler, runs: Sequence[tuple[Delivery, Event[Any]]]
    ) -> BatchSpan | None:
        """Begin the span of a call with the events of these runs, and make it the current one."""


class Signals:
    """The listeners of one handler, or of one bus. Emitting without a listener costs a look-up.

    A listener given twice (by an app and by one it includes) hears a signal once.
    """

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self.spans: RunSpans | None = None  # where a tracer is registered
        self.batch_spans: BatchSpans | None = None
        self._listeners: list[Listener] = []
        for listener in listeners:
            if listener not in self._listeners:
                self._listeners.append(listener)
        self._by_kind: dict[type[Signal], tuple[Callable[[Any], None], ...]] = {}

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Every listener, in the order of registration."""
        return tuple(self._listeners)

    def add(self, listener: Listener) -> None:
        """Register a listener; emitters that were taken before do not know it."""
        self._listeners.append(listener)
        self._by_kind.clear()

    def emit(self, signal: Signal) -> None:
        """Call every listener of this kind of signal."""
        for hear in self._hearing(type(signal)):
            try:
                hear(signal)
            except Exception:
                log.exception("a listener failed on %s; nothing else changes", _name(signal))

    def hears(self, kind: type[Signal]) -> bool:
        """Return True if any listener takes this kind."""
        return bool(self._hearing(kind))

    def emitter(self, kind: type[AnySignal]) -> Callable[[AnySignal], None] | None:
        """Return the way to emit one kind, None if nothing listens: then nothing need be made."""
        return self.emit if self._hearing(kind) else None

    def _hearing(self, kind: type[Signal]) -> tuple[Callable[[Any], None], ...]:
        found = self._by_kind.get(kind)
        if found is None:
            found = tuple(one.hear for one in self._listeners if issubclass(kind, one.kinds))
            self._by_kind[kind] = found
        return found


def _name(signal: Signal) -> str:
    return type(signal).__name__

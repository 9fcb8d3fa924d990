"""Signals: what happened, as typed facts, and the listeners that hear them.

The engine emits; it never logs an event. A listener is called on the event loop, in the order of
registration: it must be quick. An exception it raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from .events import Event
from .handlers import Handler
from .outcomes import Outcome
from .transports.base import Delivery

log = logging.getLogger("omni_worker.signals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Base of every signal; a listener of this class hears all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSignal(Signal):
    """Something happened to one handler."""

    handler: Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSignal(HandlerSignal):
    """Something happened to one delivery of one handler; ``event`` is None if it is unreadable."""

    event: Event[Any] | None
    delivery: Delivery

    @property
    def subject(self) -> str:
        """Subject the event came on."""
        return self.delivery.subject

    @property
    def stream(self) -> str:
        """Stream the event is stored in."""
        return self.delivery.source.stream

    @property
    def sequence(self) -> int:
        """Sequence of the event in its stream."""
        return self.delivery.sequence


# --- one run of a handler -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(EventSignal):
    """A handler is about to run; ``attempt`` 1 is the first."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(EventSignal):
    """A handler's run ended; a run that was cut off is Failed with CancelledError.

    Done means handled. What follows from a failure is a signal of its own: Retried, DeadLettered.
    """

    attempt: int
    outcome: Outcome
    seconds: float


# --- what became of a delivery --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(EventSignal):
    """An event failed and comes again after ``after`` seconds."""

    attempt: int
    of: int
    after: float
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered(EventSignal):
    """An event was given up; its dead letter is stored under the id ``letter``."""

    attempts: int
    error: str
    error_type: str
    letter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDelayed(EventSignal):
    """A dead letter could not be stored; the event waits, and only the letter is tried again."""

    after: float
    error: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDropped(EventSignal):
    """A dead letter itself could not be handled; it is terminated and stays in its stream."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped(EventSignal):
    """A delivery matched the filters but is of another type: acknowledged unrun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedBack(EventSignal):
    """A delivery went back to the server, no attempt spent."""

    after: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised(EventSignal):
    """A delivery came again although it was settled; it is acknowledged unrun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed(EventSignal):
    """A lease ran out during the run: the server has given the event away, nothing is answered."""


# --- publishing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfirmed(Signal):
    """The server confirmed a published event."""

    id: str
    type: str
    subject: str
    stream: str
    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailed(Signal):
    """A publish was refused or not confirmed."""

    id: str
    type: str
    error: Exception


# --- consumers, connection, gates -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerLost(HandlerSignal):
    """A consumer was deleted or can no longer be read."""

    stream: str
    consumer: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRecreated(HandlerSignal):
    """A lost consumer exists again and reads from ``sequence``."""

    stream: str
    consumer: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Signal):
    """The connection is established, for the first time or again."""

    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Signal):
    """The connection was lost; the transport reconnects."""

    server: str
    cause: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(HandlerSignal):
    """Every event failed lately; trials run until one succeeds."""

    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(HandlerSignal):
    """A trial succeeded: the handler runs at full speed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(HandlerSignal):
    """A handler takes no more events until it is resumed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(HandlerSignal):
    """A paused handler takes events again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(HandlerSignal):
    """Something has kept a handler from taking events for a while."""

    reason: str


# --- listeners ------------------------------------------------------------------------------------

AnySignal = TypeVar("AnySignal", bound=Signal)


@dataclass(frozen=True, slots=True)
class Listener:
    """A function, and the kinds of signals it is called with."""

    hear: Callable[[Any], None]
    kinds: tuple[type[Signal], ...] = (Signal,)


class Signals:
    """The listeners of one handler, or of one bus. Emitting without a listener costs a look-up."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = list(listeners)
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

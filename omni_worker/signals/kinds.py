"""Kinds of signals: what happened, as frozen facts in the field's words.

Keep a signal no longer than needed: it holds its event, and the bytes that came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InvalidEvent
from ..events import Event, addressed
from ..handlers import Handler
from ..outcomes import Outcome
from ..subjects import parse_subject
from ..transports.base import Delivery
from ..wire import read_envelope, to_event


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Base of every signal; a listener of this class hears all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSignal(Signal):
    """Something happened to one handler."""

    handler: Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSignal(HandlerSignal):
    """Something happened to one delivery of one handler."""

    delivery: Delivery

    @property
    def event(self) -> Event[Any] | None:
        """Event in the delivery, its payload unchecked; None if it is unreadable.

        Read when asked for, except in the two signals of a run.
        """
        return _event_in(self.delivery)

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

    event: Event[Any]
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(EventSignal):
    """A handler's run ended; a run that was cut off is Failed with CancelledError.

    Done means handled. What follows from a failure is a signal of its own: Retried, DeadLettered.
    """

    event: Event[Any]
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
    """An event was given up; its dead letter is stored with the id ``letter``."""

    attempts: int
    error: str
    error_type: str
    letter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDelayed(EventSignal):
    """A dead letter could not be stored; the event waits, and only storing is retried."""

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
    """A delivery went back to the server, no attempt spent.

    ``foreign``: it is for another version of this consumer.
    """

    after: float
    reason: str
    foreign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised(EventSignal):
    """A delivery came again although it was settled; it is acknowledged unrun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed(EventSignal):
    """A lease ran out during the run: the server has given the event away, nothing is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff(EventSignal):
    """A handler still ran at the end of grace: its event is handed back, the run cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverEnded(EventSignal):
    """The last run of an event never ended: its process died or hung. It counts as a failure."""

    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadStuck(EventSignal):
    """A plain def handler outlasts its timeout; a thread cannot be stopped, its slot stays busy."""

    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLost(HandlerSignal):
    """Another process took over an event that still runs here (``exactly_once``)."""

    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardNotExtended(HandlerSignal):
    """The guard of a running event could not be extended; it is tried again."""

    event_id: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(EventSignal):
    """Another message with the same id and content was handled before (``exactly_once``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdUsedAgain(HandlerSignal):
    """Two different events have the same id (``exactly_once``); each of them runs."""

    event_id: str


# --- publishing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfirmed(Signal):
    """The server confirmed a published event; ``is_letter`` for a dead letter of ours."""

    id: str
    type: str
    stream: str
    sequence: int
    duplicate: bool
    is_letter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailed(Signal):
    """A publish was refused or not confirmed; ``is_letter`` for a dead letter of ours.

    ``id`` is None where the caller gave none.
    """

    id: str | None
    type: str
    error: Exception
    is_letter: bool = False


# --- consumers, connection, gates -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerLost(HandlerSignal):
    """A consumer was deleted or can no longer be read; ``recreate``: it is created again."""

    stream: str
    consumer: str
    cause: Exception
    recreate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRecreated(HandlerSignal):
    """A lost consumer is created again and reads from ``sequence``."""

    stream: str
    consumer: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecreationFailed(HandlerSignal):
    """A lost consumer cannot be created yet; it is tried again."""

    stream: str
    consumer: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReplaced(HandlerSignal):
    """A stream was deleted and created again: its consumer starts at the first event."""

    stream: str
    consumer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnsLost(Signal):
    """The consumer of events sent back from dead letters was deleted or cannot be read."""

    stream: str
    consumer: str
    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnDelayed(Signal):
    """An event sent back to an unknown handler waits: its dead letter could not be stored."""

    name: str
    delivery: Delivery
    cause: Exception


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
    """A handler takes no new events until it is resumed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(HandlerSignal):
    """A paused handler takes events again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(HandlerSignal):
    """Something has kept a handler from taking events for a while."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForOlder(HandlerSignal):
    """Older events are held by other processes; with ``order_by`` they come first."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignDelivery(HandlerSignal):
    """A delivery for another version of this consumer came, for the first time; see HandedBack."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesFailed(HandlerSignal):
    """Attempts cannot be noted across processes; deliveries are counted instead."""

    cause: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFault(HandlerSignal):
    """A fault of this framework; ``consequence`` says what becomes of the event."""

    error: Exception
    consequence: str
    delivery: Delivery | None = None


# --- the process ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Signal):
    """Every handler of the app reads its events."""

    handlers: int
    pid: int
    consumers: tuple[dict[str, Any], ...] = ()


def _event_in(delivery: Delivery) -> Event[Any] | None:
    try:
        envelope = read_envelope(delivery.body, stored_at=delivery.stored_at // 1_000_000)
        event = to_event(Event[Any], envelope)
    except InvalidEvent:
        return None
    try:
        return addressed(event, parse_subject(delivery.subject, event.type))
    except InvalidEvent:
        return event

"""Signals of deliveries: runs of a handler, what became of each event, what was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..events import Event
from ..letters.written import Failure
from ..outcomes import Outcome
from ..transports.base import Delivery
from .base import EventSignal, HandlerSignal, Signal

# What becomes of the events of a batch that failed.
Then = Literal["again", "halves", "later", "letters"]

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
class BatchFailed(HandlerSignal):
    """A call with several events failed; each of them has a signal of its own later.

    ``deliveries`` are those that neither `retry` nor `reject` ended. ``attempt`` is the lowest of
    them. ``then`` is what becomes of them: they come again, run in halves at once, are tried later
    without an attempt spent, or become dead letters.
    """

    deliveries: tuple[Delivery, ...]
    attempt: int
    of: int
    error: BaseException
    then: Then


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered(EventSignal):
    """An event was given up; its dead letter is stored with the id ``letter``.

    ``number``: its sequence in its stream, as `dead-letters show` takes it. ``attempts`` of ``of``.
    """

    attempts: int
    error: str
    error_type: str
    letter: str
    number: int = 0
    of: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDelayed(EventSignal):
    """A dead letter could not be stored; the event waits, and only storing is retried."""

    after: float
    error: str
    cause: Exception
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTaken(EventSignal):
    """Another message has the ``id`` derived for a dead letter or an output; the next id is tried.

    ``by_stream`` and ``by_sequence``: where that message is stored.
    """

    id: str
    by_stream: str
    by_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDropped(EventSignal):
    """A dead letter itself could not be handled; it is terminated and stays in its stream."""

    error: str
    failure: Failure | None = None


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
    """A lease ran out during the run: the server has given the event away, nothing is answered.

    ``outcome``: how the run ended.
    """

    outcome: Outcome | None = None


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
    """The server confirmed a published event; ``is_letter`` for a dead letter of ours.

    ``seconds``: how long `publish` took; None for one of many, and for a dead letter. With ``due``
    (epoch milliseconds) it is kept until then: stream and sequence are those of its schedule.
    """

    id: str
    type: str
    stream: str
    sequence: int
    duplicate: bool
    is_letter: bool = False
    channel: str | None = None
    instance: str | None = None
    seconds: float | None = None
    due: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFailed(Signal):
    """A publish was refused or not confirmed; ``is_letter`` for a dead letter of ours.

    ``id`` is None where the caller gave none; ``seconds`` as in PublishConfirmed.
    """

    id: str | None
    type: str
    error: Exception
    is_letter: bool = False
    seconds: float | None = None

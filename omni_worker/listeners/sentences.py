"""Sentences: one signal becomes one log line, with its level and fields. Pure."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from ..events import names_of
from ..letters.written import error_line
from ..outcomes import DONE, Failed, Outcome, Reject, Rejected, Retry
from ..signals import (
    BreakerClosed,
    BreakerOpened,
    ConsumerEdited,
    ConsumerLost,
    ConsumerPaused,
    ConsumerRecreated,
    ConsumerReset,
    CutOff,
    DeadLetterDelayed,
    DeadLetterDropped,
    DeadLettered,
    Duplicate,
    EngineFault,
    EventSignal,
    ForeignDelivery,
    GuardLost,
    GuardNotExtended,
    HandlerSignal,
    IdTaken,
    IdUsedAgain,
    Lapsed,
    NearlyFull,
    NeverEnded,
    NotesFailed,
    Ready,
    RecreationFailed,
    Retried,
    ReturnDelayed,
    ReturnsLost,
    RunFinished,
    RunStarted,
    Signal,
    Stalled,
    StallEnded,
    StreamReplaced,
    ThreadStuck,
    WaitingForOlder,
)

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

# Heard always: what a person on duty wants to read. Two more are heard where runs are logged too.
ALWAYS: tuple[type[Signal], ...] = (
    Retried, DeadLettered, DeadLetterDelayed, DeadLetterDropped, IdTaken, Lapsed,
    CutOff, NeverEnded, ThreadStuck, GuardLost, GuardNotExtended,
    Duplicate, IdUsedAgain,
    ConsumerEdited, ConsumerLost, ConsumerPaused, ConsumerRecreated, ConsumerReset,
    RecreationFailed, StreamReplaced,
    BreakerOpened, BreakerClosed, WaitingForOlder, ForeignDelivery, NotesFailed, EngineFault,
    NearlyFull, Stalled, StallEnded,
    ReturnsLost, ReturnDelayed, Ready,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """A log line: level, message and fields; ``error`` brings its traceback."""

    level: int
    message: str
    fields: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


def sentence_of(signal: Signal) -> Sentence | None:
    """The log line of a signal, None for a kind that is not logged."""
    match signal:
        case RunStarted() | RunFinished():
            return _of_run(signal)
        case EventSignal():
            return _of_event(signal)
        case HandlerSignal():
            return _of_consumer(signal) or _of_handler(signal)
        case ReturnsLost():
            again = "what waited there can be retried with --again"
            return Sentence(ERROR, f"{signal.cause}; {again}")
        case ReturnDelayed():
            return Sentence(ERROR, f"an event for an unknown handler waits: {signal.cause}")
        case Ready():
            facts = {"handlers": signal.handlers, "pid": signal.pid}
            consumers = {"consumers": list(signal.consumers)} if signal.consumers else {}
            return Sentence(INFO, "ready", facts | consumers)
    return None


def _of_run(signal: RunStarted | RunFinished) -> Sentence:
    fields = {
        **names_of(signal.event),
        "handler": signal.handler.name,
        "attempt": signal.attempt,
        "function": signal.handler.short,
        "subject": signal.subject,
    }
    if isinstance(signal, RunStarted):
        return Sentence(DEBUG, "running", fields)
    message = "handled" if signal.outcome is DONE else "failed"
    # Once is enough to read a traceback; the retries' lines say the error in words.
    error = _raised(signal.outcome) if signal.attempt == 1 else None
    return Sentence(DEBUG, message, fields | {"seconds": round(signal.seconds, 6)}, error)


def _raised(outcome: Outcome) -> BaseException | None:
    """A failure's exception, unless the handler meant it, or was cut off."""
    error = outcome.error if isinstance(outcome, Failed | Rejected) else None
    return None if isinstance(error, Reject | Retry | asyncio.CancelledError) else error


def _of_event(signal: EventSignal) -> Sentence | None:
    match signal:
        case Retried():
            facts = {
                "attempt": signal.attempt,
                "of": signal.of,
                "after": round(signal.after, 3),
                "error": error_line(signal.error),
            }
            return Sentence(WARNING, "retry", _facts(signal) | facts)
        case DeadLettered(attempts=attempts, error=error, letter=letter):
            facts = {"attempts": attempts, "error": error, "letter": letter}
            return Sentence(ERROR, "dead letter", _facts(signal) | facts)
        case DeadLetterDelayed():
            facts = {"after": round(signal.after, 3), "cause": str(signal.cause)}
            message = "dead letter not stored; the event waits"
            return Sentence(ERROR, message, _facts(signal) | facts)
        case DeadLetterDropped():
            message = "a dead letter could not be handled and is dropped here"
            fields = _facts(signal) | {"error": signal.error}
            return Sentence(ERROR, f"{message}; it stays in its stream", fields)
        case IdTaken():
            by = f"{signal.by_stream} #{signal.by_sequence}"
            message = f"{by} has this id and is not what was published; the next id is tried"
            return Sentence(WARNING, message, _facts(signal) | {"id": signal.id})
        case Lapsed():
            return Sentence(WARNING, "lapsed", _facts(signal))
        case Duplicate():
            return Sentence(INFO, "a duplicate of a handled event; not run", _facts(signal))
    fields = {"handler": signal.handler.name, "subject": signal.subject}
    match signal:
        case CutOff():
            return Sentence(WARNING, "still running at the end of grace; handed back", fields)
        case NeverEnded():
            message = "its last run never ended: the process died or stood still"
            fields |= {"sequence": signal.sequence, "failures": signal.failures}
            return Sentence(WARNING, message, fields)
        case ThreadStuck():
            message = "a thread cannot be stopped: its event keeps lease and slot until it ends"
            return Sentence(WARNING, message, fields | {"timeout": signal.timeout})
    return None


def _of_consumer(signal: HandlerSignal) -> Sentence | None:
    handler = {"handler": signal.handler.name}
    match signal:
        case ConsumerLost(recreate=True):
            return Sentence(ERROR, f"{signal.cause}; making it again")
        case ConsumerLost():  # it ends the process, which says why
            return None
        case RecreationFailed(consumer=name):
            return Sentence(ERROR, f"consumer {name} cannot be recreated yet: {signal.cause}")
        case StreamReplaced(consumer=name):
            old = f"stream {signal.stream} is new: its old sequences mean nothing"
            return Sentence(ERROR, f"{old}, consumer {name} starts at the first")
        case ConsumerEdited(consumer=name, recreated=recreated):
            end = "recreated, for events may be stranded" if recreated else "set right"
            changed = f"consumer {name} was changed by others ({signal.changes})"
            return Sentence(WARNING, f"{changed}; it is {end}", handler)
        case ConsumerPaused(consumer=name, is_over=True):
            return Sentence(INFO, f"consumer {name} on {signal.stream} is resumed", handler)
        case ConsumerPaused():
            return Sentence(WARNING, signal.reason, handler)
        case ConsumerReset(consumer=name):
            return Sentence(WARNING, f"consumer {name} was reset by others: its events run again")
        case ConsumerRecreated(consumer=name, sequence=sequence):
            return Sentence(WARNING, f"consumer {name} is recreated from sequence {sequence}")
    return None


def _of_handler(signal: HandlerSignal) -> Sentence | None:
    name = {"handler": signal.handler.name}
    match signal:
        case BreakerOpened():
            message = "every event fails; only trials run until one succeeds"
            return Sentence(ERROR, message, name | {"failures": signal.failures})
        case BreakerClosed():
            return Sentence(INFO, "a trial succeeded; at full speed again", name)
        case NearlyFull():
            return Sentence(WARNING, f"soon takes no events: {signal.reason}", name)
        case Stalled():
            return Sentence(ERROR, f"takes no events: {signal.reason}", name)
        case StallEnded():
            return Sentence(INFO, "takes events again", name | {"reason": signal.reason})
        case WaitingForOlder():
            facts = {"events": signal.events, "seconds": round(signal.seconds, 1)}
            message = "older events are held elsewhere; in order, they come first"
            return Sentence(INFO, message, name | facts)
        case ForeignDelivery():
            message = "a delivery for another version of this consumer is handed back"
            return Sentence(WARNING, message, name | {"reason": signal.reason})
        case NotesFailed():
            message = "attempts cannot be noted across processes; deliveries are counted instead"
            return Sentence(WARNING, message, name | {"cause": str(signal.cause)})
        case GuardLost():
            message = "another process took over an event that is still running here"
            return Sentence(WARNING, message, name | {"event": signal.event_id})
        case IdUsedAgain():
            message = "two different events have the same id; each of them runs"
            return Sentence(WARNING, message, name | {"event": signal.event_id})
        case GuardNotExtended():
            return Sentence(DEBUG, f"a guard was not extended: {signal.cause}", name)
        case EngineFault(delivery=delivery):
            message = f"a fault of the framework; {signal.consequence}"
            subject = {} if delivery is None else {"subject": delivery.subject}
            return Sentence(ERROR, message, name | subject, signal.error)
    return None


def _facts(signal: EventSignal) -> dict[str, Any]:
    """Return the log fields of an event and its handler; an unreadable event has no names."""
    event = signal.event
    return {
        **({} if event is None else names_of(event)),
        "handler": signal.handler.name,
        "function": signal.handler.short,
        "subject": signal.subject,
        "stream": signal.stream,
        "sequence": signal.sequence,
    }

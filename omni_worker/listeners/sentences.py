"""Sentences: one signal becomes one log line, with its level and fields. Pure."""

from __future__ import annotations

from typing import Any

from ..events import Event, names_of
from ..failures import error_line, failure_line, one_line, place_of, was_meant
from ..letters.written import Failure
from ..outcomes import DONE, Failed, Outcome, Rejected
from ..signals import (
    AppReaderPaused,
    BatchFailed,
    BreakerClosed,
    BreakerOpened,
    ConsumerEdited,
    ConsumerLost,
    ConsumerPaused,
    ConsumerRecreated,
    ConsumerReset,
    ConsumersJoined,
    CronRestored,
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
    LateConsumerLost,
    Limited,
    LimitEnded,
    NearlyFull,
    NeverEnded,
    NotesFailed,
    NotForwarded,
    Paused,
    PublishConfirmed,
    Ready,
    RecreationFailed,
    Resumed,
    Retried,
    ReturnDelayed,
    ReturnsLost,
    RunFinished,
    RunStarted,
    Scaled,
    Signal,
    Stalled,
    StallEnded,
    StreamReplaced,
    ThreadStuck,
    WaitingForOlder,
)
from .batch_sentence import batch_sentence
from .flow_sentences import flow_sentence
from .sentence import DEBUG, ERROR, INFO, WARNING, Sentence
from .text import address, clock_time, human_time, short_id

# Heard always: what a person on duty wants to read. Two more are heard where runs are logged too.
ALWAYS: tuple[type[Signal], ...] = (
    Retried, BatchFailed, DeadLettered, DeadLetterDelayed, DeadLetterDropped, IdTaken, Lapsed,
    CutOff, NeverEnded, ThreadStuck, GuardLost, GuardNotExtended,
    Duplicate, IdUsedAgain,
    ConsumerEdited, ConsumerLost, ConsumerPaused, ConsumerRecreated, ConsumerReset, ConsumersJoined,
    RecreationFailed, StreamReplaced, LateConsumerLost,
    BreakerOpened, BreakerClosed, WaitingForOlder, ForeignDelivery, NotesFailed, EngineFault,
    NearlyFull, Paused, Resumed, Scaled, Stalled, StallEnded, Limited, LimitEnded,
    ReturnsLost, ReturnDelayed, NotForwarded, AppReaderPaused, CronRestored, Ready,
)  # fmt: skip


def sentence_of(signal: Signal) -> Sentence | None:
    """The log line of a signal, None for a kind that is not logged."""
    match signal:
        case RunStarted() | RunFinished():
            return _of_run(signal)
        case EventSignal():
            return _of_event(signal)
        case BatchFailed():
            return batch_sentence(signal)
        case HandlerSignal():
            return flow_sentence(signal) or _of_consumer(signal) or _of_handler(signal)
        case ReturnsLost():
            again = "what waited there can be retried with --again"
            return Sentence(ERROR, f"{signal.cause}; {again}")
        case ReturnDelayed():
            return Sentence(ERROR, f"an event for an unknown handler waits: {signal.cause}")
        case PublishConfirmed():
            fields = {"type": signal.type, "event": signal.id, "stream": signal.stream,
                      "sequence": signal.sequence}  # fmt: skip
            text = f"published {published_address(signal)} as {signal.stream} #{signal.sequence}"
            if signal.due is not None:
                text = f"scheduled {published_address(signal)} for {clock_time(signal.due)}"
            return Sentence(DEBUG, text, fields)
        case NotForwarded(again=None):
            return Sentence(WARNING, f"{signal.subject}: dropped, {signal.cause}")
        case NotForwarded():
            again = f"again in {signal.again:g} s, and until it works"
            return Sentence(ERROR, f"a scheduled event is due and waits: {signal.cause}; {again}")
        case AppReaderPaused(consumer=name, is_over=True):
            return Sentence(INFO, f"{name} is no longer paused")
        case AppReaderPaused():
            return Sentence(WARNING, signal.reason)
        case CronRestored(name=name):
            return Sentence(WARNING, f"cron {name} was deleted on the server: registered again")
        case Ready():
            facts = {"handlers": signal.handlers, "pid": signal.pid,
                     "app": signal.app, "server": signal.server}  # fmt: skip
            consumers = {"consumers": list(signal.consumers)} if signal.consumers else {}
            return Sentence(INFO, "ready", facts | consumers)
    return None


def published_address(signal: PublishConfirmed) -> str:
    """Show where an event went: `message.sent whatsapp/wa-001`."""
    return signal.type + (f" {signal.channel}/{signal.instance}" if signal.channel else "")


def run_mark(function: str, id: str) -> str:
    """Begin the lines of one run: `[greet 1f7539f6]`; the id is enough for `omni-worker trace`."""
    return f"[{function} {one_line(short_id(id))}]"


# --- runs -------------------------------------------------------------------------------------


def _of_run(signal: RunStarted | RunFinished) -> Sentence:
    fields = {
        **names_of(signal.event),
        "handler": signal.handler.name,
        "attempt": signal.attempt,
        "function": signal.handler.short,
        "subject": signal.subject,
    }
    mark, about = run_mark(signal.handler.short, signal.event.id), _about(signal, signal.event)
    if isinstance(signal, RunStarted):
        return Sentence(DEBUG, f"{mark} running", fields, about)
    how, took = _ending(signal.outcome), human_time(signal.seconds)
    text = f"{mark} handled in {took}" if how is None else f"{mark} failed in {took}: {how}"
    return Sentence(DEBUG, text, fields | {"seconds": round(signal.seconds, 6)}, about)


def _ending(outcome: Outcome | None) -> str | None:
    """Tell how a run ended, None if it was handled."""
    if isinstance(outcome, Failed | Rejected):
        return failure_line(outcome.error)
    return None if outcome is DONE else type(outcome).__name__


# --- events -----------------------------------------------------------------------------------


def _of_event(signal: EventSignal) -> Sentence | None:
    event = signal.event
    mark, about = _mark(signal, event), _about(signal, event)
    fields = _facts(signal, event)
    match signal:
        case Retried():
            return _of_retry(signal, mark, about, fields)
        case DeadLettered() | DeadLetterDelayed() | DeadLetterDropped():
            return _of_letter(signal, mark, about, fields)
        case IdTaken():
            by = f"{signal.by_stream} #{signal.by_sequence}"
            message = f"{by} has this id and is not what was published; the next id is tried"
            return Sentence(WARNING, f"{mark} {message}", fields | {"id": signal.id}, about)
        case Lapsed():
            text = (
                f"{mark} lapsed: it ran longer than its lease, and the server gave the event away"
            )
            how = _ending(signal.outcome)
            if how is None:
                return Sentence(WARNING, text, fields, about)
            return Sentence(WARNING, f"{text}; the run failed: {how}", fields, about)
        case Duplicate():
            text = f"{mark} a duplicate of a handled event; not run"
            return Sentence(INFO, text, fields, about)
        case CutOff():
            text = f"{mark} still running at the end of grace; handed back"
            return Sentence(WARNING, text, fields, about)
        case NeverEnded():
            text = f"{mark} its last run never ended: the process died or stood still"
            return Sentence(WARNING, text, fields | {"failures": signal.failures}, about)
        case ThreadStuck():
            text = (
                f"{mark} a thread cannot be stopped: its event keeps lease and slot until it ends"
            )
            return Sentence(WARNING, text, fields | {"timeout": signal.timeout}, about)
    return None


def _of_retry(signal: Retried, mark: str, about: str, fields: dict[str, Any]) -> Sentence:
    error, attempt = signal.error, f"attempt {signal.attempt} of {signal.of}"
    fields |= {
        "attempt": signal.attempt,
        "of": signal.of,
        "after": round(signal.after, 3),
        "error": error_line(error),
        "place": place_of(error),
    }
    wait, how = human_time(signal.after), failure_line(error)
    if was_meant(error):  # nothing failed: the handler asked for it
        return Sentence(INFO, f"{mark} {attempt} asks for a retry in {wait}: {how}", fields, about)
    # Once is enough to read a traceback; a later one comes with the dead letter.
    trace = error if signal.attempt == 1 else None
    text = f"{mark} {attempt} failed, retry in {wait}: {how}"
    return Sentence(WARNING, text, fields, about, error=trace)


def _of_letter(
    signal: DeadLettered | DeadLetterDelayed | DeadLetterDropped,
    mark: str,
    about: str,
    fields: dict[str, Any],
) -> Sentence:
    failure = signal.failure or Failure(error=signal.error, error_type="", traceback="", attempts=0)
    fields |= {"error": _error_of(failure), "place": failure.place}
    how = failure.line or one_line(_error_of(failure))
    match signal:
        case DeadLettered(attempts=attempts, of=of, letter=letter, number=number):
            fields |= {"attempts": attempts, "of": of, "letter": letter, "number": number}
            when = f"after attempt {attempts} of {of}" if attempts else "without a run"
            text = f"{mark} dead letter #{number} {when}: {how}"
            look, trace = f"omni-worker dead-letters show {number}", _trace_of(failure)
            return Sentence(ERROR, text, fields, about, look, traceback=trace)
        case DeadLetterDelayed(after=after, cause=cause):
            fields |= {"after": round(after, 3), "cause": error_line(cause)}
            text = f"dead letter not stored; the event waits, next try in {human_time(after)}"
            why = one_line(error_line(cause))
            return Sentence(ERROR, f"{mark} {text}: {why}; it failed with {how}", fields, about)
    text = "a dead letter could not be handled and is dropped here; it stays in its stream"
    return Sentence(ERROR, f"{mark} {text}: {how}", fields, about, traceback=_trace_of(failure))


def _error_of(failure: Failure) -> str:
    """Return class and text of a failure."""
    name = failure.error_type.rpartition(".")[2]
    return failure.error if not name or failure.error == name else f"{name}: {failure.error}"


def _trace_of(failure: Failure) -> str:
    return "" if failure.was_meant else failure.traceback


# --- handlers ---------------------------------------------------------------------------------


def _of_consumer(signal: HandlerSignal) -> Sentence | None:
    handler = {"handler": signal.handler.name}
    match signal:
        case ConsumerLost():  # without another one it ends the process, which says why
            return Sentence(ERROR, f"{signal.cause}; making it again") if signal.recreate else None
        case LateConsumerLost():
            return Sentence(ERROR, signal.consequence, {"handler": signal.handler.name})
        case ConsumersJoined(consumer=name):
            slow = "which is slow for the server"
            message = f"consumer {name} reads the bare subjects as well, {slow}: {signal.cause}"
            return Sentence(WARNING, message, {"handler": signal.handler.name})
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
    mark = f"[{signal.handler.short}]"
    name = {"handler": signal.handler.name, "function": signal.handler.short}
    match signal:
        case BreakerOpened(failures=failures):
            text = f"every event fails, {failures} so far; only trials run until one succeeds"
            return Sentence(ERROR, f"{mark} {text}", name | {"failures": failures})
        case BreakerClosed():
            return Sentence(INFO, f"{mark} a trial succeeded; at full speed again", name)
        case NearlyFull(reason=reason):
            return Sentence(WARNING, f"{mark} soon takes no events: {reason}", name)
        case Stalled(reason=reason):
            return Sentence(ERROR, f"{mark} takes no events: {reason}", name)
        case StallEnded(reason=reason):
            return Sentence(INFO, f"{mark} takes events again: {reason} is over", name)
        case WaitingForOlder():
            facts = {"events": signal.events, "seconds": round(signal.seconds, 1)}
            text = f"{signal.events} older events are held elsewhere; in order, they come first"
            return Sentence(INFO, f"{mark} {text}", name | facts)
        case ForeignDelivery(reason=reason):
            text = f"a delivery for another version of this consumer is handed back: {reason}"
            return Sentence(WARNING, f"{mark} {text}", name)
        case NotesFailed(cause=cause):
            text = "attempts cannot be noted across processes; deliveries are counted instead"
            return Sentence(WARNING, f"{mark} {text}: {cause}", name)
        case EngineFault(delivery=delivery, error=error):
            subject = {} if delivery is None else {"subject": delivery.subject}
            text = f"a fault of the framework: {one_line(error_line(error))}; {signal.consequence}"
            return Sentence(ERROR, f"{mark} {text}", name | subject, error=error, whole=True)
        case GuardLost() | IdUsedAgain() | GuardNotExtended():
            return _of_guard(signal, name | {"event": signal.event_id})
    return None


def _of_guard(
    signal: GuardLost | IdUsedAgain | GuardNotExtended, fields: dict[str, Any]
) -> Sentence:
    mark = run_mark(signal.handler.short, signal.event_id)
    match signal:
        case GuardLost():
            text = "another process took over an event that is still running here"
            return Sentence(WARNING, f"{mark} {text}", fields)
        case IdUsedAgain():
            text = "two different events have the same id; each of them runs"
            return Sentence(WARNING, f"{mark} {text}", fields)
    return Sentence(DEBUG, f"{mark} a guard was not extended: {signal.cause}", fields)


# --- words they share -------------------------------------------------------------------------


def _mark(signal: EventSignal, event: Event[Any] | None) -> str:
    if event is None:
        return f"[{signal.handler.short} {signal.stream} #{signal.sequence}]"
    return run_mark(signal.handler.short, event.id)


def _about(signal: EventSignal, event: Event[Any] | None) -> str:
    """Name the event's type and address, its handler, and where it is stored."""
    type = "" if event is None else names_of(event)["type"]
    where = one_line(address(type, signal.subject))
    return " · ".join((where, signal.handler.shown, f"{signal.stream} #{signal.sequence}"))


def _facts(signal: EventSignal, event: Event[Any] | None) -> dict[str, Any]:
    """Return the log fields of an event and its handler; an unreadable event has no names."""
    return {
        **({} if event is None else names_of(event)),
        "handler": signal.handler.name,
        "function": signal.handler.short,
        "subject": signal.subject,
        "stream": signal.stream,
        "sequence": signal.sequence,
    }

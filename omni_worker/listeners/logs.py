"""Logs: the listener that logs, one line for one thing that happened, for people or machines.

``configuration`` sets it up; or hang ``add_event`` and a formatter into one of your own.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from itertools import takewhile
from typing import Any

from ..context import event_fields
from ..current import current_run
from ..failures import one_line, safe_str, traceback_text
from ..masking import MASK, bounded, is_secret
from ..settings import Settings
from ..signals import (
    BatchFailed,
    HandlerSignal,
    Listener,
    PublishConfirmed,
    Retried,
    RunFinished,
    RunStarted,
    Signal,
    Tuned,
)
from ..transports.returned import Identity, identity_of
from .pretty import pretty
from .sentence import DEBUG, Sentence
from .sentences import ALWAYS, run_mark, sentence_of
from .text import LONGEST_TEXT, indented, visible, visible_json

__all__ = [
    "LOG",
    "LOG_LINES",
    "LOG_RUNS",
    "JsonFormatter",
    "Message",
    "PrettyFormatter",
    "add_event",
    "enable_loggers",
    "log_of",
    "write",
]

log = logging.getLogger("omni_worker.worker")
runs = logging.getLogger("omni_worker.events")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "omni_run",
}
SHORTEST = 100  # characters of a text for which a field has no room left
DEEPEST = 8  # levels of a field; what lies deeper is shown as text
LONGEST_LINE = 2_048  # characters of a line of ours
OURS = "omni_"  # begins the names of our fields: a line of any library may have a field `event`
_TOLD = "_omni_worker_told"  # of an exception: the events of which their batch's line told
SIGNAL = OURS + "signal"  # field: the kind of what happened, for programs
# Fields of a signal that people read elsewhere: in the line, or in the list at the start.
FOR_PROGRAMS = ("signal", "app", "server", "reason")


class Message(str):
    """A log message: one line, then the traceback. It remembers its parts for our formatters.

    Not fields of the record: no JSON shows them, and no copy for another process has them.
    """

    __slots__ = ("facts", "line", "signal", "traceback")

    line: str
    facts: tuple[str, ...]  # what it is about, and the command that shows more
    traceback: str
    signal: Signal

    def __new__(
        cls, line: str, signal: Signal, facts: tuple[str, ...] = (), traceback: str = ""
    ) -> Message:
        first = " · ".join((line, *facts))
        message = super().__new__(cls, f"{first}\n{indented(traceback)}" if traceback else first)
        message.line, message.facts, message.traceback = line, facts, traceback
        message.signal = signal
        return message

    @property
    def first(self) -> str:
        """Everything but the traceback."""
        return " · ".join((self.line, *self.facts))

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # in another process it is a text


def write(signal: Signal, *, tracebacks: bool = True) -> None:
    """Log one signal, by standard logging.

    The message has all of it: any formatter, structlog and pytest's captured log show it.
    """
    logger = runs if isinstance(signal, RunStarted | RunFinished | PublishConfirmed) else log
    if logger.disabled:  # by a dictConfig that came later: failures would be silent
        enable_loggers()
    sentence = sentence_of(signal)
    if sentence is None:
        return
    was_told = _was_told(signal)
    level = DEBUG if was_told else sentence.level
    if not logger.isEnabledFor(level):
        return
    trace = _trace_of(sentence) if tracebacks and not was_told else ""
    facts = (sentence.about, f"look: {sentence.look}" if sentence.look else "")
    logger.log(
        level,
        # Without arguments a message is not formatted: a per cent sign in it does no harm.
        Message(
            visible(one_line(sentence.text, LONGEST_LINE)),
            signal,
            tuple(visible(one) for one in facts if one),
            visible(trace),
        ),
        extra={
            **{OURS + name: value for name, value in sentence.fields.items()},
            SIGNAL: type(signal).__name__,
        },
    )


def _was_told(signal: Signal) -> bool:
    """Return True for the failure of one event of which its batch's line told.

    Told by event: one exception object may be raised by many calls, as a constant of a module is.
    """
    if isinstance(signal, BatchFailed):
        vars(signal.error)[_TOLD] = {identity_of(one) for one in signal.deliveries}
        return False
    if not isinstance(signal, Retried):
        return False
    told: set[Identity] = vars(signal.error).get(_TOLD, set())
    identity = identity_of(signal.delivery)
    is_told = identity in told
    told.discard(identity)
    return is_told


def _write_lines(signal: Signal) -> None:
    write(signal, tracebacks=False)


def enable_loggers() -> None:
    """Enable our loggers: `dictConfig` disables each that exists and that it does not name."""
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and f"{name}.".startswith("omni_worker."):
            logger.disabled = False


def log_of(settings: Settings) -> Listener:
    """Return the listener that logs what every person on duty wants to read."""
    return LOG if settings.log_tracebacks == "on" else LOG_LINES


LOG = Listener(write, ALWAYS)
LOG_LINES = Listener(_write_lines, ALWAYS)  # without tracebacks
LOG_RUNS = Listener(write, (RunFinished, Tuned))  # a line for each run, on level debug


def _trace_of(sentence: Sentence) -> str:
    if sentence.error is None or sentence.error.__traceback__ is None:
        return sentence.traceback
    return traceback_text(sentence.error, whole=sentence.whole)


def add_event(record: logging.LogRecord) -> bool:
    """A logging filter: what is logged inside a handler says which event it was about.

    Also in the threads of plain `def` handlers and of ``asyncio.to_thread``. The fields begin with
    ``omni_``; `%(omni_run)s` in a format is `[greet 1f7539f6] `, or nothing outside of a handler.
    """
    context = current_run()
    if context is not None:
        for name, value in event_fields(context).items():
            if not hasattr(record, name):
                setattr(record, name, value)
    fields = vars(record)
    function, event = fields.get("omni_function", ""), fields.get("omni_event", "")
    is_ours = isinstance(record.msg, Message)  # it begins so already
    record.omni_run = "" if is_ours or not event else visible(f"{run_mark(function, event)} ")
    return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, and the fields.

    Our fields are called without ``omni_``, unless the line has a field of that name.
    """

    def format(self, record: logging.LogRecord) -> str:
        said = record.msg.first if isinstance(record.msg, Message) else record.getMessage()
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": bounded(said, LONGEST_TEXT),
        }
        for key, value in _fields(record, taken=line).items():
            line.setdefault(key, value)
        if trace := _trace(record):
            line["traceback"] = trace
        return visible_json(line)


class PrettyFormatter(logging.Formatter):
    """For people: `12:00:01 ↻ [greet 1f7539f6] attempt 1 of 4 failed …`, in 80 columns."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = record.msg if isinstance(record.msg, Message) else None
        ours = record.name.startswith("omni_worker.") and record.name != "omni_worker.handler"
        fields = _fields(record)
        for name in FOR_PROGRAMS if ours and hasattr(record, SIGNAL) else ():
            if hasattr(record, OURS + name):
                fields.pop(name, None)
        mark = "" if message is not None else _run_mark(fields)
        return pretty(
            at,
            record.levelname,
            mark + (record.getMessage() if message is None else message.line),
            {} if message is not None and isinstance(message.signal, HandlerSignal) else fields,
            signal=None if message is None else message.signal,
            facts=() if message is None else message.facts,
            ours=ours,
            trace=_trace(record),
            colour=self._colour,
        )


def _run_mark(fields: dict[str, Any]) -> str:
    """Begin a line of a handler's with its run, in the place of the fields that name it."""
    names = [fields.pop(name, None) for name in ("function", "event")]
    if None in names:
        return ""
    for name in ("type", "handler", "correlation", "trace"):
        fields.pop(name, None)
    return f"{run_mark(*names)} "


def _fields(record: logging.LogRecord, taken: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of a record; ours by their short names, where nothing else has those."""
    given = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    named = {}
    for key, value in given.items():
        short = key.removeprefix(OURS)
        named[key if short in given or short in taken or short in _STANDARD else short] = value
    return {key: MASK if is_secret(key) else _plain(value, _Room()) for key, value in named.items()}


class _Room:
    """Characters that are left for a field, and how deep its value is looked into."""

    __slots__ = ("depth", "left")

    def __init__(self) -> None:
        self.left = LONGEST_TEXT
        self.depth = 0


def _plain(value: object, room: _Room) -> Any:
    """Return a field's value as JSON has it: bounded, without secrets, whatever its type."""
    room.left -= 1
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 1_024 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))  # JSON has no NaN
    if isinstance(value, dict | list | tuple | set | frozenset) and room.depth < DEEPEST:
        room.depth += 1
        entries = takewhile(lambda _: room.left > 0, value)
        plain: Any
        if isinstance(value, dict):
            named = ((_plain(safe_str(key), room), value[key]) for key in entries)
            plain = {key: MASK if is_secret(key) else _plain(one, room) for key, one in named}
        else:
            plain = [_plain(one, room) for one in entries]
        room.depth -= 1
        return plain
    text = bounded(safe_str(value), max(room.left, SHORTEST))
    room.left -= len(text)
    return text


def _trace(record: logging.LogRecord) -> str:
    """The traceback of a record, without our frames and what pydantic was given."""
    if isinstance(record.msg, Message):
        return record.msg.traceback
    if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
        return ""
    return traceback_text(record.exc_info[1])

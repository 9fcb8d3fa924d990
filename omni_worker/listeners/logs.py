"""Logs: the listener that logs, one line for one thing that happened, for people or machines.

Use ``set_up_logging``, or hang ``add_event`` and a formatter into a configuration of your own.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import string
import sys
import time
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..context import current_context, event_fields
from ..letters.written import safe_str, traceback_text
from ..masking import MASK, bounded, is_secret
from ..signals import Listener, RunFinished, RunStarted, Signal
from .pretty import LONGEST_TEXT, pretty, visible_json
from .sentences import ALWAYS, sentence_of

__all__ = [
    "LOG",
    "LOG_RUNS",
    "JsonFormatter",
    "Message",
    "PrettyFormatter",
    "add_event",
    "set_up_logging",
    "write",
]

log = logging.getLogger("omni_worker.worker")
runs = logging.getLogger("omni_worker.events")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
SHORTEST = 100  # characters of a text for which a field has no room left
DEEPEST = 8  # levels of a field; what lies deeper is shown as text
_WORD = string.ascii_letters + string.digits + "_"
# What a traceback begins with that is no help: our frames, and a lifespan's way through these.
_NOT_THEIRS = (str(Path(__file__).parent.parent), contextlib.__file__)


class Message(str):
    """A log message that remembers its signal: not a field of the record, so no JSON shows it."""

    __slots__ = ("signal",)

    def __new__(cls, text: str, signal: Signal) -> Message:
        message = super().__new__(cls, text)
        message.signal = signal
        return message

    signal: Signal

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # in another process it is a text


def write(signal: Signal) -> None:
    """Log one signal, by standard logging."""
    logger = runs if isinstance(signal, RunStarted | RunFinished) else log
    sentence = sentence_of(signal)
    if sentence is None or not logger.isEnabledFor(sentence.level):
        return
    logger.log(
        sentence.level,
        # Without arguments a message is not formatted: a per cent sign in it does no harm.
        Message(sentence.message, signal),
        extra=sentence.fields,
        exc_info=sentence.error,
    )


LOG = Listener(write, ALWAYS)  # every bus has it
LOG_RUNS = Listener(write, (RunFinished,))  # a line for each run, on level debug


def set_up_logging(
    format: str | None = None, level: str = "info", stream: IO[str] | None = None
) -> None:
    """Send every log line to standard error (or ``stream``), as ``pretty`` or ``json``.

    Without a format: pretty on a terminal, else JSON. Coloured on a terminal, unless NO_COLOR is
    set. Replaces the handlers there were.
    """
    stream = stream or sys.stderr
    if format is None:
        format = "pretty" if stream.isatty() else "json"
    colour = stream.isatty() and not os.environ.get("NO_COLOR")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else PrettyFormatter(colour=colour))
    handler.addFilter(add_event)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def add_event(record: logging.LogRecord) -> bool:
    """A logging filter: what is logged inside a handler says which event it was about.

    Also in the threads of plain `def` handlers and of ``asyncio.to_thread``. What the line's own
    ``extra`` says is kept.
    """
    context = current_context.get()
    if context is not None:
        for name, value in event_fields(context).items():
            if not hasattr(record, name):
                setattr(record, name, value)
    return True


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": bounded(record.getMessage(), LONGEST_TEXT),
        }
        for key, value in _fields(record).items():
            line.setdefault(key, value)
        if trace := _trace(record):
            line["traceback"] = trace
        return visible_json(line)


class PrettyFormatter(logging.Formatter):
    """For people: `12:00:01 ↻ retry 2 of 3 in 2.0 s: …`, in 80 columns, coloured where it helps."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        message, ours = record.getMessage(), record.name.startswith("omni_worker.")
        return pretty(
            at,
            record.levelname,
            message,
            _fields(record),
            signal=record.msg.signal if isinstance(record.msg, Message) else None,
            ours=ours and record.name != "omni_worker.handler",
            trace=_trace(record),
            colour=self._colour,
        )


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {key: MASK if is_secret(key) else _plain(value, _Room()) for key, value in given.items()}


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
    """The traceback from the first line that is not ours, without what pydantic was given."""
    if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
        return ""
    error, trace = record.exc_info[1], _theirs(record.exc_info[2])
    lines = traceback_text(error, trace).split("\n")
    return bounded("\n".join(map(_without_input, lines)).rstrip(), LONGEST_TEXT)


def _without_input(line: str) -> str:
    """Remove from a line of pydantic's what it was given: chats are private."""
    # Without an expression, which looks through the rest of the line for each mark in it.
    before, mark, rest = line.partition(", input_value=")
    _, end, kind = rest.rpartition(", input_type=")
    return before + kind.lstrip(_WORD) if mark and end else line


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THEIRS):
        trace = trace.tb_next
    return trace or first

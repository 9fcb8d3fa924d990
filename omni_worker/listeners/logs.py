"""Logs: the listener that logs, one line for one thing that happened, for people or machines.

Use ``set_up_logging``, or hang ``add_event`` and a formatter into a configuration of your own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..context import current_context, event_fields
from ..signals import Listener, RunFinished, RunStarted, Signal
from .pretty import pretty, visible_json
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
LONGEST_TRACE = 16_384  # characters
# What a traceback begins with that is no help: our frames, and a lifespan's way through these.
_NOT_THEIRS = (str(Path(__file__).parent.parent), contextlib.__file__)
_USERINFO = re.compile(r"(\w://)[^\s/@]+@")
_INPUT = re.compile(r", input_value=.*, input_type=\w+")  # pydantic repeats what it was given


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
            "message": record.getMessage(),
        }
        for key, value in _fields(record).items():
            line.setdefault(key, value)
        if trace := _trace(record):
            line["traceback"] = trace
        return _without_secrets(visible_json(line))


class PrettyFormatter(logging.Formatter):
    """For people: `12:00:01 ↻ retry 2 of 3 in 2.0 s: …`, in 80 columns, coloured where it helps."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        message, ours = record.getMessage(), record.name.startswith("omni_worker.")
        return _without_secrets(
            pretty(
                at,
                record.levelname,
                message,
                _fields(record),
                signal=record.msg.signal if isinstance(record.msg, Message) else None,
                ours=ours and record.name != "omni_worker.handler",
                trace=_trace(record),
                colour=self._colour,
            )
        )


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _trace(record: logging.LogRecord) -> str:
    """The traceback from the first line that is not ours, without what pydantic was given."""
    if not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
        return ""
    error, trace = record.exc_info[1], _theirs(record.exc_info[2])
    lines = "".join(traceback.format_exception(type(error), error, trace))
    return _shortened(_INPUT.sub("", lines).rstrip())


def _shortened(trace: str) -> str:
    """Without its middle, where it is long: an error may quote an event of a megabyte."""
    half = LONGEST_TRACE // 2
    return trace if len(trace) <= LONGEST_TRACE else f"{trace[:half]}\n…\n{trace[-half:]}"


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THEIRS):
        trace = trace.tb_next
    return trace or first


def _without_secrets(line: str) -> str:
    """Remove user and password from URLs in a line, also from other programs' messages."""
    return _USERINFO.sub(r"\1***@", line) if "@" in line else line

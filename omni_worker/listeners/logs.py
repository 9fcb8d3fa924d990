"""Logs: standard logging, one line for one thing that happened, for people or for machines.

Use ``set_up_logging``, or hang ``add_event`` and a formatter into a configuration of your own.
"""

from __future__ import annotations

import asyncio
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

from ..context import Context, current_context, event_fields
from ..handlers import Handler
from ..outcomes import DONE, Failed, Outcome, Reject, Rejected, Retry
from .pretty import pretty, visible_json

__all__ = ["JsonFormatter", "LogObserver", "PrettyFormatter", "add_event", "set_up_logging"]

log = logging.getLogger("omni_worker.events")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LONGEST_TRACE = 16_384  # characters
# What a traceback begins with that is no help: our frames, and a lifespan's way through these.
_NOT_THEIRS = (str(Path(__file__).parent.parent), contextlib.__file__)
_USERINFO = re.compile(r"(\w://)[^\s/@]+@")
_INPUT = re.compile(r", input_value=.*, input_type=\w+")  # pydantic repeats what it was given


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
    """One JSON object a line: time, level, logger, message, and the fields."""

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
                ours=ours and record.name != "omni_worker.handler",
                trace=_trace(record),
                colour=self._colour,
            )
        )


class LogObserver:
    """Logs each run's ending, with its duration; on level debug, so it is silent unless asked."""

    def begun(self, handler: Handler, context: Context) -> None:
        """Nothing to say yet."""

    def ended(self, handler: Handler, context: Context, outcome: Outcome, seconds: float) -> None:
        """One line for the run."""
        error = outcome.error if isinstance(outcome, Failed | Rejected) else None
        if isinstance(error, Reject | Retry | asyncio.CancelledError):
            error = None  # meant so, or cut off: where it was raised says nothing
        log.debug(
            "handled" if outcome is DONE else "failed",
            extra=run_fields(handler, context) | {"seconds": round(seconds, 6)},
            # Once is enough to read it; the retries' lines say the error in words.
            exc_info=error if context.attempt == 1 else None,
        )


def run_fields(handler: Handler, context: Context) -> dict[str, Any]:
    """What names one run, with what people call its handler and where the event came from."""
    return event_fields(context) | {"function": handler.short, "subject": context.subject}


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
    """User and password of a URL never get out, whoever wrote them into a message."""
    return _USERINFO.sub(r"\1***@", line) if "@" in line else line

"""Logs: one line for one thing that happened, for people or for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import IO, Any

from ..context import current_context

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"ERROR": "31", "CRITICAL": "31", "WARNING": "33", "INFO": "32", "DEBUG": "2"}


def set_up_logging(format: str | None, level: str, stream: IO[str] | None = None) -> None:
    """Send every log line to standard error in one of the two formats."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    if format is None:
        format = "pretty" if terminal else "json"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else PrettyFormatter(terminal))
    handler.addFilter(_add_event)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class PrettyFormatter(logging.Formatter):
    """`12:00:01 warning  retry  handler=r1 attempt=1 after=2.0`, in colour on a terminal."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = record.levelname.lower()
        if self._colour:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level:7}\x1b[0m"
        facts = " ".join(f"{key}={_word(value)}" for key, value in _fields(record).items())
        line = f"{at} {level:7} {record.getMessage()}" + (f"  {facts}" if facts else "")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _add_event(record: logging.LogRecord) -> bool:
    """Whatever is logged inside a handler says which event it was about."""
    context = current_context.get()
    if context is not None and not hasattr(record, "event"):
        record.event = context.event.id
        record.type = context.event.type
        record.handler = context.handler
        record.attempt = context.attempt
        record.correlation = context.correlation_id
        record.trace = context.trace_id
    return True


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _word(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text

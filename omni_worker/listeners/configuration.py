"""Configuration of the log: which handlers write it, where to, and what the app has set up itself.

What the app has configured is left alone, unless a format is asked for.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping
from typing import IO, Literal

from ..settings import Settings
from .logs import JsonFormatter, PrettyFormatter, add_event, enable_loggers

Format = Literal["auto", "none", "pretty", "json"]
Written = Literal["pretty", "json"]

FORMATS: tuple[Format, ...] = ("auto", "none", "pretty", "json")
OURS = "omni_worker"  # begins the names of our loggers


def configure(
    settings: Settings,
    *,
    format: Format | None = None,
    level: str | None = None,
    others: Collection[logging.Handler] = (),
) -> Written | None:
    """Set the log up as options and settings ask; an option wins. Called when the app is imported;
    ``others`` are handlers that were there before, so not the app's.

    Returns the format of our own lines; None if the app's own logging stays as it is. Then a level
    that was asked for is that of our loggers only.
    """
    enable_loggers()
    asked = format or settings.log_format
    if asked == "none" or (asked == "auto" and has_own_logging(others)):
        if level is not None or "log_level" in settings.model_fields_set:
            logging.getLogger(OURS).setLevel((level or settings.log_level).upper())
        return None
    written = chosen(asked)
    set_up_logging(written, level or settings.log_level)
    return written


def chosen(format: Format) -> Written:
    """Resolve ``auto``: pretty on a terminal, else JSON."""
    if format in ("pretty", "json"):
        return "pretty" if format == "pretty" else "json"
    return "pretty" if sys.stderr.isatty() else "json"


def set_up_logging(
    format: str | None = None, level: str = "info", stream: IO[str] | None = None
) -> None:
    """Send every log line to standard error (or ``stream``), as ``pretty`` or ``json``.

    Without a format: pretty on a terminal, else JSON. Coloured on a terminal, unless NO_COLOR is
    set. Under PM2, which shows standard error as errors, lines below a warning go to standard
    output. Replaces the handlers there were.
    """
    target = stream or sys.stderr
    handlers = [_handler(format, target)]
    if stream is None and information() is not target:
        less = _handler(format, information())
        less.addFilter(lambda record: record.levelno < logging.WARNING)
        handlers[0].setLevel(logging.WARNING)
        handlers.append(less)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)


def information(environment: Mapping[str, str] = os.environ) -> IO[str]:
    """Return the stream for lines below a warning; PM2 takes what is on stderr for errors."""
    return sys.stdout if "pm_id" in environment else sys.stderr


def has_own_logging(others: Collection[logging.Handler] = ()) -> bool:
    """Return True if the program has given handlers to the root logger, or to ours.

    What `logging.info(...)` sets up by itself at its first call is not a configuration.
    """
    root = logging.getLogger()
    if logging.getLogger(OURS).handlers:
        return True
    handlers = [one for one in root.handlers if one not in others]
    return bool(handlers) and not _is_made_by_logging_itself(root, handlers)


def _handler(format: str | None, stream: IO[str]) -> logging.Handler:
    is_terminal = stream.isatty()
    if format is None:
        format = "pretty" if is_terminal else "json"
    colour = is_terminal and not os.environ.get("NO_COLOR")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else PrettyFormatter(colour=colour))
    handler.addFilter(add_event)
    return handler


def _is_made_by_logging_itself(root: logging.Logger, handlers: list[logging.Handler]) -> bool:
    if len(handlers) != 1 or root.level != logging.WARNING:
        return False
    [handler] = handlers
    formatter = handler.formatter
    return (
        type(handler) is logging.StreamHandler
        and formatter is not None
        and formatter._fmt == logging.BASIC_FORMAT
    )

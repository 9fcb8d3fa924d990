"""Sentence: a log line, before anybody writes it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


@dataclass(frozen=True, slots=True)
class Sentence:
    """A log line: level, text, fields, and what it is about.

    ``error`` brings its traceback, without our frames unless ``whole``; ``traceback`` is one.
    """

    level: int
    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    about: str = ""
    look: str = ""  # the command that shows more
    error: BaseException | None = None
    traceback: str = ""
    whole: bool = False

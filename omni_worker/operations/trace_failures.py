"""Trace failures: how often an event failed in a handler, from its notes and dead letters."""

from __future__ import annotations

from collections.abc import Iterable

from ..letters.read import DeadLetter
from .trace import ConsumerWord


def failed_times(word: ConsumerWord, letters: Iterable[DeadLetter]) -> str:
    """Say how often the event failed in a handler: `4 times: ValueError`; empty if never."""
    times = failures_of(word, letters)
    error = f": {word.note.error}" if word.note and word.note.error else ""
    return f"{times} time{'s' if times != 1 else ''}{error}" if times else ""


def failures_of(word: ConsumerWord, letters: Iterable[DeadLetter]) -> int:
    """Count failures; the last one is in the dead letter, the others in the note of attempts."""
    own = [one for one in letters if (one.app, one.handler) == (word.app, word.handler)]
    return max([word.note.failures if word.note else 0, *(one.attempts for one in own)])

"""Batch sentence: one log line for a call that failed with several events."""

from __future__ import annotations

from ..failures import error_line, failure_line, place_of, was_meant
from ..signals import BatchFailed
from ..transports.returned import identity_of
from .sentence import INFO, WARNING, Sentence

_THEN = {
    "again": "its events come again",
    "halves": "runs in halves, to find the one to blame",
    "later": "tried later, no attempt spent",
    "letters": "its events become dead letters",
}


def batch_sentence(signal: BatchFailed) -> Sentence:
    """The log line of a failed call: how many events, why, and what becomes of them."""
    handler, error = signal.handler, signal.error
    fields = {
        "handler": handler.name,
        "function": handler.short,
        "events": len(signal.deliveries),
        "attempt": signal.attempt,
        "of": signal.of,
        "error": error_line(error),
        "place": place_of(error),
        "then": signal.then,
    }
    verb = "asks for a retry" if was_meant(error) and signal.then == "again" else "failed"
    attempt = f"attempt {signal.attempt} of {signal.of}"
    what = f"a batch of {len(signal.deliveries)} {verb}, {attempt}: {failure_line(error)}"
    about = " · ".join((_THEN[signal.then], handler.shown, _place(signal)))
    # Once is enough to read a traceback; a later one comes with the dead letter.
    trace = error if signal.attempt == 1 and signal.then == "again" else None
    level = INFO if was_meant(error) else WARNING
    return Sentence(level, f"[{handler.short}] {what}", fields, about, error=trace)


def _place(signal: BatchFailed) -> str:
    """Name where the events are stored: `CUSTOM #54 to #103`, not each number in between."""
    first, last = (identity_of(signal.deliveries[end]) for end in (0, -1))
    if first.stream == last.stream:
        return f"{first.stream} #{first.sequence} to #{last.sequence}"
    return f"{first.stream} #{first.sequence} to {last.stream} #{last.sequence}"

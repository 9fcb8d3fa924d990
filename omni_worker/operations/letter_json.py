"""Dead letters as JSON, for programs."""

from __future__ import annotations

from typing import Any

from ..letters.read import DeadLetter
from ..transports.timestamps import iso


def as_json(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    """Write a dead letter for programs; ``whole`` with its traceback."""
    origin = letter.origin
    return {
        "number": letter.sequence,
        "id": letter.id,
        "stream": letter.stream,
        "time": iso(letter.time),
        "state": letter.state,
        "stateTime": iso(letter.state_time),
        "type": letter.event_type,
        "eventId": letter.event_id,
        "subject": letter.subject,
        "origin": {"stream": origin.stream, "sequence": origin.sequence} if origin else None,
        "app": letter.app,
        "handler": letter.handler,
        "attempts": letter.attempts,
        "error": letter.error,
        "errorType": letter.error_type,
        "correlationId": letter.correlation_id,
        "traceId": letter.trace_id,
        "retryOf": letter.retry_of,
        "verified": None if letter.doubt is None else not letter.doubt,
        "cannotRetry": letter.why_not or None,
    } | ({"traceback": letter.traceback} if whole else {})

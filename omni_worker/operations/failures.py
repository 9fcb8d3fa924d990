"""Failures: attempts that failed and will be repeated, as workers note them, live."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..letters.read import stored_time
from ..notes.attempts import BUCKET, NoteState, read_note
from ..transports.base import StoredMessage, Transport
from ..transports.timestamps import iso
from .scan import Scan

STREAM = f"KV_{BUCKET}"
SUBJECTS = f"$KV.{BUCKET}.>"
_NOTE = b'{"state"'  # other notes share the bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed attempt; ``handler`` is empty where an older worker noted it."""

    time: datetime
    app: str
    handler: str
    stream: str
    sequence: int
    subject: str
    attempt: int
    error: str


async def failures(transport: Transport, *, since: datetime) -> AsyncGenerator[Failure, None]:
    """Yield failures noted since a time, then new ones as they happen; ends if no bucket exists.

    Of an event that failed several times before, only the last failure is known.
    """
    if await transport.operators.stream_info(STREAM) is None:
        return
    async with Scan(transport, STREAM, filters=(SUBJECTS,), since=since, follow=True) as messages:
        async for message in messages:
            failure = read_failure(message)
            if failure is not None:
                yield failure


def read_failure(message: StoredMessage) -> Failure | None:
    """Read a failure; None for any other note."""
    if not message.body.startswith(_NOTE):
        return None
    note = read_note(message.body)
    if note is None or note.state is not NoteState.FAILED:
        return None
    raw = json.loads(message.body)
    sequence = raw.get("sequence")
    return Failure(
        time=stored_time(message),
        app=_text(raw, "app"),
        handler=_text(raw, "handler"),
        stream=_text(raw, "stream"),
        sequence=sequence if isinstance(sequence, int) else 0,
        subject=_text(raw, "subject"),
        attempt=note.failures,
        error=note.error,
    )


def _text(raw: dict[str, Any], key: str) -> str:
    found = raw.get(key)
    return found if isinstance(found, str) else ""


def as_json(one: Failure) -> dict[str, Any]:
    """Write a failure for programs."""
    return {
        "time": iso(one.time),
        "app": one.app,
        "handler": one.handler,
        "stream": one.stream,
        "sequence": one.sequence,
        "subject": one.subject,
        "attempt": one.attempt,
        "error": one.error,
    }

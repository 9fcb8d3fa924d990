"""Letters: a dead letter as it is read back from its stream, ours or another program's. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from ..errors import InvalidEvent
from ..events import DEAD_LETTER
from ..subjects import check_token
from ..transports.base import StoredMessage
from ..wire import read_envelope
from .written import HANDLER_HEADER

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LetterState(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    RETRYING = "retrying"  # a retry began, and nobody wrote that it was sent
    RETRIED = "retried"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Where bytes too large for a letter are kept."""

    stream: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that was given up. What its writer did not say is None or empty."""

    id: str
    stream: str  # where the letter itself is, with its sequence there
    sequence: int
    time: datetime  # when it was stored
    event_id: str
    event_type: str
    error: str
    error_type: str = ""
    traceback: str = ""
    attempts: int = 0  # 0: the handler never ran, or nobody said
    handler: str | None = None
    app: str | None = None  # the program that gave it up
    subject: str | None = None
    origin: Pointer | None = None  # the message that failed
    correlation_id: str | None = None
    trace_id: str | None = None
    retry_of: str | None = None  # the letter this event had already been retried from
    state: LetterState = LetterState.OPEN
    state_time: datetime | None = None
    why_not: str = ""  # what keeps it from being retried


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are asked for; what is None does not matter."""

    type: str | None = None
    handlers: Collection[str] | None = None  # by the names their letters have
    error: str | None = None  # part of the error or of its type
    since: datetime | None = None
    until: datetime | None = None
    all: bool = False  # retried and discarded ones too


def read_letter(message: StoredMessage) -> DeadLetter:
    """A letter from its message. Whatever else is on its subject is a letter that says so."""
    when = stored_time(message)
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
        payload = envelope.payload
        if envelope.type != DEAD_LETTER or not isinstance(payload, Mapping):
            raise InvalidEvent("no dead letter")
    except InvalidEvent as error:
        return DeadLetter(
            id=f"{message.stream}:{message.sequence}", stream=message.stream,
            sequence=message.sequence, time=when, event_id="", event_type="",
            error="(this message cannot be read)", why_not=str(error),
        )  # fmt: skip
    source = _text(envelope.metadata.get("source"))
    retries = payload.get("retryCount")
    return DeadLetter(
        id=envelope.id,
        stream=message.stream,
        sequence=message.sequence,
        time=when,
        event_id=_text(payload.get("originalEventId")) or "",
        event_type=_text(payload.get("originalEventType")) or "",
        error=_text(payload.get("error")) or "",
        error_type=_text(payload.get("errorType")) or "",
        traceback=_text(payload.get("traceback")) or "",
        attempts=retries + 1 if isinstance(retries, int) else 0,
        handler=_text(payload.get("handler")),
        app=source,
        subject=_text(payload.get("subject")),
        origin=_pointer(payload),
        correlation_id=_text(envelope.metadata.get("correlationId")),
        trace_id=_text(envelope.metadata.get("traceId")),
        retry_of=_text(payload.get("retryOf")),
        why_not=_why_not(payload, source),
    )


def stored_time(message: StoredMessage) -> datetime:
    """When the server stored it, never rounded up: asked for from then on, it is there."""
    return EPOCH + timedelta(microseconds=message.stored_at // 1_000)


def matches_wanted(letter: DeadLetter, wanted: LetterFilter) -> bool:
    """Whether a letter is among those asked for; its state is not looked at."""
    if wanted.type is not None and letter.event_type != wanted.type:
        return False
    if wanted.handlers is not None and letter.handler not in wanted.handlers:
        return False
    if wanted.error is not None:
        text = f"{letter.error_type} {letter.error}".lower()
        if wanted.error.lower() not in text:
            return False
    return wanted.until is None or letter.time <= wanted.until


def original_body(payload: Mapping[str, Any]) -> bytes | Pointer | None:
    """The bytes of the event that failed, where they are, or None when nobody kept them."""
    if isinstance(text := payload.get("body"), str):
        return text.encode()
    if isinstance(encoded := payload.get("bodyBase64"), str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return None
    reference = payload.get("bodyRef")
    return _pointer(reference) if isinstance(reference, Mapping) else None


def original_headers(payload: Mapping[str, Any]) -> dict[str, str]:
    """The headers that go with the event again: neither the server's nor ours."""
    own = HANDLER_HEADER.rpartition("-")[0].lower()
    given = payload.get("headers")
    return {
        str(name): ", ".join(str(value) for value in values)
        for name, values in (given.items() if isinstance(given, Mapping) else ())
        if isinstance(values, list)
        and str(name).isascii()
        and not any(character in str(name) for character in ": \t\r\n")
        and not str(name).lower().startswith(("nats-", own))
        and all(_fits_a_header(str(value)) for value in values)
    }


def _why_not(payload: Mapping[str, Any], source: str | None) -> str:
    if not _text(payload.get("handler")) or original_body(payload) is None:
        writer = f"another program ({source})" if source else "another program"
        return f"{writer} wrote this letter, without the event's bytes or its handler"
    if not source or not _is_token(source):
        return "the letter names no app that could take it back"
    named = (payload.get("handler"), _text(payload.get("subject")))
    if not all(map(_fits_a_header, named)):
        return "the letter names no handler and subject that could stand in a header"
    return ""


def _is_token(text: str) -> bool:
    """Whether it addresses one app, and no other subject."""
    try:
        check_token(text, "")
    except InvalidEvent:
        return False
    return text.isprintable()


def _fits_a_header(value: object) -> bool:
    return isinstance(value, str) and not set(value) & set("\r\n\0")


def _pointer(raw: Mapping[str, Any]) -> Pointer | None:
    stream, sequence = raw.get("stream"), raw.get("sequence")
    if isinstance(stream, str) and isinstance(sequence, int):
        return Pointer(stream=stream, sequence=sequence)
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None

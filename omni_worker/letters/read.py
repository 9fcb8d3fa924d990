"""Reading: a dead letter from its stream, written by us or by another program. Pure."""

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
from ..topology import OWN_STREAM
from ..transports.base import StoredMessage
from ..wire import read_envelope
from .written import HANDLER_HEADER, STORED_AT_HEADER, STREAM_HEADER

# What says which event a letter is about, and what comes back from it.
FACTS_OF_ORIGIN = ("stream", "sequence", "storedAt", "handler", "subject", "headers", "retryOf")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LetterState(StrEnum):
    """State of a dead letter."""

    OPEN = "open"
    RETRYING = "retrying"  # a retry began; whether the event was sent is not recorded
    RETRIED = "retried"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Place of the bytes that are too large for a dead letter."""

    stream: str
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that was given up. Facts its writer left out are None or empty."""

    id: str
    stream: str  # the stream of the dead letter itself, with its sequence there
    sequence: int
    time: datetime  # when the dead letter was stored
    event_id: str
    event_type: str
    error: str
    error_type: str = ""
    traceback: str = ""
    attempts: int = 0  # 0: the handler never ran, or the number is not known
    handler: str | None = None
    app: str | None = None  # the program that gave the event up
    subject: str | None = None
    origin: Pointer | None = None  # the message that failed
    correlation_id: str | None = None
    trace_id: str | None = None
    retry_of: str | None = None  # the dead letter from which this event was retried
    state: LetterState = LetterState.OPEN
    state_time: datetime | None = None
    doubt: str | None = None  # why it is unverified; empty: it is verified; None: not looked at
    why_not: str = ""  # why it cannot be retried; empty if it can

    @property
    def line(self) -> str:
        """Class and text of the error, for people."""
        name = self.error_type.rpartition(".")[2]
        return f"{name}: {self.error}" if name and name != self.error else self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Conditions on dead letters; a field that is None accepts all."""

    type: str | None = None
    handlers: Collection[str] | None = None  # by the names in the dead letters
    error: str | None = None  # part of the error or of its type
    since: datetime | None = None
    until: datetime | None = None
    all: bool = False  # include retried and discarded dead letters


def read_letter(message: StoredMessage) -> DeadLetter:
    """Read a dead letter. An unreadable message becomes one whose ``why_not`` tells the reason."""
    when = stored_time(message)
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
        payload = envelope.payload
        if envelope.type != DEAD_LETTER or not isinstance(payload, Mapping):
            raise InvalidEvent("not a dead letter")
    except InvalidEvent as error:
        return DeadLetter(
            id=f"{message.stream}:{message.sequence}", stream=message.stream,
            sequence=message.sequence, time=when, event_id="", event_type="",
            error="(this message cannot be read)", why_not=str(error),
        )  # fmt: skip
    source = _text(envelope.metadata.get("source"))
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
        attempts=_attempts(payload),
        handler=_text(payload.get("handler")),
        app=source,
        subject=_text(payload.get("subject")),
        origin=_pointer(payload),
        correlation_id=_text(envelope.metadata.get("correlationId")),
        trace_id=_text(envelope.metadata.get("traceId")),
        retry_of=_text(payload.get("retryOf")),
        why_not=_why_not(payload, source),
    )


def _attempts(payload: Mapping[str, Any]) -> int:
    """Return how often the handler ran; letters of other programs only know their retries."""
    match payload:
        case {"attempts": int(attempts)}:
            return attempts
        case {"retryCount": int(retries)}:
            return retries + 1
    return 0


def stored_time(message: StoredMessage) -> datetime:
    """Return the stored time, never rounded up: a search from that time on finds the message."""
    return EPOCH + timedelta(microseconds=message.stored_at // 1_000)


def matches_wanted(letter: DeadLetter, wanted: LetterFilter) -> bool:
    """Return True if a dead letter meets the conditions; its state is not checked."""
    if wanted.type is not None and letter.event_type != wanted.type:
        return False
    if wanted.handlers is not None and letter.handler not in wanted.handlers:
        return False
    if wanted.error is not None:
        text = f"{letter.error_type} {letter.error}".lower()
        if wanted.error.lower() not in text:
            return False
    return wanted.until is None or letter.time <= wanted.until


def body_of_same_letter(
    message: StoredMessage, payload: Mapping[str, Any], *, source: str
) -> bytes | Pointer | None:
    """Return the event's bytes in a stored message that is the same letter as ``payload``.

    The same: about the same event and handler, and it would be sent back in the same way. Its body
    may be a pointer where ours is not. None: it is another message.
    """
    if message.subject != DEAD_LETTER:
        return None
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
    except InvalidEvent:
        return None
    stored = envelope.payload
    if envelope.type != DEAD_LETTER or not isinstance(stored, Mapping):
        return None
    if envelope.metadata.get("source") != source:
        return None
    if any(stored.get(key) != payload.get(key) for key in FACTS_OF_ORIGIN):
        return None
    return original_body(stored)


def original_body(payload: Mapping[str, Any]) -> bytes | Pointer | None:
    """Return the bytes of the failed event, a pointer to them, or None if they were not kept."""
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
    """Return the headers that are sent again with the event: neither the server's nor ours."""
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


def first_stream(payload: Mapping[str, Any]) -> str | None:
    """Return the stream in which an event was first stored, also after a second failure."""
    origin = _pointer(payload)
    if origin is None or origin.stream != OWN_STREAM.name:
        return None if origin is None else origin.stream
    first = _header(payload, STREAM_HEADER)
    return first if first is not None and _fits_a_header(first) else None


def first_stored_at(payload: Mapping[str, Any]) -> int | None:
    """Return when an event was first stored, also after a second failure, in epoch milliseconds."""
    origin = _pointer(payload)
    if origin is not None and origin.stream == OWN_STREAM.name:
        return read_stored_at(_header(payload, STORED_AT_HEADER))
    stored_at = payload.get("storedAt")
    return stored_at if isinstance(stored_at, int) else None


def read_stored_at(text: str | None) -> int | None:
    """Return the time in a header, in epoch milliseconds; None if there is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None


def _header(payload: Mapping[str, Any], name: str) -> str | None:
    headers = payload.get("headers")
    values = headers.get(name) if isinstance(headers, Mapping) else None
    return _text(values[0]) if isinstance(values, list) and values else None


def _why_not(payload: Mapping[str, Any], source: str | None) -> str:
    if not _text(payload.get("handler")) or original_body(payload) is None:
        writer = f"another program ({source})" if source else "another program"
        return f"{writer} wrote this dead letter, without the event's bytes or its handler"
    if not source or not _is_token(source):
        return "the dead letter names no app that could take it back"
    named = (payload.get("handler"), _text(payload.get("subject")))
    if not all(map(_fits_a_header, named)):
        return "the dead letter names no handler and subject that a header can hold"
    return ""


def _is_token(text: str) -> bool:
    """Return True if ``text`` names one app in a subject, and cannot match another subject."""
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

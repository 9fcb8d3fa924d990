"""Writing: the dead letter of an event that will not be tried again. Pure.

Other programs read the first five payload keys; the rest serves to restore the original.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidEvent
from ..failures import failure_line, place_of, traceback_text, was_meant, whole_text
from ..schemas import core_type_of
from ..subjects import parse_subject
from ..topology import OWN_STREAM
from ..transports.base import StoredMessage
from ..wire import Envelope, read_envelope

# UUIDv5 of stream, sequence, stored timestamp and handler: a repeat has the same id.
_NAMESPACE = uuid.UUID("6f1f3a6e-58c5-5a64-9c0e-0d1b6f0a7c11")
MAX_HEADERS = 16_384  # bytes of the original's headers; more are cut
MAX_NAME = 1_024  # characters of an id or a type; the original has the full text

# Headers of an event that is sent back to the handler it failed in: the handler, the event's first
# subject, stream and stored time (epoch milliseconds), and the dead letter it was sent back from.
HANDLER_HEADER = "Omni-Worker-Handler"
SUBJECT_HEADER = "Omni-Worker-Subject"
STREAM_HEADER = "Omni-Worker-Stream"
STORED_AT_HEADER = "Omni-Worker-Stored-At"
RETRY_OF_HEADER = "Omni-Worker-Retry-Of"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Reason of a failure, in a form that outlives the exception."""

    error: str
    error_type: str
    traceback: str
    attempts: int  # runs of the handler, 0 when it never ran
    # What a note of another process does not tell:
    line: str = ""  # class, text, place and cause, for people
    place: str = ""  # in the user's code
    was_meant: bool = False  # the handler asked for it
    exception: BaseException | None = field(default=None, repr=False, compare=False)

    @staticmethod
    def of(error: BaseException, attempts: int) -> Failure:
        """Return the facts to keep of an exception."""
        return Failure(
            error=clean(whole_text(error)),
            error_type=f"{type(error).__module__}.{type(error).__qualname__}",
            traceback=clean(traceback_text(error)) if error.__traceback__ else "",
            attempts=attempts,
            line=clean(failure_line(error)),
            place=clean(place_of(error)),
            was_meant=was_meant(error),
            exception=error,
        )


def letter_id(original: StoredMessage, handler: str) -> str:
    """Return the id of a dead letter; equal in every process that gives up this event."""
    return str(
        uuid.uuid5(
            _NAMESPACE,
            f"{original.stream}\n{original.sequence}\n{original.stored_at}\n{handler}",
        )
    )


def compose(
    original: StoredMessage, failure: Failure, *, handler: str, consumer: str, now: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return payload (without a body yet) and metadata; ``now`` in epoch milliseconds."""
    envelope = _envelope(original)
    id = _brief(envelope.id) if envelope else None
    type = _brief(envelope.type) if envelope else None
    payload = {
        "originalEventId": id or f"{original.stream}:{original.sequence}",
        "originalEventType": type or _type_of(original.subject),
        "error": failure.error,
        "retryCount": max(0, failure.attempts - 1),
        "timestamp": now,
        "subject": clean(original.subject),
        "stream": original.stream,
        "sequence": original.sequence,
        "storedAt": original.stored_at // 1_000_000,
        "consumer": consumer,
        "handler": handler,
        "errorType": failure.error_type,
        "traceback": failure.traceback,
        "attempts": failure.attempts,  # retryCount is 0 for one run and for none
        "headers": kept_headers(original.headers),
        "retryOf": _retry_of(original),
    }
    return payload, _metadata(envelope, original)


def letter_digest(payload: Mapping[str, Any], source: object) -> str:
    """Return what a note keeps of a dead letter: another one with its id has another digest."""
    text = json.dumps([source, payload], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def with_body(payload: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Add the original bytes to a payload: as text if they are text, else as base64."""
    try:
        return {**payload, "body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {**payload, "bodyBase64": base64.b64encode(body).decode("ascii")}


def with_reference(payload: Mapping[str, Any], stream: str, sequence: int) -> dict[str, Any]:
    """Add a pointer to bytes that are too large for one message."""
    return {**payload, "bodyRef": {"stream": stream, "sequence": sequence}}


def kept_headers(headers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the headers of an event that its dead letter keeps."""
    kept: dict[str, list[str]] = {}
    room = MAX_HEADERS
    for name, values in headers.items():
        room -= len(name) + sum(len(value) for value in values)
        if room < 0:
            break
        kept[clean(name)] = [clean(value) for value in values]
    return kept


def clean(text: str) -> str:
    """Return text any JSON parser accepts: invalid bytes of a subject or error become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _envelope(original: StoredMessage) -> Envelope | None:
    try:
        return read_envelope(original.body, stored_at=original.stored_at // 1_000_000)
    except InvalidEvent:
        return None


def _retry_of(original: StoredMessage) -> str | None:
    """Return the letter an event was sent back from; an ordinary event has no such header."""
    if original.stream != OWN_STREAM.name:
        return None
    return _brief(next(iter(original.headers.get(RETRY_OF_HEADER, ())), None))


def _type_of(subject: str) -> str:
    try:
        return clean(core_type_of(subject) or parse_subject(subject).type)
    except InvalidEvent:
        return clean(subject)


def _metadata(envelope: Envelope | None, original: StoredMessage) -> dict[str, Any]:
    """Return correlation, trace, channel and instance of the original: a search finds both."""
    written = envelope.metadata if envelope else {}
    kept = {
        key: _brief(written.get(key))
        for key in (
            "correlationId",
            "traceId",
            "personId",
            "platformIdentityId",
            "instanceId",
            "channelType",
        )
    }
    if envelope is not None:
        kept["correlationId"] = kept["correlationId"] or _brief(envelope.id)
        kept["traceId"] = kept["traceId"] or _brief(envelope.id)
    try:
        address = parse_subject(original.subject, envelope.type if envelope else None)
    except InvalidEvent:
        return kept
    if address.channel is not None:
        kept["channelType"] = kept["channelType"] or clean(address.channel)
        kept["instanceId"] = kept["instanceId"] or clean(address.instance or "")
    return kept


def _brief(text: str | None) -> str | None:
    """Return None for text too long for an id or a name: a dead letter must fit in a message."""
    return text if text is not None and len(text) <= MAX_NAME else None

"""Writing: the dead letter of an event that will not be tried again. Pure.

Other programs read the first five payload keys; the rest serves to restore the original.
"""

from __future__ import annotations

import base64
import hashlib
import json
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from ..errors import InvalidEvent
from ..masking import without_secrets
from ..schemas import core_type_of
from ..subjects import parse_subject
from ..topology import OWN_STREAM
from ..transports.base import StoredMessage
from ..validation import explain
from ..wire import Envelope, read_envelope

# UUIDv5 of stream, sequence, stored timestamp and handler: a repeat has the same id.
_NAMESPACE = uuid.UUID("6f1f3a6e-58c5-5a64-9c0e-0d1b6f0a7c11")
MAX_TRACEBACK = 8_192  # characters
MAX_ERROR = 2_048  # characters
MAX_GROUP = 1_000  # exceptions of a group, in all, whose traceback is formatted
MAX_HEADERS = 16_384  # bytes of the original's headers; more are cut
MAX_NAME = 1_024  # characters of an id or a type; the original has the full text

# Headers of an event that is sent back to the handler it failed in: the handler, the event's first
# subject and stream, and the dead letter it was sent back from.
HANDLER_HEADER = "Omni-Worker-Handler"
SUBJECT_HEADER = "Omni-Worker-Subject"
STREAM_HEADER = "Omni-Worker-Stream"
RETRY_OF_HEADER = "Omni-Worker-Retry-Of"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Reason of a failure, in a form that outlives the exception."""

    error: str
    error_type: str
    traceback: str
    attempts: int  # runs of the handler, 0 when it never ran

    @staticmethod
    def of(error: BaseException, attempts: int) -> Failure:
        """Return the facts to keep of an exception."""
        trace = traceback_text(error, error.__traceback__) if error.__traceback__ else ""
        return Failure(
            error=clean(error_text(error) or type(error).__name__),
            error_type=f"{type(error).__module__}.{type(error).__qualname__}",
            traceback=clean(without_secrets(trace[-2 * MAX_TRACEBACK :])[-MAX_TRACEBACK:]),
            attempts=attempts,
        )


def error_text(error: BaseException) -> str:
    """Return the text of an exception, bounded and without secrets, whatever its class does."""
    text = safe_str(error)
    return without_secrets(text[: 2 * MAX_ERROR])[:MAX_ERROR]


def safe_str(value: object) -> str:
    """Return the text of anything, also if its ``__str__`` raises."""
    try:
        if isinstance(value, ValidationError):
            return explain(value)  # pydantic's own text repeats the payload
        return str.__str__(str(value))  # no subclass, with methods of its own
    except BaseException as another:  # SystemExit as well: a text ends no worker
        return f"its text cannot be read: {type(another).__name__}"


def traceback_text(error: BaseException, trace: TracebackType | None) -> str:
    """Return the traceback of an exception, or its frames alone if it cannot be formatted."""
    why = f"more than {MAX_GROUP} exceptions in one"
    if not _is_large(error):
        try:
            return "".join(traceback.format_exception(type(error), error, trace))
        except BaseException as another:  # groups nested too deep, a SyntaxError without its parts
            why = f"{type(another).__name__} while it was formatted"
    frames = "".join(traceback.format_tb(trace))
    shown = f"Traceback (most recent call last):\n{frames}{error_line(error)}"
    return f"{shown}\n(shown in part: {why})\n"


def _is_large(error: BaseException) -> bool:
    """Tell whether a group takes long to format: Python looks at all of it to show fifteen."""
    left, seen = [error], 0
    while left and seen <= MAX_GROUP:
        one = left.pop()
        seen += 1
        if isinstance(one, BaseExceptionGroup):
            left.extend(one.exceptions[:MAX_GROUP])
    return seen > MAX_GROUP


def error_line(error: BaseException) -> str:
    """Name an exception and its text in one line: ``ValueError: the phone is off``."""
    text = error_text(error)
    return f"{type(error).__name__}: {text}"[:MAX_ERROR] if text else type(error).__name__


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

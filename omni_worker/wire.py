"""Wire: events to bytes and back, exactly as the other programs on these streams do it.

Writing is strict, reading is lenient where the format says so. No I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import (
    PydanticSerializationError,
    SchemaValidator,
    from_json,
    to_json,
    to_jsonable_python,
)

from .errors import InvalidEvent, InvalidPayload
from .events import Event, Metadata
from .payloads import Payload
from .validation import explain, lacking, quiet

TRACEPARENT = "traceparent"
REPLAYED = "replay"  # the source of an event that was published again
ENVELOPE = frozenset({"id", "type", "payload", "timestamp", "metadata"})
EXPECTED = "an envelope, a JSON object with id, type and payload"
# Bytes. For each key a payload lacks, pydantic copies what it has of it: of a megabyte that takes
# 10 ms. So a large body's keys are looked at before it is validated.
LARGE = 256 * 1024
DEEPEST = 199  # levels of a payload: no parser of a worker reads more
LONGEST = 4_300  # digits of an integer, likewise
_BOM = b"\xef\xbb\xbf"
_LONE = re.compile(  # half of a surrogate pair: a high one without a low one, or the reverse
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_N = ord("N")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?")


class Unreadable(InvalidEvent):
    """The bytes are no event envelope; no handler was run."""


class SchemaMismatch(InvalidPayload):
    """The envelope is fine, the payload does not fit the handler's model."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A readable envelope whose payload is not checked yet."""

    id: str
    type: str
    payload: Any
    timestamp: int  # epoch milliseconds
    metadata: Mapping[str, Any]
    extra: Mapping[str, Any]
    body: bytes  # the whole message, as valid JSON


def encode_payload(type: str, payload: Any) -> bytes:
    """A payload as JSON, for ``encode_event``, which refuses NaN and infinity in it.

    Raises InvalidPayload for what JSON cannot say.
    """
    try:
        plain = payload if payload.__class__ is dict else plain_payload(payload)
        content = to_json(plain, inf_nan_mode="constants")
        if b"null" in content:
            _look_for_nan(type, plain)
    except (PydanticSerializationError, UnicodeEncodeError, ValueError) as error:
        raise InvalidPayload(f"{type}: the payload is not JSON: {_reason(error)}") from None
    return content


def encode_event(
    *,
    id: str,
    type: str,
    payload: Any = None,
    content: bytes | None = None,
    timestamp: int,
    metadata: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """The body of an event; metadata that is None is left out.

    ``content`` is its payload as JSON, where that is known already. Raises InvalidPayload when a
    part is no JSON, and for NaN, infinity and what no parser reads (too many levels, too long an
    integer) anywhere.
    """
    if None in metadata.values():
        metadata = {key: value for key, value in metadata.items() if value is not None}
    rest: dict[str, Any] = {"timestamp": timestamp, "metadata": metadata}
    if extra:
        rest.update({key: value for key, value in extra.items() if key not in ENVELOPE})
    body = _in_one_pass(id, type, payload, rest) if content is None else None
    if body is None:
        content = encode_payload(type, payload) if content is None else content
        body = _around(id, type, content, rest)
    if may_hold_nan(body):
        _refuse_nan(type, body)
    if len(body) > 2 * DEEPEST and _may_be_unreadable(body):
        _refuse_unreadable(type, body)
    return body


def _in_one_pass(id: str, type: str, payload: Any, rest: Mapping[str, Any]) -> bytes | None:
    """The usual body; None if a part is no JSON: which one is found by writing them apart."""
    try:
        plain = payload if payload.__class__ is dict else plain_payload(payload)
        whole = {"id": id, "type": type, "payload": plain, **rest}
        body = to_json(whole, inf_nan_mode="constants")
        if b"null" in body:
            _look_for_nan(type, whole)
    except (PydanticSerializationError, UnicodeEncodeError, ValueError):
        return None
    return body


def _around(id: str, type: str, content: bytes, rest: Mapping[str, Any]) -> bytes:
    """The body around a payload that is JSON already: an event's id may be derived from it."""
    try:
        end = to_json(rest, inf_nan_mode="constants")
        if b"null" in end:
            _look_for_nan(type, rest)
    except (PydanticSerializationError, UnicodeEncodeError, ValueError) as error:
        raise InvalidPayload(f"{type}: the envelope is not JSON: {_reason(error)}") from None
    return b'{"id":%b,"type":%b,"payload":%b,%b' % (to_json(id), to_json(type), content, end[1:])


def plain_payload(payload: Any) -> Any:
    """Payload as it goes on the wire: a core model without its None fields, else as given."""
    if isinstance(payload, Payload):
        # A field set to another type since it was validated is refused: other programs read it.
        return payload.model_dump(mode="json", by_alias=True, exclude_none=True, warnings="error")
    if isinstance(payload, BaseModel):
        # Silent, since pydantic's warning repeats the value, and chats are private.
        return payload.model_dump(mode="json", by_alias=True, warnings=False)
    return payload


def read_fast(validator: SchemaValidator, body: bytes) -> Event[Any] | None:
    """Read the usual case in one pass, by a ``quiet`` validator; None if it needs a second look."""
    # JSON has no NaN, pydantic's parser takes it, and other programs end on it.
    if len(body) > LARGE or (_N in body and body.rfind(b"NaN") >= 0):
        return None
    if body.rfind(b"Infinity") >= 0:  # as may_hold_nan, without the call: this is for every event
        return None
    try:
        event: Event[Any] | None = validator.validate_json(body)
    except ValidationError:
        return None
    return event


def read_envelope(body: bytes, *, stored_at: int) -> Envelope:
    """Read an envelope as leniently as the format asks.

    ``stored_at`` (epoch milliseconds) replaces an unreadable timestamp. Raises Unreadable
    with a reason that does not repeat the body. A byte-order mark is skipped, half of a surrogate
    pair read as U+FFFD; ``body`` of the envelope is then the repaired one.
    """
    try:
        raw = from_json(body, allow_inf_nan=False)
    except ValueError:
        body = _repaired(body)
        try:
            raw = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise Unreadable(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise Unreadable(f"no event: expected {EXPECTED}, got {_kind(raw)}")
    if lacking := [key for key in ("id", "type", "payload") if key not in raw]:
        raise Unreadable(f"no event: expected {EXPECTED}; {', '.join(lacking)} missing")
    for key in ("id", "type"):
        if not isinstance(raw[key], str) or not raw[key]:
            raise Unreadable(f"{key}: expected a non-empty string, got {_kind(raw[key])}")
    metadata = raw.get("metadata")
    metadata = {} if metadata is None else metadata
    try:
        Metadata.model_validate(metadata)
    except ValidationError as error:
        raise Unreadable(f"metadata: {explain(error)}") from None
    return Envelope(
        id=raw["id"],
        type=raw["type"],
        payload=raw["payload"],
        timestamp=read_timestamp(raw.get("timestamp"), stored_at),
        metadata=metadata,
        extra={key: value for key, value in raw.items() if key not in ENVELOPE},
        body=body,
    )


def _repaired(body: bytes) -> bytes:
    """Repair what other programs write and the parser does not take.

    In a large body only the byte-order mark: the search through a hostile megabyte takes 0.1 s.
    """
    body = body.removeprefix(_BOM)
    if len(body) > LARGE or b"\0" in body:  # no JSON has a bare zero byte
        return body
    if not _LONE.search(body):
        return body
    # An escaped backslash is put aside: the u after it begins no escape.
    return _LONE.sub(rb"\\ufffd", body.replace(rb"\\", b"\0")).replace(b"\0", rb"\\")


def is_replay(metadata: Mapping[str, Any], payload: Any) -> bool:
    """Tell whether another program published a past event again, with its own words for it."""
    is_marked = isinstance(payload, Mapping) and "_replay" in payload
    return is_marked and metadata.get("source") == REPLAYED


def was_replayed(metadata: Mapping[str, Any], body: bytes) -> bool:
    """Return ``is_replay`` of an event that was read, by its body: a model may drop the mark."""
    if metadata.get("source") != REPLAYED:
        return False
    return is_replay(metadata, read_envelope(body, stored_at=0).payload)


def is_history(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a channel sent the message again, from its history."""
    return metadata.get("ingestMode") == "history-sync"


def to_event(model: type[Event[Any]], envelope: Envelope) -> Event[Any]:
    """Check the payload. Raises SchemaMismatch."""
    if model is Event[Any]:  # nothing to check: a hostile megabyte is not gone through again
        try:
            return model.model_validate(_whole(envelope))
        except ValidationError as error:
            raise SchemaMismatch(f"{envelope.type}: {explain(error)}") from None
    if len(envelope.body) > LARGE:
        _check_keys(model, envelope)
    # As JSON again: a strict model takes a time as text there, and not in Python.
    event: Event[Any] | None = quiet(model).validate_json(_mended(envelope))
    if event is None:
        raise SchemaMismatch(f"{envelope.type}: {_why_not(model, envelope)}")
    return event


def _check_keys(model: type[Event[Any]], envelope: Envelope) -> None:
    payload = model.model_fields["payload"]
    if model.__pydantic_generic_metadata__["origin"] is not Event or payload.metadata:
        return  # code around the payload sees it first
    if missing := lacking(payload.annotation, envelope.payload):
        shown = [f"payload.{name}: Field required" for name in missing[:5]]
        raise SchemaMismatch(f"{envelope.type}: {'; '.join(shown)}")


def _why_not(model: type[Event[Any]], envelope: Envelope) -> str:
    """Reasons why a model refuses an event."""
    try:
        if len(envelope.body) > LARGE:
            # In Python an error refers to what it is about, and costs no copy of it. Not strictly
            # at first: what a strict model takes as JSON would be named as well.
            model.model_validate(_whole(envelope), strict=False)
            model.model_validate(_whole(envelope))
        else:
            model.model_validate_json(_mended(envelope))
    except BaseException as error:  # of a validator as well, SystemExit too
        return explain(error if isinstance(error, Exception) else RuntimeError(repr(error)))
    return "it does not fit its model"


def _whole(envelope: Envelope) -> dict[str, Any]:
    return {
        **envelope.extra,
        "id": envelope.id,
        "type": envelope.type,
        "payload": envelope.payload,
        "timestamp": envelope.timestamp,
        "metadata": envelope.metadata,
    }


def _mended(envelope: Envelope) -> bytes:
    """Add a readable timestamp and metadata to the body: of a repeated key the last one counts."""
    end = to_json({"timestamp": envelope.timestamp, "metadata": envelope.metadata})
    return b"%b,%b" % (envelope.body.rstrip()[:-1], end[1:])


def read_timestamp(value: object, stored_at: int) -> int:
    """Epoch milliseconds from any form of timestamp that other programs write."""
    match value:
        case bool():
            return stored_at
        case int():
            return value
        case float() if math.isfinite(value):  # 1e999 is infinity
            return round(value)
        case str():
            try:
                when = datetime.fromisoformat(value)
                # Without a zone it is UTC, wherever this process runs.
                when = when if when.tzinfo else when.replace(tzinfo=UTC)
                return round(when.timestamp() * 1000)
            except (ValueError, OverflowError):
                return stored_at
    return stored_at


def read_traceparent(headers: Mapping[str, Any]) -> str | None:
    """W3C trace context of a message, None if it is invalid: it is passed on as it came."""
    for name, values in headers.items():
        if name.lower() == TRACEPARENT and values and _TRACEPARENT.fullmatch(values[0]):
            return str(values[0])
    return None


def may_hold_nan(body: bytes) -> bool:
    """Look cheaply for NaN and Infinity. A text may contain these words: the parser decides."""
    # One byte first: that search is twenty times as fast, and often the end of it. The others from
    # behind: so CPython looks for the first byte, a rare capital, and is twice as fast.
    return (_N in body and body.rfind(b"NaN") >= 0) or body.rfind(b"Infinity") >= 0


def _look_for_nan(type: str, value: Any) -> None:
    """Refuse NaN in nested models: ``to_json`` writes it as null, whatever it is asked for."""
    written = to_json(to_jsonable_python(value), inf_nan_mode="constants")
    if may_hold_nan(written):
        _refuse_nan(type, written)


def _refuse_nan(type: str, body: bytes) -> None:
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError:
        raise InvalidPayload(f"{type}: it holds NaN or infinity, JSON has neither") from None


def _may_be_unreadable(body: bytes) -> bool:
    """Look cheaply for deep nesting and long integers; the parser decides."""
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        return True
    # An integer too long has a digit at a multiple of LONGEST, and 32 more on one side of it.
    return len(body) > LONGEST and any(
        body[at : at + 32].isdigit() or body[at - 32 : at].isdigit()
        for at in range(LONGEST, len(body), LONGEST)
    )


def _refuse_unreadable(type: str, body: bytes) -> None:
    try:
        from_json(body)
    except ValueError as error:
        deep = "recursion" in str(error)
        what = (
            f"it is nested more than {DEEPEST} levels deep"
            if deep
            else f"it holds a number of more than {LONGEST} digits"
        )
        raise InvalidPayload(f"{type}: {what}; no worker can read that") from None


def _reason(error: Exception) -> str:
    """Reason why it is not JSON, without the values that pydantic's text repeats."""
    if "PydanticSerializationUnexpectedValue" in str(error):
        return "a field holds another type than its model says"
    return str(error)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    if value == "":
        return "an empty string"
    return names.get(type(value), "a number")

"""Drafts: events to be published, as ``publish`` and ``publish_many`` take them; their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from ..errors import ConfigError, InvalidEvent
from ..events import TEXT_KEYS, Event
from ..topology import DUPLICATE_WINDOW

MAX_ID = 256  # characters; it travels in a header
_ONLY_TEXT = {str}


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long to make
class Draft:
    """An event to be published, as ``publish`` takes it, for ``publish_many``."""

    type: str
    payload: Any = None
    channel: str | None = None
    instance: str | None = None
    id: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    person_id: str | None = None
    platform_identity_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # further keys, as on the wire
    traceparent: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # further keys of the envelope
    # The payload as JSON, where it had to be known before: see Context.
    content: bytes | None = field(default=None, init=False, repr=False, compare=False)
    # Of an event that is published later: epoch milliseconds when it is due.
    timestamp: int | None = field(default=None, init=False, repr=False, compare=False)
    # Trace context it is sent with, of the event that caused it or of its span.
    trace_headers: Mapping[str, str] | None = field(
        default=None, init=False, repr=False, compare=False
    )


class EventFields(TypedDict, total=False):
    """Fields that ``publish`` takes in addition to type and payload.

    ``metadata`` holds further keys, as on the wire; the named ones win.
    """

    channel: str | None
    instance: str | None
    id: str | None
    correlation_id: str | None
    trace_id: str | None
    person_id: str | None
    platform_identity_id: str | None
    metadata: Mapping[str, Any] | None


def draft_of(type: str, payload: Any, fields: EventFields) -> Draft:
    """The arguments of a ``publish`` as one value. Raises TypeError for one it does not take."""
    try:
        draft = Draft(type=type, payload=payload, **fields)  # type: ignore[arg-type]
    except TypeError:
        known = EventFields.__annotations__
        unknown = ", ".join(f"{name}=" for name in fields if name not in known)
        takes = ", ".join(f"{name}=" for name in known)
        raise TypeError(f"publish() takes no {unknown}; it takes {takes} and timeout=") from None
    if not draft.metadata:  # None as well
        draft.metadata = {}
    return draft


def complete_metadata(draft: Draft, id: str, source: str) -> dict[str, Any]:
    """The metadata of a draft, by its names on the wire. Raises InvalidEvent."""
    if draft.metadata or draft.person_id is not None or draft.platform_identity_id is not None:
        return complete(_given_metadata(draft), draft, id, source)
    # The usual draft, in one step; the address and the id are checked already.
    correlation, trace = draft.correlation_id or id, draft.trace_id or id
    metadata = {"correlationId": correlation, "traceId": trace, "source": source}
    if draft.channel is not None and draft.instance is not None:
        metadata["instanceId"] = draft.instance
        metadata["channelType"] = draft.channel
    if correlation.__class__ is not str or trace.__class__ is not str:
        check_metadata(draft.type, metadata)
    return metadata


def complete(
    metadata: dict[str, Any], event: Draft | Event[Any], id: str, source: str
) -> dict[str, Any]:
    """Add what every event has to the metadata given; returns it. Raises InvalidEvent."""
    metadata["correlationId"] = metadata.get("correlationId") or id
    metadata["traceId"] = metadata.get("traceId") or id
    metadata["source"] = metadata.get("source") or source
    channel, instance = event.channel, event.instance
    if instance is not None:
        metadata["instanceId"] = instance
    if channel is not None:
        metadata["channelType"] = channel
    if set(map(type, metadata.values())) != _ONLY_TEXT:
        check_metadata(event.type, metadata)
    return metadata


def _given_metadata(draft: Draft) -> dict[str, Any]:
    given = draft.metadata
    try:
        metadata: dict[str, Any] = {**given} if given else {}
    except TypeError:
        kind = type(given).__name__
        raise InvalidEvent(f"{draft.type}: metadata=: expected a mapping, got {kind}") from None
    if draft.correlation_id:
        metadata["correlationId"] = draft.correlation_id
    if draft.trace_id:
        metadata["traceId"] = draft.trace_id
    if draft.person_id is not None:
        metadata["personId"] = draft.person_id
    if draft.platform_identity_id is not None:
        metadata["platformIdentityId"] = draft.platform_identity_id
    return metadata


def check_metadata(event_type: str, metadata: Mapping[str, Any]) -> None:
    """Refuse metadata that no reader could read."""
    for key, value in metadata.items():
        if value is not None and not isinstance(value, str) and key in TEXT_KEYS:
            # Every reader, we as well, would refuse the whole event for it.
            kind = type(value).__name__
            raise InvalidEvent(f"{event_type}: metadata {key}: expected a string, got {kind}")


def check_timeout(timeout: float) -> None:
    """Refuse a publish timeout within which the server could forget the id."""
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < DUPLICATE_WINDOW:
        raise ConfigError(
            f"timeout={timeout!r}: expected seconds below {DUPLICATE_WINDOW}; after that the"
            " server may have forgotten the id, and a retry would store the event twice"
        )


def check_id(id: str) -> str:
    """Refuse an event id that cannot travel in a header."""
    if not isinstance(id, str):  # a UUID's text would look right in the words below
        raise InvalidEvent(f"event id of type {type(id).__name__}: expected a string")
    if not id or len(id) > MAX_ID or not id.isprintable():
        raise InvalidEvent(f"event id {id[:40]!r}: expected 1 to {MAX_ID} printable characters")
    if id != id.strip():
        raise InvalidEvent(f"event id {id!r}: the server would strip the spaces around it")
    return id

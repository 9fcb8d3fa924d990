"""Stream status: what a stream is to us, and how old its messages are. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from ..topology import OWN_STREAM, holds_events
from ..transports.infos import StreamInfo
from ..transports.timestamps import iso

OWN_BUCKETS = "KV_omni-worker-"


class StreamKind(StrEnum):
    """Kind of a stream."""

    EVENTS = "events"
    COPY = "copy"  # of events of another stream
    OWN = "own"  # created by omni-worker for itself
    OTHER = "other"


def kind_of(info: StreamInfo) -> StreamKind:
    """Tell the kind of a stream."""
    if info.name == OWN_STREAM.name or info.name.startswith(OWN_BUCKETS):
        return StreamKind.OWN
    if info.config.sources:
        return StreamKind.COPY
    return StreamKind.EVENTS if holds_events(info.config) else StreamKind.OTHER


def oldest_time(info: StreamInfo) -> datetime | None:
    """Return when the first message was stored, None if there is none."""
    return _time(info, "first_ts")


def newest_time(info: StreamInfo) -> datetime | None:
    """Return when the last message was stored, None if there is none."""
    return _time(info, "last_ts")


def as_json(info: StreamInfo) -> dict[str, Any]:
    """Write a stream for programs."""
    return {
        "name": info.name,
        "kind": kind_of(info),
        "subjects": list(info.config.subjects),
        "messages": info.state.messages,
        "bytes": info.state.bytes,
        "firstSequence": info.state.first_sequence,
        "lastSequence": info.state.last_sequence,
        "oldest": iso(oldest_time(info)),
        "newest": iso(newest_time(info)),
        "maxAgeSeconds": info.config.max_age,
        "retention": info.config.retention,
        "consumers": info.state.consumers,
    }


def _time(info: StreamInfo, key: str) -> datetime | None:
    text = (info.raw.get("state") or {}).get(key)
    if not info.state.messages or not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None

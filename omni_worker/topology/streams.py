"""Streams: those we need, compared with the existing ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..subjects import covers, fold, intersection
from ..transports.infos import StreamConfig, read_stream_config
from .stored import OWN_SUBJECTS

Config = Mapping[str, Any]

DAY = 86_400  # seconds
NANO = 1_000_000_000
DUPLICATE_WINDOW = 120  # seconds; within it an event id is stored once
NOTES_BUCKET = "omni-worker-notes"
TAG = "omni-worker."  # our keys in a consumer's or stream's metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """A stream we need; ``sources`` names (origin stream, filters) if it is a copy."""

    name: str
    subjects: tuple[str, ...] = ()
    max_age: float  # seconds
    description: str = ""
    source: str | None = None
    source_filters: tuple[str, ...] = ()
    source_start: datetime | None = None


STREAMS = (
    StreamSpec(
        name="MESSAGE",
        subjects=("message.>",),
        max_age=30 * DAY,
        description="All message lifecycle events (received, sent, delivered, read, failed)",
    ),
    StreamSpec(
        name="INSTANCE",
        subjects=("instance.>",),
        max_age=7 * DAY,
        description="Instance lifecycle events (connected, disconnected, qr_code)",
    ),
    StreamSpec(
        name="IDENTITY",
        subjects=("identity.>",),
        max_age=90 * DAY,
        description="Identity management events (created, linked, merged, unlinked)",
    ),
    StreamSpec(
        name="MEDIA",
        subjects=("media.>",),
        max_age=7 * DAY,
        description="Media processing events (received, processed)",
    ),
    StreamSpec(
        name="ACCESS",
        subjects=("access.>",),
        max_age=30 * DAY,
        description="Access control events (allowed, denied)",
    ),
    StreamSpec(
        name="CUSTOM",
        subjects=("custom.>",),
        max_age=7 * DAY,
        description="User-defined custom events (webhooks, triggers, etc.)",
    ),
    StreamSpec(
        name="SYSTEM",
        subjects=("system.>",),
        max_age=7 * DAY,
        description=(
            "Internal system events (dead_letter, replay, health, sync, batch-job, presence)"
        ),
    ),
)

OWN_STREAM = StreamSpec(
    name="OMNI_WORKER",
    subjects=(OWN_SUBJECTS,),
    max_age=30 * DAY,
    description="Events on their way back to a handler, and raw copies of large dead letters",
)


def raw_subject(app: str) -> str:
    """Return the subject of an app's copies of events too large for their dead letters."""
    return f"omni-worker.raw.{app}"


@dataclass(frozen=True, slots=True)
class Missing:
    """No stream is in the way: create it."""

    spec: StreamSpec


@dataclass(frozen=True, slots=True)
class Standing:
    """An existing stream covers what we need, perhaps under another name: use it unchanged."""

    spec: StreamSpec
    name: str
    differences: tuple[str, ...] = ()  # compared with the stream we would create, for people


@dataclass(frozen=True, slots=True)
class Lacking:
    """The stream of that name does not store every subject we need."""

    spec: StreamSpec
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another stream holds part of our subjects: the server would refuse ours (error 10065)."""

    spec: StreamSpec
    other: str
    overlap: str

    @property
    def says(self) -> str:
        """Return what a person reads of it."""
        return f"stream {self.spec.name} cannot be created: {self.other} holds {self.overlap}"


StreamStep = Missing | Standing | Lacking | Conflict


@dataclass(frozen=True, slots=True)
class CreateStream:
    """A missing stream."""

    config: Config


@dataclass(frozen=True, slots=True)
class UpdateStream:
    """A stream that lacks something: the server's full configuration with ours added."""

    config: Config


@dataclass(frozen=True, slots=True)
class CreateBucket:
    """A missing key-value bucket."""

    name: str
    ttl: float  # seconds


def plan_stream(
    spec: StreamSpec, standing: Iterable[StreamConfig], *, replicas: int = 1
) -> StreamStep:
    """Decide about one stream, given every stream that exists."""
    streams = {config.name: config for config in standing}
    own = streams.get(spec.name)
    if own is not None and is_copy(own):
        # Subjects of its own would take the events of its origins a second time, and the server
        # refuses them for a mirror.
        origins = ", ".join(one.name for one in (*own.sources, *own.mirrors))
        return Standing(spec, spec.name, (f"is a copy of {origins}",))
    if own is not None:
        missing = tuple(
            need for need in spec.subjects if not any(covers(has, need) for has in own.subjects)
        )
        if missing:
            return Lacking(spec, missing)
        return Standing(spec, spec.name, stream_differences(spec, own, replicas=replicas))
    for name, config in streams.items():
        for has in config.subjects:
            for need in spec.subjects:
                if covers(has, need):
                    return Standing(spec, name, (f"subjects held by {name}",))
                if (overlap := intersection(has, need)) is not None:
                    return Conflict(spec, name, overlap)
    return Missing(spec)


def stream_config(spec: StreamSpec, *, replicas: int) -> dict[str, Any]:
    """Return the configuration for creating a missing stream.

    Retention is by limits on purpose: with another retention the server forgets the id of an
    acknowledged event at a restart, and the duplicate window no longer covers it.
    """
    config: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": int(spec.max_age * NANO),
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": -1,
        "num_replicas": replicas,
        "duplicate_window": int(min(DUPLICATE_WINDOW, spec.max_age) * NANO),
    }
    if spec.source is None:
        config["subjects"] = list(spec.subjects)
    else:
        config["sources"] = source_configs(spec)
        config["metadata"] = {TAG + "source": spec.source}
    return config


def source_configs(spec: StreamSpec) -> list[dict[str, Any]]:
    """Return the sources of a stream that copies some subjects of another one."""
    start = {"opt_start_time": rfc3339(spec.source_start)} if spec.source_start else {}
    return [{"name": spec.source, "filter_subject": one, **start} for one in spec.source_filters]


def with_subjects(config: StreamConfig, subjects: Iterable[str]) -> dict[str, Any]:
    """Add these subjects to the server's full configuration: an update replaces everything."""
    return {**config.raw, "subjects": list(fold([*config.subjects, *subjects]))}


def with_sources(config: StreamConfig, spec: StreamSpec) -> dict[str, Any] | None:
    """Add a copy's sources to the server's full configuration; None if they are there already."""
    has = {(one.name, one.filter) for one in config.sources}
    new = [one for one in source_configs(spec) if (one["name"], one["filter_subject"]) not in has]
    return {**config.raw, "sources": [*(config.raw.get("sources") or ()), *new]} if new else None


def stream_differences(
    spec: StreamSpec, config: StreamConfig, *, replicas: int = 1
) -> tuple[str, ...]:
    """Compare a stream with the one we would have created, in words for a log line."""
    found = []
    extra = [one for one in config.subjects if one not in spec.subjects]
    if extra:
        found.append(f"also holds {', '.join(extra)}")
    if config.max_age != spec.max_age:
        found.append(f"keeps {_days(config.max_age)} where we keep {_days(spec.max_age)}")
    found += _raw_differences(stream_config(spec, replicas=replicas), config.raw)
    if config.duplicate_window < DUPLICATE_WINDOW:
        found.append(
            f"duplicate window {config.duplicate_window:g} s where we have {DUPLICATE_WINDOW} s"
        )
    return tuple(found)


def _raw_differences(ours: Config, config: Config) -> list[str]:
    """Compare the configuration we send with the server's, key by key."""
    found = []
    for key in ("retention", "storage", "discard", "num_replicas"):
        if config.get(key, ours[key]) != ours[key]:
            found.append(f"{key} {config[key]} where we have {ours[key]}")
    # With a limit the oldest events are dropped, or new ones refused, long before max_age.
    for key in ("max_msgs", "max_bytes", "max_msgs_per_subject", "max_msg_size", "max_consumers"):
        if config.get(key, -1) > 0:
            found.append(f"{key} {config[key]} where we have no limit")
    if config.get("no_ack"):
        found.append("no_ack, so nothing published there is ever confirmed")
    return found


def is_copy(config: StreamConfig) -> bool:
    """Return True for a mirror, and for an aggregate of sources without subjects of its own."""
    return bool(config.mirrors or config.sources) and not config.subjects


def copy_notice(spec: StreamSpec, config: StreamConfig) -> str | None:
    """Warn if a copy does not reach back as far as a later handler asks; else None."""
    if spec.source_start is not None:
        return None
    starts = [
        one.start_time
        for one in config.sources
        if one.filter in spec.source_filters and one.start_time
    ]
    if not starts:
        return None
    return (
        f"stream {spec.name} copies {', '.join(spec.source_filters)} only from {max(starts)} on;"
        f" earlier events are in {spec.source}"
    )


def rfc3339(when: datetime) -> str:
    """Format a time as JetStream reads it."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _days(seconds: float) -> str:
    if not seconds:
        return "for ever"
    return f"{seconds / DAY:g} d" if seconds >= DAY else f"{seconds:g} s"


# The seven streams as a new server would have them.
SEVEN = tuple(read_stream_config(stream_config(spec, replicas=1)) for spec in STREAMS)

"""Topology: which streams and consumers we need, and how they compare with what stands. Pure.

Standing configurations are the server's own JSON, kept as it says them: a field we do not know
must survive an update of ours. Reading and writing them is provision's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from .subjects import covers, fold, intersection, is_wild

Config = Mapping[str, Any]
StartFrom = Literal["new", "first", "last"] | datetime

DAY = 86_400  # seconds
NANO = 1_000_000_000
DUPLICATE_WINDOW = 120  # seconds; within it an event id is stored once
# Delayed naks count against it (NATS-Server#6093), so it stands far above what we ever hold.
MAX_ACK_PENDING = 65_536
TAG = "omni-worker."  # our keys in a consumer's or stream's metadata
OWN_SUBJECTS = "omni-worker.>"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """A stream we need; ``sources`` names (origin stream, filters) where it is a copy."""

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


# --- streams -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing stands in the way: create it."""

    spec: StreamSpec


@dataclass(frozen=True, slots=True)
class Standing:
    """A stream covers what we need, perhaps under another name: use it, change nothing."""

    spec: StreamSpec
    name: str
    differences: tuple[str, ...] = ()  # what we would have made otherwise, for people


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


StreamStep = Missing | Standing | Lacking | Conflict


def plan_stream(spec: StreamSpec, standing: Iterable[Config]) -> StreamStep:
    """What to do about one stream, given every stream that stands."""
    streams = {config["name"]: config for config in standing}
    own = streams.get(spec.name)
    if own is not None:
        missing = tuple(
            need
            for need in spec.subjects
            if not any(covers(has, need) for has in own.get("subjects") or ())
        )
        if missing:
            return Lacking(spec, missing)
        return Standing(spec, spec.name, stream_differences(spec, own))
    for name, config in streams.items():
        for has in config.get("subjects") or ():
            for need in spec.subjects:
                if covers(has, need):
                    return Standing(spec, name, (f"subjects held by {name}",))
                if (overlap := intersection(has, need)) is not None:
                    return Conflict(spec, name, overlap)
    return Missing(spec)


def stream_config(spec: StreamSpec, *, replicas: int) -> dict[str, Any]:
    """The configuration a missing stream is created with.

    Limits retention on purpose: on other retentions an acknowledged event's id is forgotten at a
    restart, and with it the duplicate window.
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
    """The sources of a stream that copies some subjects of another one."""
    start = {"opt_start_time": rfc3339(spec.source_start)} if spec.source_start else {}
    return [{"name": spec.source, "filter_subject": one, **start} for one in spec.source_filters]


def with_subjects(config: Config, subjects: Iterable[str]) -> dict[str, Any]:
    """The server's own full configuration plus these subjects: an update replaces everything."""
    return {**config, "subjects": list(fold([*(config.get("subjects") or ()), *subjects]))}


def with_sources(config: Config, spec: StreamSpec) -> dict[str, Any] | None:
    """The same for a copying stream's sources; None when it has them already."""
    has = {(one["name"], one.get("filter_subject", "")) for one in config.get("sources") or ()}
    new = [one for one in source_configs(spec) if (one["name"], one["filter_subject"]) not in has]
    return {**config, "sources": [*(config.get("sources") or ()), *new]} if new else None


def stream_differences(spec: StreamSpec, config: Config) -> tuple[str, ...]:
    """How a standing stream differs from what we would have made, in words for a log line."""
    found = []
    extra = [one for one in config.get("subjects") or () if one not in spec.subjects]
    if extra:
        found.append(f"also holds {', '.join(extra)}")
    max_age = config.get("max_age", 0) / NANO
    if max_age != spec.max_age:
        found.append(f"keeps {_days(max_age)} where we keep {_days(spec.max_age)}")
    for key, ours in (("retention", "limits"), ("storage", "file"), ("discard", "old")):
        if config.get(key, ours) != ours:
            found.append(f"{key} {config[key]} where we have {ours}")
    window = config.get("duplicate_window", 0) / NANO
    if window < DUPLICATE_WINDOW:
        found.append(f"duplicate window {window:g} s where we have {DUPLICATE_WINDOW} s")
    return tuple(found)


def holds_events(config: Config) -> bool:
    """Whether patterns read this stream: no bucket, nothing of the server's or ours, no copy."""
    if config["name"].startswith(("KV_", "OBJ_")) or config.get("sources") or config.get("mirror"):
        return False
    subjects = config.get("subjects") or ()
    return bool(subjects) and not any(
        subject.startswith("$") or covers(OWN_SUBJECTS, subject) for subject in subjects
    )


def route(filters: Iterable[str], standing: Iterable[Config]) -> dict[str, tuple[str, ...]]:
    """Which streams hold these filters' events, with the filters narrowed to each stream.

    The server takes a filter outside a stream without a word and never delivers, so what is not
    here is not asked for.
    """
    wanted = tuple(filters)
    routes: dict[str, tuple[str, ...]] = {}
    for config in standing:
        if not holds_events(config):
            continue
        shared = fold(
            both
            for has in config["subjects"]
            for want in wanted
            if (both := intersection(has, want)) is not None
        )
        if shared:
            routes[config["name"]] = shared
    return routes


def unserved(filters: Iterable[str], standing: Sequence[Config]) -> tuple[str, ...]:
    """The filters no stream stores, or that a single stream stores only in part."""
    streams = [config for config in standing if holds_events(config)]
    missing = []
    for want in filters:
        holding = [
            config
            for config in streams
            if any(intersection(has, want) is not None for has in config["subjects"])
        ]
        whole = any(covers(has, want) for config in holding for has in config["subjects"])
        # Several streams that share a filter between them are read together; a wildcard of the
        # user's means whatever there is.
        if not holding or not (whole or len(holding) > 1 or is_wild(_type_part(want))):
            missing.append(want)
    return tuple(missing)


# --- consumers -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """A consumer we need on one stream. Without ``durable`` the server drops it when unused."""

    stream: str
    name: str
    app: str
    filters: tuple[str, ...]
    ack_wait: float  # seconds
    start_from: StartFrom = "new"
    queue: str = ""
    durable: bool = True
    inactive: float = 3600.0  # seconds
    start_sequence: int | None = None  # a consumer made again starts here, whatever start_from says


@dataclass(frozen=True, slots=True)
class CreateConsumer:
    """None of that name stands."""

    config: Config


@dataclass(frozen=True, slots=True)
class UseConsumer:
    """It stands as it should."""

    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateConsumer:
    """Ours, made with other options: the server's full configuration with ours put in."""

    config: Config
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RefuseConsumer:
    """Not ours to touch, or not to be used as it stands."""

    reason: str


ConsumerStep = CreateConsumer | UseConsumer | UpdateConsumer | RefuseConsumer


def consumer_config(spec: ConsumerSpec) -> dict[str, Any]:
    """The configuration a missing consumer is created with.

    Never deliver_group (ignored on a pull consumer), backoff (replaces ack_wait) or max_deliver
    (loses the neighbours of an event that kills its worker).
    """
    config: dict[str, Any] = {
        "name": spec.name,
        "durable_name": spec.name,
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_wait * NANO),
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "replay_policy": "instant",
        "num_replicas": 0,
        "metadata": consumer_tag(spec),
        **_filter_fields(spec.filters),
        **_start_fields(spec),
    }
    if not spec.durable:
        config["inactive_threshold"] = int(spec.inactive * NANO)
    return config


def consumer_tag(spec: ConsumerSpec) -> dict[str, str]:
    """What marks a consumer as ours: the same for every process and version of an app."""
    return {
        TAG + "app": spec.app,
        TAG + "queue": spec.queue,
        TAG + "start_from": _start_word(spec.start_from),
    }


def plan_consumer(spec: ConsumerSpec, info: Mapping[str, Any] | None) -> ConsumerStep:
    """What to do about one consumer, given the server's word on it (None: there is none).

    Within one app the last started version's options win; another program's durable is never
    touched. ``start_from`` counts only when a consumer is made.
    """
    if info is None:
        return CreateConsumer(consumer_config(spec))
    config = info["config"]
    tag = config.get("metadata") or {}
    changes = consumer_changes(spec, config)
    owner = tag.get(TAG + "app")
    if owner is None and changes:
        return RefuseConsumer(
            f"consumer {spec.name!r} on stream {spec.stream} was made by another program"
            f" ({_listed(changes)}); choose another durable name"
        )
    if owner is not None and owner != spec.app:
        return RefuseConsumer(
            f"consumer {spec.name!r} on stream {spec.stream} belongs to the app {owner!r},"
            f" this is {spec.app!r}; choose another durable name"
        )
    if "ack_policy" in changes or "deliver_subject" in changes:
        return RefuseConsumer(
            f"consumer {spec.name!r} on stream {spec.stream} cannot be used:"
            f" {_listed(changes)}; the server does not allow changing that"
        )
    notices = _start_notice(spec, tag) if owner is not None else ()
    if not changes:
        return UseConsumer(notices)
    filters, stays = _next_filters(spec, config, pulls_waiting=info.get("num_waiting", 0))
    if stays:
        changes.pop("filter_subjects", None)
        notices += (
            f"consumer {spec.name!r} on {spec.stream} keeps the wider filters"
            f" {', '.join(filters_of(config))} while other processes pull from it",
        )
    updated = _updated(spec, config, filters)
    if updated == dict(config):
        return UseConsumer(notices)
    if changes:
        notices += (f"consumer {spec.name!r} on {spec.stream} updated: {_listed(changes)}",)
    return UpdateConsumer(updated, notices)


def consumer_changes(spec: ConsumerSpec, config: Config) -> dict[str, tuple[Any, Any]]:
    """The fields we set that stand otherwise: name → (standing, wanted).

    The server's own `_nats.*` keys, fields we did not set and the deliver policy do not count.
    """
    wanted: dict[str, Any] = {
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_wait * NANO),
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "inactive_threshold": 0 if spec.durable else int(spec.inactive * NANO),
    }
    changes = {
        key: (config.get(key, 0), value)
        for key, value in wanted.items()
        if config.get(key, 0) != value
    }
    if filters_of(config) != tuple(sorted(spec.filters)):
        changes["filter_subjects"] = (filters_of(config), tuple(sorted(spec.filters)))
    if config.get("deliver_subject"):
        changes["deliver_subject"] = (config["deliver_subject"], "none (a pull consumer)")
    if config.get("priority_groups"):
        changes["priority_groups"] = (config["priority_groups"], "none")
    return changes


def filters_of(config: Config) -> tuple[str, ...]:
    """A consumer's filters, whichever of the two fields holds them, sorted."""
    one = config.get("filter_subject")
    return tuple(sorted(config.get("filter_subjects") or ((one,) if one else ())))


def queue_consumer_name(app: str, queue: str, filters: Iterable[str]) -> str:
    """The consumer that all handlers of one app with this queue and these filters share."""
    return f"{app}-{queue}-{short_hash(filters)}"


def short_hash(words: Iterable[str]) -> str:
    """Eight hexadecimal digits that stand for a set of words."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:8]


def rfc3339(when: datetime) -> str:
    """A time as JetStream reads it."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _next_filters(
    spec: ConsumerSpec, config: Config, *, pulls_waiting: int
) -> tuple[tuple[str, ...], bool]:
    """The filters to set, and whether narrower ones have to wait.

    Narrowing moves the consumer past events another version still wants, so it is done only when
    nobody pulls; widening is safe at once.
    """
    standing, wanted = filters_of(config), tuple(sorted(spec.filters))
    lost = [has for has in standing if not any(covers(want, has) for want in wanted)]
    if not lost or pulls_waiting == 0:
        return wanted, False
    return fold([*standing, *wanted]), True


def _updated(spec: ConsumerSpec, config: Config, filters: tuple[str, ...]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in config.items()
        if key not in ("filter_subject", "filter_subjects", "inactive_threshold")
    }
    updated: dict[str, Any] = {
        **kept,
        "ack_wait": int(spec.ack_wait * NANO),
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        **_filter_fields(filters),
    }
    if not spec.durable:
        updated["inactive_threshold"] = int(spec.inactive * NANO)
    return updated


def _filter_fields(filters: Sequence[str]) -> dict[str, Any]:
    # Both fields at once are refused (10137), and one filter is cheaper for the server.
    if len(filters) == 1:
        return {"filter_subject": filters[0]}
    return {"filter_subjects": sorted(filters)}


def _start_fields(spec: ConsumerSpec) -> dict[str, Any]:
    if spec.start_sequence is not None:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": spec.start_sequence}
    match spec.start_from:
        case "new":
            return {"deliver_policy": "new"}
        case "first":
            return {"deliver_policy": "all"}
        case "last":
            return {"deliver_policy": "last"}
        case datetime() as when:
            return {"deliver_policy": "by_start_time", "opt_start_time": rfc3339(when)}


def _start_word(start_from: StartFrom) -> str:
    return rfc3339(start_from) if isinstance(start_from, datetime) else start_from


def _start_notice(spec: ConsumerSpec, tag: Mapping[str, str]) -> tuple[str, ...]:
    made_with = tag.get(TAG + "start_from", "")
    wanted = _start_word(spec.start_from)
    if made_with == wanted:
        return ()
    return (
        f"consumer {spec.name!r} on {spec.stream} was made with start_from={made_with!r} and goes"
        f" on where it is; start_from={wanted!r} would need plan --recreate {spec.name}",
    )


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(
        f"{key} {_shown(key, has)}, wanted {_shown(key, want)}"
        for key, (has, want) in changes.items()
    )


def _shown(key: str, value: Any) -> str:
    if key in ("ack_wait", "inactive_threshold") and isinstance(value, int):
        return f"{value / NANO:g} s"
    if isinstance(value, (tuple, list)):
        return ", ".join(str(one) for one in value) or "none"
    return str(value)


def _type_part(filter: str) -> str:
    return ".".join(filter.split(".")[:2])


def _days(seconds: float) -> str:
    if not seconds:
        return "for ever"
    return f"{seconds / DAY:g} d" if seconds >= DAY else f"{seconds:g} s"

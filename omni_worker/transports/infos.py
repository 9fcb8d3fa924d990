"""Infos: the server's JSON about streams, consumers and the account, as frozen facts. Pure.

Each fact the code reads is a field; the rest is in ``raw``, the server's own JSON. A missing key
(older servers leave some out) reads as the server's default. Durations are in seconds, points of
time in epoch nanoseconds, with 0 if a time is not given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .timestamps import nanoseconds

Json = Mapping[str, Any]

_NANO = 1_000_000_000
_WILDCARD = re.compile(r"\{\{\s*[Ww]ildcard\(\s*(\d+)\s*\)\s*\}\}|\$(\d+)")


@dataclass(frozen=True, slots=True)
class SubjectTransform:
    """A change of subject on the way into a stream, as the server writes it (ADR-36)."""

    source: str
    destination: str  # empty: the subject stays

    def apply(self, subject: str) -> str:
        """Return the pattern of what a subject, or a pattern within ``source``, becomes."""
        if not self.destination:
            return subject
        given, captured, rest = subject.split("."), [], []
        for position, token in enumerate(self.source.split(".")):
            if token == ">":
                rest = given[position:]
            elif token == "*":
                captured.append(given[position])
        made: list[str] = []
        for token in self.destination.split("."):
            if token == ">":
                made += rest
            elif (wildcard := _WILDCARD.fullmatch(token)) is not None:
                number = int(wildcard.group(1) or wildcard.group(2))
                made.append(captured[number - 1] if 0 < number <= len(captured) else "*")
            elif "{{" in token or "$" in token:
                # A split or a slice may make several tokens of one.
                return ".".join([*made, ">"])
            else:
                made.append(token)
        return ".".join(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSource:
    """A stream that another stream copies from."""

    name: str
    filter: str  # empty: everything
    start_time: str  # RFC 3339, as the server writes it; empty: from the first message on
    is_external: bool = False  # in another domain or account
    transforms: tuple[SubjectTransform, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """A stream's configuration."""

    name: str
    subjects: tuple[str, ...]
    sources: tuple[StreamSource, ...]  # with a mirror: empty in a stream that is not a copy
    mirrors: tuple[StreamSource, ...]  # one at most
    transforms: tuple[SubjectTransform, ...]  # of the stream's own subjects; one at most
    retention: str
    discard: str
    max_age: float  # seconds; 0: for ever
    max_msgs: int  # -1: no limit
    max_bytes: int  # -1: no limit
    duplicate_window: float  # seconds
    raw: Json = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """State of a stream: the messages it holds."""

    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int
    subjects: int  # number of different subjects
    consumers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """A stream: its configuration and its state."""

    name: str
    created: int  # epoch nanoseconds; another value is another stream of the same name
    answered_at: int  # epoch nanoseconds by the server's clock
    config: StreamConfig
    state: StreamState
    raw: Json = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig:
    """A consumer's configuration."""

    name: str
    filters: tuple[str, ...]  # sorted, whichever of the server's two fields holds them
    metadata: Mapping[str, str]
    ack_policy: str
    ack_wait: float  # seconds
    deliver_policy: str
    inactive_threshold: float  # seconds; 0: the consumer stays until it is deleted
    max_deliver: int  # -1: no limit
    max_ack_pending: int  # -1: no limit
    max_waiting: int  # 0: no limit
    raw: Json = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerInfo:
    """A consumer: its configuration and its position in its stream."""

    stream: str
    name: str
    created: int  # epoch nanoseconds; another value is another consumer of the same name
    config: ConsumerConfig
    delivered: int  # stream sequence of the last delivery
    deliveries: int  # consumer sequence of the last delivery: the number of deliveries
    ack_floor: int  # stream sequence up to which everything is settled
    num_pending: int  # stored and not delivered yet
    num_ack_pending: int  # delivered and not settled yet
    num_redelivered: int  # of these, delivered more than once
    num_waiting: int  # pull requests that wait for messages
    is_paused: bool
    pause_remaining: float  # seconds; 0: it is not paused
    answered_at: int  # epoch nanoseconds by the server's clock
    is_push_bound: bool  # a push consumer with a subscriber
    replicas: int  # servers that hold a copy, the leader not counted
    raw: Json = field(repr=False)

    @property
    def is_idle(self) -> bool:
        """True if everything is delivered and settled."""
        return not (self.num_pending or self.num_ack_pending)

    @property
    def has_pin(self) -> bool:
        """True if the server serves one process at a time and has chosen it, as far as it knows."""
        groups = self.raw.get("priority_groups") or ()
        return any(one.get("pinned_client_id") for one in groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountInfo:
    """An account's use of JetStream, and its limits; -1: no limit."""

    streams: int
    consumers: int
    storage: int  # bytes
    memory: int  # bytes
    max_streams: int
    max_consumers: int
    max_storage: int  # bytes
    max_memory: int  # bytes
    requires_max_bytes: bool  # of every stream
    raw: Json = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """The subjects a login may publish to; an empty allow list allows everything."""

    publish_allow: tuple[str, ...]
    publish_deny: tuple[str, ...]
    raw: Json = field(repr=False)


def read_stream_info(raw: Json) -> StreamInfo:
    """Read the answer to STREAM.INFO, or one entry of STREAM.LIST."""
    config = read_stream_config(raw.get("config") or {})
    state = raw.get("state") or {}
    return StreamInfo(
        name=config.name,
        created=_time(raw, "created"),
        answered_at=_time(raw, "ts"),
        config=config,
        state=StreamState(
            messages=_int(state, "messages"),
            bytes=_int(state, "bytes"),
            first_sequence=_int(state, "first_seq"),
            last_sequence=_int(state, "last_seq"),
            subjects=_int(state, "num_subjects"),
            consumers=_int(state, "consumer_count"),
        ),
        raw=raw,
    )


def read_stream_config(raw: Json) -> StreamConfig:
    """Read a stream's configuration: from the server, or one of ours to create a stream."""
    return StreamConfig(
        name=str(raw.get("name") or ""),
        subjects=tuple(raw.get("subjects") or ()),
        sources=tuple(_source(one) for one in raw.get("sources") or ()),
        mirrors=tuple(_source(one) for one in (raw.get("mirror"),) if one),
        transforms=_transforms([raw["subject_transform"]] if raw.get("subject_transform") else ()),
        retention=str(raw.get("retention") or "limits"),
        discard=str(raw.get("discard") or "old"),
        max_age=_seconds(raw, "max_age"),
        max_msgs=_int(raw, "max_msgs", -1),
        max_bytes=_int(raw, "max_bytes", -1),
        duplicate_window=_seconds(raw, "duplicate_window"),
        raw=raw,
    )


def _source(raw: Json) -> StreamSource:
    return StreamSource(
        name=str(raw.get("name") or ""),
        filter=str(raw.get("filter_subject") or ""),
        start_time=str(raw.get("opt_start_time") or ""),
        is_external=bool(raw.get("external")),
        transforms=_transforms(raw.get("subject_transforms") or ()),
    )


def _transforms(raw: Iterable[Json]) -> tuple[SubjectTransform, ...]:
    return tuple(
        SubjectTransform(str(one.get("src") or ">"), str(one.get("dest") or "")) for one in raw
    )


def read_consumer_info(raw: Json) -> ConsumerInfo:
    """Read the answer to CONSUMER.INFO, or one entry of CONSUMER.LIST."""
    config = read_consumer_config(raw.get("config") or {})
    delivered, floor = raw.get("delivered") or {}, raw.get("ack_floor") or {}
    return ConsumerInfo(
        stream=str(raw.get("stream_name") or ""),
        name=str(raw.get("name") or config.name),
        created=_time(raw, "created"),
        config=config,
        delivered=_int(delivered, "stream_seq"),
        deliveries=_int(delivered, "consumer_seq"),
        ack_floor=_int(floor, "stream_seq"),
        num_pending=_int(raw, "num_pending"),
        num_ack_pending=_int(raw, "num_ack_pending"),
        num_redelivered=_int(raw, "num_redelivered"),
        num_waiting=_int(raw, "num_waiting"),
        is_paused=bool(raw.get("paused")),
        pause_remaining=_seconds(raw, "pause_remaining") if raw.get("paused") else 0.0,
        answered_at=_time(raw, "ts"),
        is_push_bound=bool(raw.get("push_bound")),
        replicas=len((raw.get("cluster") or {}).get("replicas") or ()),
        raw=raw,
    )


def read_consumer_config(raw: Json) -> ConsumerConfig:
    """Read a consumer's configuration: from the server, or one of ours to create a consumer."""
    return ConsumerConfig(
        name=str(raw.get("name") or raw.get("durable_name") or ""),
        filters=filters_of(raw),
        metadata=dict(raw.get("metadata") or {}),
        ack_policy=str(raw.get("ack_policy") or "none"),
        ack_wait=_seconds(raw, "ack_wait"),
        deliver_policy=str(raw.get("deliver_policy") or "all"),
        inactive_threshold=_seconds(raw, "inactive_threshold"),
        max_deliver=_int(raw, "max_deliver", -1),
        max_ack_pending=_int(raw, "max_ack_pending", -1),
        max_waiting=_int(raw, "max_waiting"),
        raw=raw,
    )


def read_account(raw: Json) -> AccountInfo:
    """Read the answer to INFO."""
    limits = raw.get("limits") or {}
    return AccountInfo(
        streams=_int(raw, "streams"),
        consumers=_int(raw, "consumers"),
        storage=_int(raw, "storage"),
        memory=_int(raw, "memory"),
        max_streams=_int(limits, "max_streams", -1),
        max_consumers=_int(limits, "max_consumers", -1),
        max_storage=_int(limits, "max_storage", -1),
        max_memory=_int(limits, "max_memory", -1),
        requires_max_bytes=bool(limits.get("max_bytes_required")),
        raw=raw,
    )


def read_permissions(raw: Json) -> Permissions:
    """Read the permissions in the server's answer about a user."""
    publish = raw.get("publish") or {}
    return Permissions(
        publish_allow=tuple(publish.get("allow") or ()),
        publish_deny=tuple(publish.get("deny") or ()),
        raw=raw,
    )


def filters_of(config: Json) -> tuple[str, ...]:
    """Sort the filters of a consumer's configuration, whichever of the two fields holds them."""
    one = config.get("filter_subject")
    return tuple(sorted(config.get("filter_subjects") or ((one,) if one else ())))


def _int(raw: Json, key: str, default: int = 0) -> int:
    found = raw.get(key)
    return default if found is None else int(found)


def _seconds(raw: Json, key: str) -> float:
    return _int(raw, key) / _NANO


def _time(raw: Json, key: str) -> int:
    found = raw.get(key)
    return nanoseconds(found) if found else 0

"""Consumers: those we need, and the changes allowed on an existing one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..options import StartFrom
from ..subjects import covers, fold
from ..transports.infos import ConsumerConfig, ConsumerInfo
from .notices import Notice, NoticeKind
from .pins import next_pin, pin_changes, pin_fields
from .streams import NANO, TAG, Config, rfc3339
from .tags import ACK_WAIT, BUT, FUNCTION, NEXT_ACK_WAIT, SPLIT, app_of, function_of
from .words import changes_in_words, updates_in_words

# Delayed naks count against it (NATS-Server#6093): each event that waits for its retry. A waiting
# one costs the server a quarter of a kilobyte, and nothing while it waits.
MAX_ACK_PENDING = 1_000_000


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
    start_sequence: int | None = None  # a recreated consumer starts here, whatever start_from is
    origin: str = ""  # of a recreated consumer: the first of those that follow each other
    handler: str = ""  # the name people know it by; a bare consumer's is the main one's
    function: str = ""  # of the handler
    pattern: tuple[str, ...] = ()  # all filters of the handler, those of other streams as well
    split: str = ""  # the consumer that has the bare subjects in its place
    but: tuple[str, ...] = ()  # filters whose events another consumer reads
    one_active: bool = False  # of the processes that read it one is served at a time
    may_repeat: bool = False  # two processes may have the same delivery: no shortening waits


@dataclass(frozen=True, slots=True)
class CreateConsumer:
    """No consumer of that name exists."""

    stream: str
    config: Config


@dataclass(frozen=True, slots=True)
class UseConsumer:
    """The consumer is as it should be."""

    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateConsumer:
    """The consumer is ours and differs: ``config`` is the server's with our values put in."""

    stream: str
    config: Config
    notices: tuple[Notice, ...] = ()
    only_function: bool = False  # only the function's name differs, which is for people


@dataclass(frozen=True, slots=True)
class RefuseConsumer:
    """The consumer is not ours to change, or cannot be used as it is."""

    reason: str


ConsumerStep = CreateConsumer | UseConsumer | UpdateConsumer | RefuseConsumer


def consumer_config(spec: ConsumerSpec) -> dict[str, Any]:
    """Return the configuration for creating a missing consumer.

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
        **filter_fields(spec.filters),
        **_start_fields(spec),
        **pin_fields(pinned=spec.one_active),
    }
    if not spec.durable:
        config["inactive_threshold"] = int(spec.inactive * NANO)
    return config


def consumer_tag(spec: ConsumerSpec) -> dict[str, str]:
    """Return the metadata that marks a consumer as ours; equal in all versions of an app.

    The pattern is the one it was first made for; it is not compared, and stays.
    """
    tag = {
        TAG + "app": spec.app,
        TAG + "queue": spec.queue,
        TAG + "start_from": _start_word(spec.start_from),
        ACK_WAIT: str(int(spec.ack_wait * NANO)),
    }
    if spec.handler:
        tag |= {TAG + "handler": spec.handler, TAG + "pattern": " ".join(spec.pattern)}
    if spec.function:
        tag[FUNCTION] = spec.function
    if spec.split:
        tag[SPLIT] = spec.split
    if spec.but:
        tag[BUT] = " ".join(spec.but)
    return {**tag, TAG + "origin": spec.origin} if spec.origin else tag


def plan_consumer(
    spec: ConsumerSpec, info: ConsumerInfo | None, *, narrow: bool = False
) -> ConsumerStep:
    """Decide about one consumer, given the server's facts about it (None: there is none).

    Within one app the options of the version started last win; another program's durable is never
    changed. ``start_from`` counts only when a consumer is created. While others read the
    consumer, its filters are narrowed only if an operator asks for it (``narrow``).
    """
    if info is None:
        return CreateConsumer(spec.stream, consumer_config(spec))
    config = info.config
    changes = consumer_changes(spec, config)
    owner = app_of(config)
    if (refused := _refused(spec, owner, changes)) is not None:
        return refused
    notices = _start_notice(spec, config.metadata) if owner is not None else ()
    is_renamed = owner is not None and bool(spec.function) and function_of(config) != spec.function
    only_function = is_renamed and not changes
    if not changes and not is_renamed and NEXT_ACK_WAIT not in config.metadata:
        return UseConsumer(notices)
    filters, stays = _next_filters(spec, config, is_read=_may_want(spec, info) and not narrow)
    if stays:
        changes.pop("filter_subjects", None)
        kept = ", ".join(config.filters)
        says = f"keeps the wider filters {kept} while other processes pull from it"
        notices += (Notice(NoticeKind.FILTERS_KEPT, says),)
    pinned, notes = next_pin(
        config, changes, one_active=spec.one_active, is_read=_is_read(info), narrow=narrow
    )
    notices += notes
    later = not spec.may_repeat and _is_read(info) and _is_shorter(spec, config)
    if later:
        changes.pop("ack_wait", None)
        says = (
            f"keeps ack_wait {config.ack_wait:g} s for half a minute, until all processes extend"
            f" what they hold by the new {spec.ack_wait:g} s"
        )
        notices += (Notice(NoticeKind.ACK_WAIT_KEPT, says),)
    # Undone by an update, what it has stranded would stay so: see upkeep. It lies above the floor,
    # unless all that was delivered after it was answered.
    stranded = _is_read(info) or (info.ack_floor < info.delivered and not narrow)
    limited = "max_deliver" in changes and stranded
    if limited:
        changes.pop("max_deliver")
        says = f"keeps max_deliver {config.max_deliver}, until a process that runs recreates it"
        notices += (Notice(NoticeKind.MAX_DELIVER_KEPT, says),)
    updated = _updated(spec, config, filters, pinned=pinned, later=later, limited=limited)
    if updated == config.raw:
        return UseConsumer(notices)
    if changes:
        notices += (Notice(NoticeKind.UPDATED, f"updated: {updates_in_words(changes)}"),)
    return UpdateConsumer(spec.stream, updated, notices, only_function)


def _refused(
    spec: ConsumerSpec, owner: str | None, changes: Mapping[str, tuple[Any, Any]]
) -> RefuseConsumer | None:
    if owner is None and changes:
        return RefuseConsumer(
            f"consumer {spec.name!r} on stream {spec.stream} was created by another program"
            f" ({changes_in_words(changes)}); choose another durable name"
        )
    if owner is not None and owner != spec.app:
        return RefuseConsumer(
            f"consumer {spec.name!r} on stream {spec.stream} belongs to the app {owner!r},"
            f" this is {spec.app!r}; choose another durable name"
        )
    if "ack_policy" in changes or "deliver_subject" in changes:
        return RefuseConsumer(
            f"consumer {spec.name!r} on stream {spec.stream} cannot be used:"
            f" {changes_in_words(changes)}; the server does not allow changing that"
        )
    return None


def consumer_changes(spec: ConsumerSpec, consumer: ConsumerConfig) -> dict[str, tuple[Any, Any]]:
    """Return the fields we set that differ on the server: name → (there, wanted).

    The server's own `_nats.*` keys, fields we did not set and the deliver policy do not count.
    """
    config = consumer.raw  # the server's own JSON
    wanted: dict[str, Any] = {
        "ack_policy": "explicit",
        "ack_wait": int(spec.ack_wait * NANO),
        "max_deliver": -1,
        "max_ack_pending": _max_ack_pending(consumer),
        "inactive_threshold": 0 if spec.durable else int(spec.inactive * NANO),
    }
    changes = {
        key: (config.get(key, 0), value)
        for key, value in wanted.items()
        if config.get(key, 0) != value
    }
    if consumer.filters != tuple(sorted(spec.filters)):
        changes["filter_subjects"] = (consumer.filters, tuple(sorted(spec.filters)))
    if config.get("deliver_subject"):
        changes["deliver_subject"] = (config["deliver_subject"], "none (a pull consumer)")
    changes |= pin_changes(consumer, one_active=spec.one_active)
    if config.get("headers_only"):
        # Without its body every event would be unreadable and become a dead letter.
        changes["headers_only"] = (True, False)
    if config.get("backoff"):
        changes["backoff"] = (config["backoff"], "none")
    return changes


def queue_consumer_name(app: str, queue: str, filters: Iterable[str]) -> str:
    """Name the consumer that handlers of an app with this queue and these filters share."""
    return f"{app}-{queue}-{short_hash(filters)}"


def short_hash(words: Iterable[str]) -> str:
    """Hash a set of words to eight hexadecimal digits."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:8]


def _next_filters(
    spec: ConsumerSpec, config: ConsumerConfig, *, is_read: bool
) -> tuple[tuple[str, ...], bool]:
    """Return the filters to set, and True if narrower ones have to wait.

    Narrowing moves the consumer past events another version still wants, so it is done only when
    no process reads the consumer; widening is safe at once.
    """
    wanted = tuple(sorted(spec.filters))
    if not is_read or not is_narrower(spec, config):
        return wanted, False
    return fold([*config.filters, *wanted]), True


def is_narrower(spec: ConsumerSpec, config: ConsumerConfig) -> bool:
    """Return True if the consumer has a filter that the spec no longer covers."""
    return not all(_is_covered(has, spec) for has in config.filters)


def _may_want(spec: ConsumerSpec, info: ConsumerInfo) -> bool:
    """Return True if a process may want what the consumer delivers until it is narrowed.

    A process at its limit loses no bare subjects: the handler's other consumer has them.
    """
    left = (has for has in info.config.filters if not _is_covered(has, spec))
    is_split = bool(spec.split) and all(_is_covered(f"{one}.>", spec) for one in left)
    return bool(info.num_waiting) if is_split else _is_read(info)


def _is_covered(subject: str, spec: ConsumerSpec) -> bool:
    return any(covers(filter, subject) for filter in spec.filters)


def _is_read(info: ConsumerInfo) -> bool:
    """Return True if a process reads this consumer: it pulls, or is at its limit."""
    return bool(info.num_waiting or info.num_ack_pending)


def _is_shorter(spec: ConsumerSpec, config: ConsumerConfig) -> bool:
    """Return True if our ack_wait is shorter than that of the version before, not of an edit."""
    nanoseconds = int(spec.ack_wait * NANO)
    was = config.metadata.get(ACK_WAIT, str(config.raw.get("ack_wait")))
    return was == str(config.raw.get("ack_wait")) and nanoseconds < int(was)


def _updated(
    spec: ConsumerSpec,
    config: ConsumerConfig,
    filters: tuple[str, ...],
    *,
    pinned: bool,
    later: bool,
    limited: bool,
) -> dict[str, Any]:
    """Return the configuration to write.

    ``later``: the shorter ack_wait is only announced. ``limited``: max_deliver stays.
    """
    kept = {
        key: value
        for key, value in config.raw.items()
        if key not in ("filter_subject", "filter_subjects", "inactive_threshold", "backoff")
        and not key.startswith(("headers_only", "priority_"))
    }
    updated: dict[str, Any] = {
        **kept,
        "ack_wait": int(spec.ack_wait * NANO),
        "max_deliver": config.max_deliver if limited else -1,
        "max_ack_pending": _max_ack_pending(config),
        **filter_fields(filters),
        **pin_fields(pinned=pinned),
    }
    if not spec.durable:
        updated["inactive_threshold"] = int(spec.inactive * NANO)
    left = (SPLIT, NEXT_ACK_WAIT)
    tag = {key: value for key, value in config.metadata.items() if key not in left}
    tag[NEXT_ACK_WAIT if later else ACK_WAIT] = str(int(spec.ack_wait * NANO))
    if later:
        updated["ack_wait"] = config.raw["ack_wait"]
    if spec.function:
        tag[FUNCTION] = spec.function
    updated["metadata"] = tag | ({SPLIT: spec.split} if spec.split else {})
    return updated


def with_limit(config: Config, most: int) -> dict[str, Any]:
    """Return a consumer's configuration for a server or account that allows fewer unsettled."""
    metadata = {**(config.get("metadata") or {}), TAG + "limit": str(most)}
    return {**config, "max_ack_pending": most, "metadata": metadata}


def _max_ack_pending(config: ConsumerConfig) -> int:
    """Return the number of unsettled events to allow: where the server sets a limit, that."""
    limit = config.metadata.get(TAG + "limit")
    return config.max_ack_pending if limit == str(config.max_ack_pending) else MAX_ACK_PENDING


def filter_fields(filters: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a configuration that name its filters."""
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


def _start_notice(spec: ConsumerSpec, tag: Mapping[str, str]) -> tuple[Notice, ...]:
    made_with = tag.get(TAG + "start_from", "")
    wanted = _start_word(spec.start_from)
    if made_with == wanted:
        return ()
    says = (
        f"was created with start_from={made_with!r} and continues from its position;"
        f" start_from={wanted!r} would need plan --recreate {spec.name}"
    )
    return (Notice(NoticeKind.STARTED_ELSEWHERE, says),)

"""Drift: the needs of an app compared with the server. Comparing changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from .. import limits
from ..handler_consumers import PlannedConsumers, copies_of, copy_spec, planned_consumers
from ..handlers import Handler
from ..letters import marks
from ..notes import attempts, guards
from ..schemas import SchemaRegistry
from ..settings import Settings
from ..steering import orders
from ..stream_consumers import absorbed, refusal
from ..subjects import filters_for, intersection, is_wild
from ..topology import (
    OWN_STREAM,
    STREAMS,
    Conflict,
    ConsumerSpec,
    CreateBucket,
    CreateConsumer,
    CreateStream,
    Lacking,
    Missing,
    NoticeKind,
    RefuseConsumer,
    Standing,
    StreamConsumers,
    StreamSpec,
    UpdateConsumer,
    UpdateStream,
    changes_in_words,
    consumer_changes,
    consumer_config,
    function_of,
    handler_of,
    is_whole,
    plan_consumer,
    plan_stream,
    route,
    stream_config,
    with_sources,
    with_subjects,
    would_store,
)
from ..transports.base import Operators, Transport
from ..transports.infos import ConsumerInfo, StreamConfig, read_stream_config
from ..writes import write_consumer, write_stream
from .crons import RemoveCron, remove_cron, unclaimed_crons
from .orphans import orphans
from .own_readers import SENT_BACK, own_readers
from .steps import Action, Change, Kind, Step, orphaned_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Facts about an app that decide its streams, consumers and buckets."""

    app: str
    handlers: Sequence[Handler]
    registry: SchemaRegistry
    settings: Settings


async def find_drift(transport: Transport, needs: Needs) -> list[Step]:
    """Compare every stream, consumer and bucket the app needs with the server."""
    operators = transport.operators
    standing = [info.config for info in await operators.streams()]
    steps, expected = _streams(needs, standing)
    copies, expected = _copies(needs, standing, expected)
    steps += copies
    version, about = transport.server_version, (needs.registry, needs.settings, expected)
    wanted = [planned_consumers(one, *about, version=version) for one in needs.handlers]
    for one in wanted:
        found = await _consumers(operators, one)
        steps += [replace(step, function=one.handler.short) for step in found]
    steps += map(_orphaned, await orphans(operators, needs.app, standing, wanted))
    if any(one.name == OWN_STREAM.name for one in standing):
        for cron in await unclaimed_crons(transport, needs.app, needs.handlers):
            steps.append(
                Step(
                    action=Action.ORPHANED,
                    kind=Kind.CRON,
                    name=cron.durable,
                    says=cron.says,
                    change=cron,
                )
            )
    return steps + await _our_own(transport, needs, standing)


async def apply(transport: Transport, step: Step) -> None:
    """Carry out a step. Raises ApiError if the server refuses."""
    match step.change:
        case CreateStream() | UpdateStream() as change:
            await write_stream(transport.operators, change)
        case CreateConsumer() | UpdateConsumer() as change:
            await write_consumer(transport.operators, change)
        case CreateBucket(name=name, ttl=ttl):
            await transport.bucket(name, ttl=ttl)
        case RemoveCron() as change:
            await remove_cron(transport, change)


# --- streams ------------------------------------------------------------------------------------


def _streams(needs: Needs, standing: list[StreamConfig]) -> tuple[list[Step], list[StreamConfig]]:
    """Return steps for our seven streams, and the streams as they will be afterwards."""
    steps: list[Step] = []
    expected = list(standing)
    replicas = needs.settings.replicas
    for spec in STREAMS:
        step = plan_stream(spec, standing, replicas=replicas)
        match step:
            case Missing():
                config = stream_config(spec, replicas=replicas)
                expected.append(read_stream_config(config))
                steps.append(_stream(Action.CREATE, spec.name, "missing", CreateStream(config)))
            case Standing(differences=differences):
                action = Action.FOREIGN if differences else Action.FINE
                steps.append(_stream(action, spec.name, "; ".join(differences) or "exists"))
            case Lacking(missing=missing):
                added = _added(spec, missing, standing)
                steps.append(added)
                if isinstance(added.change, UpdateStream):
                    wider = read_stream_config(added.change.config)
                    expected = [wider if one.name == spec.name else one for one in expected]
            case Conflict(other=other, overlap=overlap):
                says = f"{other} holds {overlap}, so it cannot be created"
                needed = any(would_store(spec, one.filters) for one in needs.handlers)
                action = Action.CONFLICT if needed else Action.NOTE
                says += "" if needed else "; no handler needs it"
                steps.append(_stream(action, spec.name, says))
    return steps, expected


def _added(spec: StreamSpec, missing: Sequence[str], standing: list[StreamConfig]) -> Step:
    """Add missing subjects to an existing stream; a conflict if another stream holds them."""
    for config in standing:
        for has in config.subjects:
            if config.name != spec.name and any(intersection(has, one) for one in missing):
                says = f"lacks {', '.join(missing)}, and {config.name} holds {has}"
                return _stream(Action.CONFLICT, spec.name, says)
    own = next(config for config in standing if config.name == spec.name)
    says = f"lacks {', '.join(missing)}"
    return _stream(Action.UPDATE, spec.name, says, UpdateStream(with_subjects(own, missing)))


def _copies(
    needs: Needs, standing: list[StreamConfig], expected: list[StreamConfig]
) -> tuple[list[Step], list[StreamConfig]]:
    """Return steps for the streams that copy types registered with ``stream=``."""
    steps = []
    for handler in needs.handlers:
        for stream, types in sorted(copies_of(handler, needs.registry).items()):
            origin = next(iter(route(filters_for(types), expected)), None)
            if origin is None:
                says = f"no stream stores {', '.join(types)}"
                steps.append(_stream(Action.CONFLICT, stream, says))
                continue
            source = next(one for one in expected if one.name == origin)
            max_age, now = source.max_age, datetime.now(UTC)
            spec = copy_spec(stream, types, handler, origin, max_age=max_age, now=now)
            step = _copy(spec, standing, needs.settings.replicas)
            steps.append(step)
            if isinstance(step.change, CreateStream):
                made = read_stream_config(step.change.config)
                expected, standing = [*expected, made], [*standing, made]
    return steps, expected


def _copy(spec: StreamSpec, standing: list[StreamConfig], replicas: int) -> Step:
    own = next((one for one in standing if one.name == spec.name), None)
    if own is None:
        change = CreateStream(stream_config(spec, replicas=replicas))
        return _stream(Action.CREATE, spec.name, f"to copy from {spec.source}", change)
    if not own.sources:
        return _stream(Action.CONFLICT, spec.name, f"exists, and is not a copy of {spec.source}")
    updated = with_sources(own, spec)
    if updated is None:
        return _stream(Action.FINE, spec.name, f"copies from {spec.source}")
    says = f"also to copy {', '.join(spec.source_filters)}"
    return _stream(Action.UPDATE, spec.name, says, UpdateStream(updated))


def _stream(action: Action, name: str, says: str, change: Change | None = None) -> Step:
    return Step(action=action, kind=Kind.STREAM, name=name, says=says, change=change)


# --- consumers ----------------------------------------------------------------------------------


async def _consumers(operators: Operators, wanted: PlannedConsumers) -> list[Step]:
    name = wanted.name
    steps = [_consumer(Action.NOTE, name, "", one) for one in wanted.doubts]
    missing = [
        one
        for one in wanted.unserved
        if not wanted.consumers or not is_wild(".".join(one.split(".")[:2]))
    ]
    if missing:
        says = f"no stream stores {', '.join(missing)}"
        steps.append(_consumer(Action.CONFLICT, name, "", says))
    for one in wanted.consumers:
        if not wanted.is_shared:
            says = "each process creates its own"
            steps += [_consumer(Action.FINE, spec.name, spec.stream, says) for spec in one.specs]
            continue
        for spec in await _as_they_begin(operators, one):
            found = await _consumer_steps(operators, wanted.handler, spec)
            steps += [replace(step, handler=one.name) for step in found]
    return steps


async def _as_they_begin(operators: Operators, wanted: StreamConsumers) -> tuple[ConsumerSpec, ...]:
    """Let a new bare consumer begin where the main one, which had its events, is at."""
    if wanted.bare is None:
        return wanted.specs
    main = await operators.consumer_info(wanted.stream, wanted.main.name)
    bare = await operators.consumer_info(wanted.stream, wanted.bare.name)
    if main is None or not is_whole(wanted, main, has_bare=bare is not None):
        return wanted.specs
    return (replace(wanted.bare, start_sequence=main.delivered + 1), wanted.main)


async def _consumer_steps(operators: Operators, handler: Handler, spec: ConsumerSpec) -> list[Step]:
    if (bare := await absorbed(spec, operators)) is not None:
        says = refusal(handler, spec, bare)
        return [_consumer(Action.CONFLICT, spec.name, spec.stream, says)]
    info = await operators.consumer_info(spec.stream, spec.name)
    step = plan_consumer(spec, info, narrow=True)
    match step:
        case CreateConsumer():
            return [_consumer(Action.CREATE, spec.name, spec.stream, "missing", step)]
        case RefuseConsumer(reason=reason):
            return [_consumer(Action.CONFLICT, spec.name, spec.stream, reason)]
        case UpdateConsumer(notices=notices):
            assert info is not None
            says = changes_in_words(consumer_changes(spec, info.config))
            action = Action.UPDATE
            if step.only_function:  # for people; a worker writes it when it starts
                says = f"read by {spec.function} now, was {function_of(info.config) or 'not named'}"
                action = Action.LATER
            found = [_consumer(action, spec.name, spec.stream, says, step)]
            notices = tuple(one for one in notices if one.kind is not NoticeKind.UPDATED)
        case _:
            notices = step.notices
            found = [_consumer(Action.FINE, spec.name, spec.stream, "exists")]
    notes = (_consumer(Action.NOTE, spec.name, spec.stream, one.says) for one in notices)
    return [*found, *notes]


def _orphaned(info: ConsumerInfo) -> Step:
    waiting, config = info.num_pending, info.config
    step = _consumer(
        Action.ORPHANED, info.name, info.stream, orphaned_words(info.name, waiting)
    )  # fmt: skip
    return replace(
        step, handler=handler_of(config), function=function_of(config), waiting=waiting
    )  # fmt: skip


def _consumer(
    action: Action, name: str, stream: str, says: str, change: Change | None = None
) -> Step:
    return Step(
        action=action, kind=Kind.CONSUMER, name=name, stream=stream, says=says, change=change
    )


# --- what is ours, too -----------------------------------------------------------------------


async def _our_own(transport: Transport, needs: Needs, standing: list[StreamConfig]) -> list[Step]:
    """Return steps for our own objects. If workers may not create them, they must exist first."""
    settings, operators = needs.settings, transport.operators
    missing = Action.CREATE if settings.provision == "off" else Action.LATER
    names = {config.name for config in standing}
    steps = []
    version = transport.server_version
    features, readers = own_readers(needs.app, needs.handlers, settings, version)
    flags = {flag: on for one in features for flag, on in one.flags.items()}
    own = next((config for config in standing if config.name == OWN_STREAM.name), None)
    if own is None:
        config = {**stream_config(OWN_STREAM, replicas=settings.replicas), **flags}
        steps.append(_stream(missing, OWN_STREAM.name, SENT_BACK, CreateStream(config)))
    elif not all(own.raw.get(flag) for flag in flags):
        change = UpdateStream({**own.raw, **flags})
        says = "to " + ", and to ".join(one.does for one in features)
        steps.append(_stream(missing, OWN_STREAM.name, says, change))
    for spec, says in readers:
        if await operators.consumer_info(spec.stream, spec.name) is None:
            create = CreateConsumer(spec.stream, consumer_config(spec))
            steps.append(_consumer(missing, spec.name, spec.stream, says, create))
    once = any(one.options.exactly_once for one in needs.handlers)
    limited = any(one.options.is_limited for one in needs.handlers)
    for bucket, ttl, is_needed, says in (
        (attempts.BUCKET, attempts.TTL, True, "attempts, across processes"),
        (guards.BUCKET, settings.guard_ttl, once, "exactly_once"),
        (limits.BUCKET, limits.TTL, limited, "rate and limit"),
        (orders.BUCKET, orders.TTL, True, "pauses and scales, with who and why"),
        (marks.BUCKET, marks.LEAST, True, "the states of dead letters"),
    ):
        if is_needed and f"KV_{bucket}" not in names:
            make, says = CreateBucket(bucket, ttl), f"for {says}"
            steps.append(
                Step(action=missing, kind=Kind.BUCKET, name=bucket, says=says, change=make)
            )
    return steps

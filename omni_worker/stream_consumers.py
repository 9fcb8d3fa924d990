"""Stream consumers: a handler's one or two consumers on each stream, chosen by what exists there.

Topology says how they should be (`split`). Here is found out what can be read: an older version's
consumer keeps all filters, and a missing right joins the two.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from .errors import PermissionDenied, TopologyError
from .handler_consumers import (
    consumer_name,
    copies_of,
    copy_spec,
    filters_without,
    planned_consumers,
)
from .handlers import Handler
from .provision import NotProvisioned, Provisioner
from .schemas import SchemaRegistry
from .settings import Settings
from .signals import ConsumersJoined, Signals
from .subjects import filters_for, is_wild
from .topology import (
    SPLIT,
    ConsumerSpec,
    RefuseConsumer,
    StreamConsumers,
    app_of,
    is_whole,
    joined,
    left_to,
    loses_events,
    overlapping,
    plan_consumer,
    short_hash,
    taken_over,
)
from .transports.base import Operators, Transport
from .transports.infos import ConsumerInfo

Version = tuple[int, int, int]


class TakeoverNeeded(TopologyError):
    """Two consumers have to become one, which `plan --recreate` does while no worker runs."""


async def plan_consumers(
    handler: Handler,
    provisioner: Provisioner,
    registry: SchemaRegistry,
    settings: Settings,
    version: Version,
    taken: Collection[str] = (),
) -> Sequence[StreamConsumers]:
    """Return the consumers a handler reads on each stream; streams that copy its types are created.

    Raises TopologyError for what no stream stores. ``taken`` are the consumers of this process.
    """
    copies = copies_of(handler, registry)
    if plain := filters_without(handler, copies):
        literal = bool(handler.types) and not any(is_wild(type) for type in handler.types)
        await provisioner.routes(plain, literal=literal)
    for stream, types in copies.items():
        origin = next(iter(await provisioner.routes(filters_for(types), literal=True)))
        max_age, now = provisioner.max_age(origin), datetime.now(UTC)
        spec = copy_spec(stream, types, handler, origin, max_age=max_age, now=now)
        await provisioner.ensure_copy(spec)
    mark = _process_mark(handler, settings.session, taken)
    standing = provisioner.standing
    return planned_consumers(
        handler, registry, settings, standing, mark=mark, version=version
    ).consumers


def _process_mark(handler: Handler, session: str | None, taken: Collection[str]) -> str:
    """Return the end of a consumer's name that only this process reads.

    In a session the next process continues the last one's, even with other filters; ``taken``
    tells apart a function that is declared twice.
    """
    if session is None:
        return secrets.token_hex(4)
    mark = f"{session}-{short_hash((handler.function,))}"
    is_taken = consumer_name(handler, mark) in taken
    return f"{mark}-{short_hash(handler.filters)}" if is_taken else mark


async def specs_to_read(
    handler: Handler,
    wanted: Iterable[StreamConsumers],
    transport: Transport,
    provisioner: Provisioner,
    signals: Signals,
) -> list[ConsumerSpec]:
    """Choose the consumers to read; the bare ones among them exist when this returns.

    Raises TopologyError if bare subjects cannot be read without losing or repeating events.
    """
    specs: list[ConsumerSpec] = []
    joins: list[ConsumersJoined] = []
    for one in wanted:
        found, cause = await _on_one_stream(handler, one, transport, provisioner)
        specs += found
        if cause is not None:
            names = {"stream": one.stream, "consumer": one.name}
            joins.append(ConsumersJoined(handler=handler, **names, cause=cause))
    for join in joins:  # not before: after an outage the caller asks again
        signals.emit(join)
    return specs


async def _on_one_stream(
    handler: Handler, wanted: StreamConsumers, transport: Transport, provisioner: Provisioner
) -> tuple[tuple[ConsumerSpec, ...], Exception | None]:
    """Return the consumers to read, and why the two are joined, if they are."""
    version = transport.server_version
    if wanted.bare is None:
        _check_filters(wanted.main, version, "order_by needs one consumer")
        if (bare := await absorbed(wanted.main, transport.operators)) is not None:
            raise TakeoverNeeded(refusal(handler, wanted.main, bare))
        return wanted.specs, None
    operators = transport.operators
    main = await operators.consumer_info(wanted.stream, wanted.main.name)
    match plan_consumer(wanted.main, main):
        case RefuseConsumer(reason=reason):  # before a bare one is made for nothing
            raise TopologyError(reason)
    try:
        bare = await operators.consumer_info(wanted.stream, wanted.bare.name)
        if is_whole(wanted, main, has_bare=bare is not None):
            return (joined(wanted),), None
        await provisioner.ensure_consumer(wanted.bare)
    except (PermissionDenied, NotProvisioned) as error:
        _check_joined(wanted, main, version, error)
        return (joined(wanted),), error
    return wanted.specs, None


async def absorbed(spec: ConsumerSpec, operators: Operators) -> ConsumerInfo | None:
    """Return the bare consumer whose events a main one without a bare one is to read as well.

    None where the main one belongs to another app: that is refused whatever it reads.
    """
    main = await operators.consumer_info(spec.stream, spec.name)
    if main is None or app_of(main.config) != spec.app:
        return None
    name = left_to(spec, main)
    if name is None:
        return None  # where there was no split, no right to look at the other one is needed
    bare = await operators.consumer_info(spec.stream, name)
    return bare if bare is not None and taken_over(spec, bare.config) else None


def refusal(handler: Handler, spec: ConsumerSpec, bare: ConsumerInfo) -> str:
    """Say which declaration needs one consumer in place of two, and what makes it."""
    is_ordered = handler.options.order_by is not None
    cause = "order_by=" if is_ordered else ", ".join(map(repr, handler.types or handler.filters))
    return (
        f"{cause} needs one consumer, but {handler.shown} has two on {spec.stream}:"
        f" {spec.name}, and {bare.name} for events without a channel. While no worker runs:"
        f" omni-worker plan MODULE:APP --recreate {spec.name} (it loses nothing, and says what"
        " comes again)"
    )


def _check_filters(spec: ConsumerSpec, version: Version, why: str) -> None:
    """Refuse filters with which this server loses events. Raises TopologyError."""
    overlap = overlapping(spec.filters)
    if overlap is not None and loses_events(version):
        shown = ".".join(map(str, version))
        raise TopologyError(
            f"consumer {spec.name!r} on stream {spec.stream} would have the filters"
            f" {' and '.join(overlap)}, and nats-server {shown} loses events then ({why}):"
            " name a channel, or use nats-server 2.11.3 or newer"
        )


def _check_joined(
    wanted: StreamConsumers, main: ConsumerInfo | None, version: Version, error: Exception
) -> None:
    """Refuse to join where the main consumer leaves the bare subjects to the other one."""
    assert wanted.bare is not None
    if main is not None and SPLIT in main.config.metadata:
        raise TopologyError(
            f"consumer {wanted.bare.name!r} on stream {wanted.stream} cannot be read ({error});"
            f" {wanted.name!r} leaves {', '.join(wanted.bare.filters)} to it"
        ) from error
    _check_filters(joined(wanted), version, f"{wanted.bare.name!r} cannot be read: {error}")

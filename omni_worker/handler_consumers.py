"""Handler consumers: which consumers a handler reads, given the streams that exist. Pure.

The engine binds them, the operators' commands compare them with the server: both ask here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from .handlers import Handler, with_settings
from .schemas import SchemaRegistry
from .settings import Settings
from .subjects import filters_for
from .topology import (
    DAY,
    SEVEN,
    ConsumerSpec,
    StreamSpec,
    queue_consumer_name,
    route,
    unserved,
)
from .transports.infos import StreamConfig

ANY_PROCESS = "*"  # ends the name of a consumer that each process has for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedConsumers:
    """A handler with its consumers, one per stream, and what no stream stores."""

    handler: Handler  # its options filled in from the settings
    is_shared: bool  # else each process has one of its own
    specs: tuple[ConsumerSpec, ...]
    copies: Mapping[str, tuple[str, ...]]  # streams that copy types of their own: the types
    unserved: tuple[str, ...]  # filters
    doubts: tuple[str, ...]  # what its types look like misspellings of, in words


def planned_consumers(
    handler: Handler,
    registry: SchemaRegistry,
    settings: Settings,
    standing: Sequence[StreamConfig],
    *,
    mark: str = ANY_PROCESS,
) -> PlannedConsumers:
    """Plan the consumers a worker reads for this handler; ``mark`` as in `consumer_name`."""
    handler = replace(handler, options=with_settings(handler.options, settings))
    name = consumer_name(handler, mark)
    copies = copies_of(handler, registry)
    plain = filters_without(handler, copies)
    routes = dict(route(plain, standing)) if plain else {}
    for stream, types in copies.items():
        routes[stream] = filters_for(types, handler.channels, handler.instance)
    return PlannedConsumers(
        handler=handler,
        is_shared=is_shared(handler),
        specs=tuple(
            _consumer_spec(handler, name, stream, filters, settings)
            for stream, filters in routes.items()
        ),
        copies=copies,
        unserved=unserved(plain, standing) if plain else (),
        doubts=tuple(misspelt_types(handler, registry)),
    )


def is_shared(handler: Handler) -> bool:
    """Whether processes split its events; else every process sees all of them."""
    return handler.options.durable is not None or handler.options.queue is not None


def consumer_name(handler: Handler, mark: str = ANY_PROCESS) -> str:
    """Name its consumers: the durable, else the queue's, else a process's own with its ``mark``."""
    options = handler.options
    if options.durable is not None:
        return options.durable
    if options.queue is not None:
        return queue_consumer_name(handler.app, options.queue, handler.filters)
    return f"{handler.app}-{handler.short.strip('<>')}-{mark}"


def copies_of(handler: Handler, registry: SchemaRegistry) -> dict[str, tuple[str, ...]]:
    """Map each stream it reads that copies types of its own to these types."""
    copies: dict[str, tuple[str, ...]] = {}
    for type in handler.literal_types:
        schema = registry.get(type)
        if schema is not None and schema.stream is not None:
            copies[schema.stream] = (*copies.get(schema.stream, ()), type)
    return copies


def filters_without(handler: Handler, copies: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Select the filters of the streams that events are stored in: all but those of the copies."""
    if not copies:
        return handler.filters
    copied = {type for types in copies.values() for type in types}
    rest = [type for type in handler.types if type not in copied]
    return filters_for(rest, handler.channels, handler.instance)


def copy_spec(
    stream: str,
    types: Sequence[str],
    handler: Handler,
    origin: str,
    *,
    max_age: float,
    now: datetime,
) -> StreamSpec:
    """The stream that copies these types from the one they are stored in; ``max_age`` is its."""
    is_new = handler.options.start_from == "new"
    return StreamSpec(
        name=stream,
        max_age=max_age or 7 * DAY,
        description=f"Copies of {', '.join(types)} from {origin}",
        source=origin,
        source_filters=filters_for(types),
        source_start=now if is_new else None,
    )


def misspelt_types(handler: Handler, registry: SchemaRegistry) -> list[str]:
    """A line for each unknown type it names that is nearly one that exists.

    No error: another program may publish it, and then it is handled like any other.
    """
    return [
        f"{type} is no event type that is known here; did you mean {near}?"
        for type in handler.literal_types
        if (near := registry.nearest(type)) is not None
    ]


def clash(handler: Handler, other: Handler, registry: SchemaRegistry) -> str | None:
    """Explain why both cannot be handlers of one app; None where they can.

    One consumer feeds one handler: a second would take half of its events away.
    """
    options, others = handler.options, other.options
    if options.durable is not None and options.durable == others.durable:
        if shared := _shared_streams(handler, other, registry):
            return (
                f"durable={options.durable!r} is taken in stream {', '.join(sorted(shared))} by"
                f" {other.function} ({other.where}); for one consumer with several types name them"
                " all in one @app.on"
            )
    elif (
        options.durable is None
        and options.queue is not None
        and others.durable is None
        and (options.queue, handler.filters) == (others.queue, other.filters)
    ):
        return (
            f"queue={options.queue!r} with this pattern is taken by {other.function}"
            f" ({other.where}); they would share one consumer"
        )
    elif handler.name == other.name and _shared_streams(handler, other, registry):
        # Ids of what it publishes and of its dead letters are made of the name.
        return (
            f"{handler.function} with this pattern is declared already ({other.where});"
            " give each a durable= or queue="
        )
    return None


def _shared_streams(handler: Handler, other: Handler, registry: SchemaRegistry) -> set[str]:
    return _streams(handler, registry) & _streams(other, registry)


def _streams(handler: Handler, registry: SchemaRegistry) -> set[str]:
    """Where a handler will read, as far as one can tell without a server."""
    copies = copies_of(handler, registry)
    plain = filters_without(handler, copies)
    # A domain without a stream of ours stands for the foreign one that holds it.
    held = {stream for one in plain for stream in route([one], SEVEN) or {one.split(".", 1)[0]}}
    return held | set(copies)


def _consumer_spec(
    handler: Handler, name: str, stream: str, filters: tuple[str, ...], settings: Settings
) -> ConsumerSpec:
    options = handler.options
    return ConsumerSpec(
        stream=stream,
        name=name,
        app=handler.app,
        filters=filters,
        ack_wait=options.ack_wait or settings.ack_wait,
        start_from=options.start_from,
        queue=options.queue or "",
        durable=options.durable is not None,
        inactive=settings.inactive,
    )

"""Handler consumers: the consumers that a handler reads, given the existing streams. Pure.

The engine binds them; the operators' commands compare them with the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    StreamConsumers,
    StreamSpec,
    bare_name,
    can_pin,
    main_name,
    queue_consumer_name,
    route,
    split,
    unserved,
)
from .transports.infos import StreamConfig
from .validation import never_sent

ANY_PROCESS = "*"  # ends the name of a consumer that each process has for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedConsumers:
    """A handler with its consumers, one per stream, and the filters that no stream stores."""

    handler: Handler  # its options filled in from the settings
    is_shared: bool  # False: each process has a consumer of its own
    consumers: tuple[StreamConsumers, ...]  # one or two for each stream
    copies: Mapping[str, tuple[str, ...]]  # streams that copy types of their own: the types
    unserved: tuple[str, ...]  # filters
    doubts: tuple[str, ...]  # texts about types that look misspelt

    @property
    def specs(self) -> tuple[ConsumerSpec, ...]:
        """All consumers, in the order they are made."""
        return tuple(spec for one in self.consumers for spec in one.specs)

    @property
    def name(self) -> str:
        """Name of the consumers for people; the handler's if no stream stores its events."""
        return self.consumers[0].name if self.consumers else self.handler.name


def planned_consumers(
    handler: Handler,
    registry: SchemaRegistry,
    settings: Settings,
    standing: Sequence[StreamConfig],
    *,
    mark: str = ANY_PROCESS,
    version: tuple[int, int, int] | None = None,
) -> PlannedConsumers:
    """Plan the consumers a worker reads for this handler; ``mark`` as in `consumer_name`.

    ``version`` is the server's, which decides what it can do; None: all there is.
    """
    handler = replace(handler, options=with_settings(handler.options, settings))
    name = consumer_name(handler, mark)
    copies = copies_of(handler, registry)
    plain = filters_without(handler, copies)
    routes = dict(route(plain, standing)) if plain else {}
    bare = route(bare_among(handler, plain), standing)
    for stream, types in copies.items():
        routes[stream] = filters_for(types, handler.channels, handler.instance)
        bare[stream] = bare_among(handler, routes[stream])
    return PlannedConsumers(
        handler=handler,
        is_shared=is_shared(handler),
        consumers=tuple(
            split(
                _consumer_spec(handler, name, stream, filters, settings, version),
                bare.get(stream, ()),
                ordered=handler.options.order_by is not None,
            )
            for stream, filters in routes.items()
        ),
        copies=copies,
        unserved=unserved(plain, standing) if plain else (),
        doubts=tuple(doubts_about(handler, registry)),
    )


def is_shared(handler: Handler) -> bool:
    """Return True if processes share the handler's events; else every process gets all of them."""
    return handler.options.durable is not None or handler.options.queue is not None


def shown_consumers(handler: Handler, sources: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Name the consumers that are read, as pairs of stream and name, for people: each pair once.

    A bare consumer has the main one's name.
    """
    durable = handler.options.durable
    return list(dict.fromkeys((stream, main_name(name, durable)) for stream, name in sources))


def consumer_name(handler: Handler, mark: str = ANY_PROCESS) -> str:
    """Name a handler's consumers: durable, else from the queue, else a process's own ``mark``."""
    options = handler.options
    if options.durable is not None:
        return options.durable
    if options.queue is not None:
        return queue_consumer_name(handler.app, options.queue, handler.filters)
    return f"{handler.app}-{handler.short.strip('<>')}-{mark}"


def bare_among(handler: Handler, filters: Sequence[str]) -> tuple[str, ...]:
    """Return the bare subjects among a handler's filters: types without channel and instance."""
    if handler.channels or handler.instance is not None:
        return ()
    return tuple(one for one in filters if one in handler.types and not one.endswith(">"))


def copies_of(handler: Handler, registry: SchemaRegistry) -> dict[str, tuple[str, ...]]:
    """Map each stream that copies some of the handler's types to these types."""
    copies: dict[str, tuple[str, ...]] = {}
    for type in handler.literal_types:
        schema = registry.get(type)
        if schema is not None and schema.stream is not None:
            copies[schema.stream] = (*copies.get(schema.stream, ()), type)
    return copies


def filters_without(handler: Handler, copies: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the filters without those of the copies: they are read where events are stored."""
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
    """Return the stream that copies these types from ``origin``, which has this ``max_age``."""
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
    """Return a line for each type of the handler that is probably meant otherwise."""
    lines = []
    for type in handler.literal_types:
        if (doubt := registry.doubt(type)) is not None:
            if (registry.nearest(type) or "").startswith("custom."):
                doubt += f" If another program publishes it: registry.extend({type!r})"
            lines.append(doubt)
    return lines


def doubts_about(handler: Handler, registry: SchemaRegistry) -> list[str]:
    """Return a line for all that is probably meant otherwise: types, and the payload's model."""
    return [*misspelt_types(handler, registry), *_unfit_models(handler, registry)]


def _unfit_models(handler: Handler, registry: SchemaRegistry) -> Iterator[str]:
    payload = handler.model.model_fields["payload"].annotation
    for type in handler.literal_types:
        schema = registry.get(type)
        if schema is None or schema.model is None:
            continue
        if keys := never_sent(payload, schema.model):
            yield (
                f"{type} is registered with {schema.model.__name__}, which has no"
                f" {' and no '.join(keys[:3])}: without it, no event fits the handler's"
                f" {getattr(payload, '__name__', payload)}, and each becomes a dead letter"
            )


def clash(handler: Handler, other: Handler, registry: SchemaRegistry) -> str | None:
    """Explain why two handlers cannot belong to one app; None if they can.

    One consumer feeds one handler: a second would take half of its events away.
    """
    if (why := _bare_clash(handler, other) or _bare_clash(other, handler)) is not None:
        return why
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
        # The ids of its published events and of its dead letters are derived from the name.
        return (
            f"{handler.function} with this pattern is declared already ({other.where});"
            " give each a durable= or queue="
        )
    return None


def _bare_clash(handler: Handler, other: Handler) -> str | None:
    durable = handler.options.durable
    if durable is None or other.options.durable != bare_name(durable):
        return None
    return (
        f"durable={bare_name(durable)!r} at {other.where} is kept for the second consumer of"
        f" {handler.function} ({handler.where}), whose durable is {durable!r}; choose another name"
    )


def _shared_streams(handler: Handler, other: Handler, registry: SchemaRegistry) -> set[str]:
    return _streams(handler, registry) & _streams(other, registry)


def _streams(handler: Handler, registry: SchemaRegistry) -> set[str]:
    """Return the streams a handler will read, as far as is known without a server."""
    copies = copies_of(handler, registry)
    plain = filters_without(handler, copies)
    # Where a domain has no stream of ours, its name represents the foreign stream that holds it.
    held = {stream for one in plain for stream in route([one], SEVEN) or {one.split(".", 1)[0]}}
    return held | set(copies)


def _consumer_spec(
    handler: Handler,
    name: str,
    stream: str,
    filters: tuple[str, ...],
    settings: Settings,
    version: tuple[int, int, int] | None,
) -> ConsumerSpec:
    options, can = handler.options, version is None or can_pin(version)
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
        handler=name,
        function=handler.short,
        pattern=handler.filters,
        one_active=can and is_shared(handler) and handler.one_active,
    )

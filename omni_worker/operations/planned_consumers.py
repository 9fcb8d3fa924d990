"""Wanted: the consumers an app's handlers read, given the streams that stand. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..binding import (
    consumer_name,
    consumer_spec,
    copied_types,
    filters_without,
    is_shared,
    misspelt_types,
)
from ..handlers import Handler, with_settings
from ..schemas import SchemaRegistry
from ..settings import Settings
from ..subjects import filters_for
from ..topology import ConsumerSpec, route, unserved
from ..transports.infos import StreamConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedConsumers:
    """A handler with its consumers, one per stream, and what no stream stores."""

    handler: Handler  # its options filled in from the settings
    is_shared: bool  # else each process has one of its own, under a name made up
    specs: tuple[ConsumerSpec, ...]
    copies: Mapping[str, tuple[str, ...]]  # streams that copy types of their own: the types
    unserved: tuple[str, ...]  # filters
    doubts: tuple[str, ...]  # what its types look like misspellings of, in words


def wanted_consumers(
    handler: Handler,
    registry: SchemaRegistry,
    settings: Settings,
    standing: Sequence[StreamConfig],
) -> WantedConsumers:
    """What a worker would read for this handler."""
    handler = replace(handler, options=with_settings(handler.options, settings))
    name = consumer_name(handler, session="")
    if not is_shared(handler):
        name = f"{handler.app}-{handler.short.strip('<>')}-*"
    copies: dict[str, tuple[str, ...]] = {}
    for type, stream in copied_types(handler, registry).items():
        copies[stream] = (*copies.get(stream, ()), type)
    plain = filters_without(handler, copied_types(handler, registry))
    routes = dict(route(plain, standing)) if plain else {}
    for stream, types in copies.items():
        routes[stream] = filters_for(types, handler.channels, handler.instance)
    return WantedConsumers(
        handler=handler,
        is_shared=is_shared(handler),
        specs=tuple(
            consumer_spec(handler, name, stream, filters, settings)
            for stream, filters in routes.items()
        ),
        copies=copies,
        unserved=unserved(plain, standing) if plain else (),
        doubts=tuple(misspelt_types(handler, registry)),
    )

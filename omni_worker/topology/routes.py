"""Routes: which streams hold the events of a handler's filters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..subjects import covers, fold, intersection, is_wild
from ..transports.infos import StreamConfig, read_stream_config
from .stored import Part, is_read, stored
from .streams import STREAMS, StreamSpec, stream_config


def holds_events(config: StreamConfig) -> bool:
    """Return True if this stream holds events: not a bucket, the server's, our own or a copy."""
    # A copy has no subjects; a stream that also takes events has its own.
    return bool(config.subjects) and is_read(config)


def route(filters: Iterable[str], standing: Iterable[StreamConfig]) -> dict[str, tuple[str, ...]]:
    """Map the streams that hold these filters' events to the filters narrowed to each stream.

    The server silently accepts a filter outside a stream and never delivers, so such filters are
    left out. Of a copy only that is read which no other stream of the server has.
    """
    wanted, streams = tuple(filters), tuple(standing)
    routes: dict[str, tuple[str, ...]] = {}
    for config in streams:
        shared = fold(
            both
            for part in _readable(config, streams)
            if not part.is_read_already(wanted)
            for want in wanted
            if (both := _shared(config, part, want)) is not None
        )
        if shared:
            routes[config.name] = shared
    return routes


def unknown_copies(filters: Iterable[str], standing: Iterable[StreamConfig]) -> tuple[str, ...]:
    """Name the copies that may store these filters' events and are not read, with the reason."""
    wanted, streams = tuple(filters), tuple(standing)
    return tuple(
        f"stream {config.name} is a copy of a stream that is not on this server, so what it stores"
        " is not known: name the event types, or give the copy a filter"
        for config in streams
        if any(not part.is_known for part in _readable(config, streams))
        and any(
            intersection(want, home) is not None and not _names(want, home)
            for home in _homes(config.name)
            for want in wanted
        )
    )


def _readable(config: StreamConfig, standing: Iterable[StreamConfig]) -> tuple[Part, ...]:
    return stored(config, standing) if is_read(config) else ()


def _shared(config: StreamConfig, part: Part, want: str) -> str | None:
    if part.is_known:
        return intersection(part.subject, want)
    # By its name it is the home of this very type: no other stream can be meant.
    return want if any(_names(want, home) for home in _homes(config.name)) else None


def _homes(name: str) -> tuple[str, ...]:
    return next((spec.subjects for spec in STREAMS if spec.name == name), ())


def _names(want: str, home: str) -> bool:
    """Return True if a filter names one type of a stream that has these subjects."""
    return covers(home, want) and not is_wild(_type_part(want))


def would_store(spec: StreamSpec, filters: Iterable[str]) -> bool:
    """Return True if a stream created from this spec would hold some of these filters' events."""
    return bool(route(filters, [read_stream_config(stream_config(spec, replicas=1))]))


def unserved(filters: Iterable[str], standing: Sequence[StreamConfig]) -> tuple[str, ...]:
    """Return the filters that no stream stores, or that a single stream stores only in part."""
    missing = []
    for want in filters:
        holding = [
            shared
            for config in standing
            if (
                shared := [
                    both
                    for part in _readable(config, standing)
                    if (both := _shared(config, part, want)) is not None
                ]
            )
        ]
        whole = any(covers(both, want) for shared in holding for both in shared)
        # Several streams that each store a part of a filter are read together; a wildcard of the
        # user's matches whatever exists.
        if not holding or not (whole or len(holding) > 1 or is_wild(_type_part(want))):
            missing.append(want)
    return tuple(missing)


def _type_part(filter: str) -> str:
    return ".".join(filter.split(".")[:2])

"""Split: a handler's consumers on one stream, `r1` for addressed events and `r1-bare`. Pure.

`t` and `t.>` in one consumer make each delivery slow for the server, and some servers lose events
(nats-server#6824). So the bare subjects have a consumer of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..subjects import covers, fold, intersection
from ..transports.infos import ConsumerConfig, ConsumerInfo
from .additions import ENDING, late_name
from .consumers import ConsumerSpec, filter_fields
from .tags import SPLIT

BARE = "-bare"  # ends the name of the consumer with the bare subjects
LOSING = ((2, 10, 26), (2, 11, 0), (2, 11, 1))  # versions with nats-server#6824


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConsumers:
    """A handler's consumers on one stream: ``main``, and ``bare`` if it has bare subjects apart."""

    main: ConsumerSpec
    bare: ConsumerSpec | None = None

    @property
    def stream(self) -> str:
        """Stream that both read."""
        return self.main.stream

    @property
    def name(self) -> str:
        """Name of the two for people: the main consumer's."""
        return self.main.name

    @property
    def specs(self) -> tuple[ConsumerSpec, ...]:
        """The consumers in the order they are made: a bare event is never missed in between."""
        return (self.main,) if self.bare is None else (self.bare, self.main)

    @property
    def filters(self) -> tuple[str, ...]:
        """All filters of the two, sorted."""
        return tuple(sorted(one for spec in self.specs for one in spec.filters))


def split(spec: ConsumerSpec, bare: Collection[str], *, ordered: bool) -> StreamConsumers:
    """Split one consumer with all filters of a handler; ``bare`` are those of bare subjects.

    With ``order_by`` there is no split: two consumers have no common order. Nor where the stream
    stores only one of the two kinds.
    """
    filters = fold(spec.filters)
    apart = tuple(one for one in filters if one in bare)
    rest = tuple(one for one in filters if one not in bare)
    if ordered or not apart or not rest:
        return StreamConsumers(main=replace(spec, filters=filters))
    name = bare_name(spec.name)
    return StreamConsumers(
        main=replace(spec, filters=rest, split=name),
        bare=replace(spec, name=name, filters=apart),
    )


def joined(consumers: StreamConsumers) -> ConsumerSpec:
    """Return the one consumer with all filters, for where it cannot be split."""
    return replace(consumers.main, filters=fold(consumers.filters), split="")


def bare_name(name: str) -> str:
    """Name the consumer with the bare subjects that belongs to the consumer ``name``."""
    return name + BARE


def holds_bare(consumers: StreamConsumers, config: ConsumerConfig) -> bool:
    """Return True if a consumer delivers events that the split leaves to the bare one."""
    if consumers.bare is None:
        return False
    if not config.filters:  # no filter is every subject
        return True
    return any(
        intersection(has, bare) is not None
        for has in config.filters
        for bare in consumers.bare.filters
    )


def is_whole(consumers: StreamConsumers, main: ConsumerInfo | None, *, has_bare: bool) -> bool:
    """Return True if the main consumer, as it exists, keeps all filters for now.

    That is one of an older version: it delivered the bare events, so a bare consumer made beside
    it would deliver them again.
    """
    return main is not None and not has_bare and holds_bare(consumers, main.config)


def left_to(spec: ConsumerSpec, info: ConsumerInfo) -> str | None:
    """Name the bare consumer of an existing main one, where ``spec`` needs none any longer."""
    name = bare_name(spec.name)
    return name if not spec.split and info.config.metadata.get(SPLIT) == name else None


def taken_over(spec: ConsumerSpec, bare: ConsumerConfig) -> tuple[str, ...]:
    """Return the filters of a bare consumer whose events the main one is to read from now on."""
    return tuple(
        has
        for has in bare.filters
        if any(intersection(has, want) is not None for want in spec.filters)
    )


def narrowed(spec: ConsumerSpec, config: ConsumerConfig) -> dict[str, Any]:
    """Return a consumer's configuration with the filters of ``spec``; all else is kept."""
    kept = {key: value for key, value in config.raw.items() if not key.startswith("filter_")}
    split = {SPLIT: spec.split} if spec.split else {}
    return {**kept, **filter_fields(spec.filters), "metadata": {**config.metadata, **split}}


def main_name(consumer: str, durable: str | None) -> str:
    """Return the name that a handler's consumers have for people, given the name of one of them.

    Without a durable, our names never end like a bare one's.
    """
    if durable is not None:
        bare = bare_name(durable)
        if consumer not in (bare, late_name(durable), late_name(bare)):
            return consumer
    return consumer.removesuffix(ENDING).removesuffix(BARE)


def overlapping(filters: Iterable[str]) -> tuple[str, str] | None:
    """Return the first bare subject `t` with its `t.>` among the filters of one consumer."""
    known = sorted(filters)
    for one in known:
        for other in known:
            if other.endswith(".>") and one != other and covers(f"{one}.>", other):
                return one, other
    return None


def loses_events(version: tuple[int, int, int]) -> bool:
    """Return True if a server loses events of a consumer with both `t` and `t.>`."""
    return version in LOSING

"""Additions: subjects that are added to a stream while a consumer reads it. Pure.

A consumer whose filters are widened has passed events of the new subjects: those stored between
the addition and the update. A second consumer, `r1-late`, reads exactly these, and is then removed:
from the last sequence seen before the addition, up to where the first one was when it was widened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..subjects import covers, fold, matches
from ..transports.infos import ConsumerConfig, ConsumerInfo
from .consumers import ConsumerSpec, CreateConsumer, consumer_config, filter_fields
from .streams import TAG, Config
from .tags import BUT, app_of

ENDING = "-late"  # of the second consumer's name
LATE = TAG + "late"  # in the tag of the first one: there is, or was, a second one
BY = TAG + "by"  # in the tag of the second one: the process that created it
UNTIL = TAG + "until"  # in the tag of the second one: the last sequence that it reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """Events that a consumer passed before it was widened; those of ``but`` it delivered."""

    until: int
    but: tuple[str, ...]

    def holds(self, sequence: int, subject: str) -> bool:
        """Return True if the first consumer did not and does not deliver this event."""
        return sequence <= self.until and not any(matches(one, subject) for one in self.but)


def late_name(name: str) -> str:
    """Name the consumer that reads what the consumer ``name`` has passed."""
    return name + ENDING


def uncovered(filters: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return the wanted filters that are not within the existing ones."""
    known = tuple(filters)
    return tuple(want for want in wanted if not any(covers(has, want) for has in known))


def late_consumer(spec: ConsumerSpec, config: ConsumerConfig, start: int) -> ConsumerSpec:
    """Return the consumer of what an existing one passes when it is widened to ``spec``."""
    return replace(
        spec,
        name=late_name(spec.name),
        filters=uncovered(config.filters, spec.filters),
        split="",
        one_active=False,
        start_sequence=start,
        but=config.filters,
        ack_wait=config.ack_wait,  # leases follow the first one's, also where others edited it
    )


def claim(late: ConsumerSpec, by: str) -> CreateConsumer:
    """Create a late consumer for one process only: a second one's differs, and is refused."""
    config = consumer_config(late)
    return CreateConsumer(late.stream, {**config, "metadata": {**config["metadata"], BY: by}})


def widened(config: ConsumerConfig, filters: Iterable[str]) -> dict[str, Any]:
    """Return a consumer's configuration with these filters in addition, and the tag for it."""
    kept = {key: value for key, value in config.raw.items() if not key.startswith("filter_")}
    fields = filter_fields(fold([*config.filters, *filters]))
    return {**kept, **fields, "metadata": {**config.metadata, LATE: "yes"}}


def with_until(config: ConsumerConfig, sequence: int) -> dict[str, Any]:
    """Return a late consumer's configuration with the last sequence that it reads."""
    return {**config.raw, "metadata": {**config.metadata, UNTIL: str(sequence)}}


def passed(config: ConsumerConfig) -> Passed | None:
    """Return what a late consumer reads; None if that is not known yet."""
    until = config.metadata.get(UNTIL, "")
    if not until.isdecimal():
        return None
    return Passed(until=int(until), but=but_of(config))


def but_of(config: ConsumerConfig) -> tuple[str, ...]:
    """Return the filters that the first consumer had when it was widened."""
    return tuple(config.metadata.get(BUT, "").split())


def is_read_up(info: ConsumerInfo, what: Passed) -> bool:
    """Return True if a late consumer has delivered all it is for, and all is settled."""
    is_delivered = not info.num_pending or info.delivered >= what.until
    return is_delivered and not info.num_ack_pending


def has_late(config: ConsumerConfig) -> bool:
    """Return True if another consumer reads what this one passed."""
    return LATE in config.metadata


def with_late(config: Config) -> dict[str, Any]:
    """Return a consumer's configuration with the tag that another one reads what it passed."""
    return {**config, "metadata": {**(config.get("metadata") or {}), LATE: "yes"}}


def belongs_to(late: ConsumerConfig, main: ConsumerConfig) -> bool:
    """Return True if a late consumer reads what the other one passed when it was widened.

    The other one may have been recreated, without the tag. Before it is widened it will deliver
    itself what comes until then: only the process that widens it knows the end.
    """
    if not is_late(late) or app_of(late) != app_of(main):
        return False
    return passed(late) is not None or not uncovered(main.filters, late.filters)


def without_late(config: ConsumerConfig) -> dict[str, Any]:
    """Return a consumer's configuration once all that it passed is read."""
    metadata = {key: value for key, value in config.metadata.items() if key != LATE}
    return {**config.raw, "metadata": metadata}


def is_late(config: ConsumerConfig) -> bool:
    """Return True for a consumer of what another one passed."""
    return BUT in config.metadata

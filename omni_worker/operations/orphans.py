"""Orphans: consumers of ours that stay on the server, and those that no handler reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..handler_consumers import PlannedConsumers
from ..topology import (
    NANO,
    ConsumerSpec,
    app_of,
    app_reader,
    handler_of,
    has_late,
    is_late,
    late_name,
    left_to,
    taken_over,
)
from ..transports.base import Operators
from ..transports.infos import ConsumerInfo, StreamConfig
from ..transports.timestamps import iso, nanoseconds


async def lasting_consumers(
    operators: Operators, standing: Sequence[StreamConfig]
) -> list[ConsumerInfo]:
    """Return every consumer of ours that stays until it is deleted, by stream and name."""
    names = sorted(
        one.name
        for one in standing
        if not one.name.startswith(("KV_", "OBJ_")) and one.name.isprintable()
    )
    found = await asyncio.gather(*map(operators.consumers, names))
    return [
        info
        for some in found
        for info in sorted(some, key=lambda one: one.name)
        if app_of(info.config) is not None and not info.config.inactive_threshold
    ]


async def orphans(
    operators: Operators,
    app: str,
    standing: Sequence[StreamConfig],
    wanted: Sequence[PlannedConsumers],
) -> list[ConsumerInfo]:
    """Find consumers of this app that no handler reads: of an older version or another module."""
    specs = {(spec.stream, spec.name): spec for one in wanted for spec in one.specs}
    found = await lasting_consumers(operators, standing)
    known = {*specs, *_to_take_over(specs, {(one.stream, one.name): one for one in found})}
    late = {
        (info.stream, late_name(info.name))
        for info in found
        if has_late(info.config) and (info.stream, info.name) in known
    }
    return [
        info
        for info in found
        if app_of(info.config) == app
        and app_reader(info) is None
        and (info.stream, info.name) not in known
        and not (is_late(info.config) and (info.stream, info.name) in late)
    ]


def _to_take_over(
    specs: Mapping[tuple[str, str], ConsumerSpec], found: Mapping[tuple[str, str], ConsumerInfo]
) -> Iterator[tuple[str, str]]:
    """Find bare consumers whose events a handler still reads: its other one takes them over."""
    for (stream, name), spec in specs.items():
        main = found.get((stream, name))
        bare = None if main is None else found.get((stream, left_to(spec, main) or ""))
        if bare is not None and taken_over(spec, bare.config):
            yield stream, bare.name


def last_delivery(info: ConsumerInfo) -> datetime | None:
    """Return when a consumer delivered last, by the server's clock; None if it never did."""
    text = (info.raw.get("delivered") or {}).get("last_active")
    return None if not text else datetime.fromtimestamp(nanoseconds(text) / NANO, UTC)


def as_json(info: ConsumerInfo) -> dict[str, Any]:
    """Write a consumer for programs."""
    return {
        "stream": info.stream,
        "consumer": info.name,
        "handler": handler_of(info.config),
        "app": app_of(info.config),
        "waiting": info.num_pending,
        "unacked": info.num_ack_pending,
        "pulls": info.num_waiting,
        "lastDelivery": iso(last_delivery(info)),
    }

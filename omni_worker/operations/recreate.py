"""Recreate a durable consumer at its ack floor, for changes that the server does not allow.

A consumer that from now on reads what a bare one has takes over from it: it begins where the first
of the two is, and the bare one is deleted.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import TopologyError
from ..notes import attempts
from ..positions import Position, Positions
from ..stream_consumers import absorbed
from ..topology import (
    ConsumerSpec,
    CreateConsumer,
    app_of,
    consumer_config,
    has_late,
    late_name,
    with_late,
)
from ..transports.base import Transport
from ..transports.infos import ConsumerInfo
from ..writes import write_consumer
from .scan import Scan
from .status import first_unsettled_message


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaking:
    """Effects of recreating a consumer, counted; ``config`` is the new consumer's."""

    spec: ConsumerSpec
    start: int  # sequence
    waiting: int  # not delivered yet
    unacked: int  # delivered, not acknowledged: repeated in any case
    repeated: int  # acknowledged above the ack floor: repeated because of the recreation
    config: Mapping[str, Any]
    absorbs: str = ""  # the bare consumer that it takes over from


async def look_at_remaking(transport: Transport, spec: ConsumerSpec) -> Remaking:
    """Count repeated events. Raises TopologyError if the consumer is in use or not ours."""
    where = f"consumer {spec.name!r} on stream {spec.stream}"
    info = await transport.operators.consumer_info(spec.stream, spec.name)
    if info is None:
        raise TopologyError(f"{where} does not exist: plan --apply creates it")
    _require_ours(spec, info)
    bare = await absorbed(spec, transport.operators)
    for one in (info,) if bare is None else (info, bare):
        _require_ours(spec, one)
        if one.num_waiting:
            raise TopologyError(
                f"consumer {one.name!r} on stream {spec.stream} is read right now"
                f" ({one.num_waiting} pulls wait): stop its workers first"
            )
    if bare is not None:
        return await _taking_over(transport, spec, info, bare)
    delivered = await _delivered_after(transport, info, info.ack_floor)
    start = info.ack_floor + 1
    config = consumer_config(replace(spec, start_sequence=start))
    return Remaking(
        spec=spec,
        start=start,
        waiting=info.num_pending,
        unacked=info.num_ack_pending,
        repeated=max(0, delivered - info.num_ack_pending),
        config=with_late(config) if has_late(info.config) else config,
    )


def _require_ours(spec: ConsumerSpec, info: ConsumerInfo) -> None:
    owner = app_of(info.config)
    if owner != spec.app:
        whose = f"the app {owner!r}" if owner else "another program"
        raise TopologyError(
            f"consumer {info.name!r} on stream {spec.stream} belongs to {whose};"
            f" this is {spec.app!r}"
        )


async def _taking_over(
    transport: Transport, spec: ConsumerSpec, info: ConsumerInfo, bare: ConsumerInfo
) -> Remaking:
    """Begin where the first unsettled event of the two is: neither says how far it has looked."""
    both, operators = (info, bare), transport.operators
    for one in both:
        if has_late(one.config):
            raise TopologyError(
                f"consumer {late_name(one.name)!r} on stream {spec.stream} has events of new"
                " subjects: run the version before until it is gone, then try again"
            )
    stream = await operators.stream_info(spec.stream)
    end = 0 if stream is None else stream.state.last_sequence
    # Read after the end: an event that is stored in between is behind the start in any case.
    found = [await first_unsettled_message(operators, one) for one in both]
    start = min([end + 1, *(one.sequence for one in found if one is not None)])
    delivered = sum([await _delivered_after(transport, one, start - 1) for one in both])
    unacked = sum(one.num_ack_pending for one in both)
    return Remaking(
        spec=spec,
        start=start,
        waiting=sum(one.num_pending for one in both),
        unacked=unacked,
        repeated=max(0, delivered - unacked),
        config=consumer_config(replace(spec, start_sequence=start)),
        absorbs=bare.name,
    )


async def remake(transport: Transport, remaking: Remaking) -> None:
    """Delete the consumer and create it again. An error names what to finish by hand.

    A process that is killed in between leaves a note: the next worker creates it at that place.
    """
    spec = remaking.spec
    positions = Positions(partial(transport.bucket, attempts.BUCKET, ttl=attempts.TTL))
    stream = await transport.operators.stream_info(spec.stream)
    if stream is not None:
        start, created = remaking.start, stream.created
        # An origin of its own: nothing that was settled is to be recognised in the new consumer.
        origin = f"recreated-{secrets.token_hex(8)}"
        left = Position(start=start, end=start - 1, origin=origin, stream_created=created)
        await positions.keep(spec.stream, spec.name, left)
    for name in (spec.name, remaking.absorbs):
        if name:
            await transport.operators.delete_consumer(spec.stream, name)
    try:
        await write_consumer(transport.operators, CreateConsumer(spec.stream, remaking.config))
    except Exception as error:
        raise TopologyError(
            f"consumer {spec.name!r} on {spec.stream} is deleted and could not be recreated"
            f" ({error}); create it with deliver_policy by_start_sequence {remaking.start}"
        ) from error
    await positions.drop(spec.stream, spec.name)


async def _delivered_after(transport: Transport, info: ConsumerInfo, after: int) -> int:
    """Count a consumer's events after a sequence that it has delivered."""
    if info.delivered <= after:
        return 0
    filters = info.config.filters
    async with Scan(transport, info.stream, filters=filters, follow=True, after=after) as scan:
        return max(0, scan.total - info.num_pending)


def as_json(remaking: Remaking) -> dict[str, Any]:
    """Return the effects of recreating, for programs."""
    return {
        "stream": remaking.spec.stream,
        "consumer": remaking.spec.name,
        "start": remaking.start,
        "waiting": remaking.waiting,
        "unacked": remaking.unacked,
        "repeated": remaking.repeated,
        "takesOver": remaking.absorbs or None,
    }

"""Recreate a durable consumer at its ack floor, for changes that the server does not allow."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import TopologyError
from ..notes import attempts
from ..positions import Position, Positions
from ..topology import ConsumerSpec, CreateConsumer, app_of, consumer_config, has_late, with_late
from ..transports.base import Transport
from ..transports.infos import ConsumerInfo
from ..writes import write_consumer
from .scan import Scan


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaking:
    """Effects of recreating a consumer, counted; ``config`` is the new consumer's."""

    spec: ConsumerSpec
    start: int  # sequence
    waiting: int  # not delivered yet
    unacked: int  # delivered, not acknowledged: repeated in any case
    repeated: int  # acknowledged above the ack floor: repeated because of the recreation
    config: Mapping[str, Any]


async def look_at_remaking(transport: Transport, spec: ConsumerSpec) -> Remaking:
    """Count repeated events. Raises TopologyError if the consumer is in use or not ours."""
    where = f"consumer {spec.name!r} on stream {spec.stream}"
    info = await transport.operators.consumer_info(spec.stream, spec.name)
    if info is None:
        raise TopologyError(f"{where} does not exist: plan --apply creates it")
    owner = app_of(info.config)
    if owner != spec.app:
        whose = f"the app {owner!r}" if owner else "another program"
        raise TopologyError(f"{where} belongs to {whose}; this is {spec.app!r}")
    if info.num_waiting:
        raise TopologyError(
            f"{where} is read right now ({info.num_waiting} pulls wait): stop its workers first"
        )
    delivered = await _delivered_above_floor(transport, info)
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
    await transport.operators.delete_consumer(spec.stream, spec.name)
    try:
        await write_consumer(transport.operators, CreateConsumer(spec.stream, remaking.config))
    except Exception as error:
        raise TopologyError(
            f"consumer {spec.name!r} on {spec.stream} is deleted and could not be recreated"
            f" ({error}); create it with deliver_policy by_start_sequence {remaking.start}"
        ) from error
    await positions.drop(spec.stream, spec.name)


async def _delivered_above_floor(transport: Transport, info: ConsumerInfo) -> int:
    """Count a consumer's deliveries after its ack floor."""
    floor, filters = info.ack_floor, info.config.filters
    if info.delivered <= floor:
        return 0
    async with Scan(transport, info.stream, filters=filters, follow=True, after=floor) as after:
        return max(0, after.total - info.num_pending)


def as_json(remaking: Remaking) -> dict[str, Any]:
    """Return the effects of recreating, for programs."""
    return {
        "stream": remaking.spec.stream,
        "consumer": remaking.spec.name,
        "start": remaking.start,
        "waiting": remaking.waiting,
        "unacked": remaking.unacked,
        "repeated": remaking.repeated,
    }

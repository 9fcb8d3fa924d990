"""Waiting retries: events that the server's schedules keep until their long retry is due."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from ..errors import PermissionDenied
from ..schedules.retries import (
    WaitingRetry,
    again_consumer,
    due_filter,
    read_stored,
    waiting_filter,
)
from ..topology import NANO, OWN_STREAM
from ..transports.base import Operators, Transport
from ..transports.infos import ConsumerInfo
from .scan import SCAN, Scan

UNUSED = 5.0  # seconds until the server removes a throw-away consumer that we could not


async def any_waits(operators: Operators) -> bool:
    """Tell whether any app has a retry that waits in a schedule."""
    if await operators.stream_info(OWN_STREAM.name) is None:
        return False
    return await operators.next_message(OWN_STREAM.name, 1, waiting_filter("*")) is not None


async def count_waiting(operators: Operators, app: str, handler: str, stream: str) -> int:
    """Count the retries of a handler that wait; 0 without the right to count."""
    filters = (waiting_filter(app, handler, stream),)
    try:
        found = await throw_away(operators, OWN_STREAM.name, filters, {"deliver_policy": "all"})
    except PermissionDenied:
        return 0
    return found.num_pending


async def unsettled(
    transport: Transport, app: str, handler: str, stream: str
) -> list[WaitingRetry]:
    """Return the retries of a handler that wait, and those that were due and may be unsettled.

    Of the latter at most as many as their consumer has unsettled.
    """
    operators = transport.operators
    if await operators.stream_info(OWN_STREAM.name) is None:
        return []
    waiting = await _read(transport, waiting_filter(app, handler, stream))
    again = again_consumer(app)
    info = await operators.consumer_info(again.stream, again.name)
    left = 0 if info is None else info.num_pending + info.num_ack_pending
    if info is None or not left:
        return waiting
    due = await _read(transport, due_filter(app, handler, stream), info.ack_floor + 1)
    return waiting + due[-left:]


async def throw_away(
    operators: Operators, stream: str, filters: Sequence[str], start: dict[str, Any]
) -> ConsumerInfo:
    """Create a consumer and delete it: what it has pending is how many messages match."""
    config: dict[str, Any] = {
        "name": f"{SCAN}{secrets.token_hex(4)}",
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(UNUSED * NANO),
        **start,
    }
    if len(filters) == 1:
        config["filter_subject"] = filters[0]
    elif filters:
        config["filter_subjects"] = list(filters)
    info = await operators.create_consumer(stream, config)
    await operators.delete_consumer(stream, info.name)
    return info


async def _read(transport: Transport, filter: str, first: int = 1) -> list[WaitingRetry]:
    info = await transport.operators.stream_info(OWN_STREAM.name)
    last = 0 if info is None else info.state.last_sequence
    if last < first:
        return []
    scan = Scan(transport, OWN_STREAM.name, filters=(filter,), between=(first, last))
    async with scan as messages:
        return [retry async for one in messages if (retry := read_stored(one)) is not None]

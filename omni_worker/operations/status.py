"""Status: pending, unacknowledged and redelivered events of each consumer, from the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from ..errors import PermissionDenied, TransportError
from ..handler_consumers import PlannedConsumers
from ..letters.read import stored_time
from ..steering.orders import STREAM as ORDERS
from ..steering.orders import (
    PauseOrder,
    ScaleOrder,
    pause_json,
    read_scales,
    scale_json,
)
from ..steering.pauses import known_pause
from ..topology import (
    OWN_STREAM,
    ConsumerSpec,
    app_of,
    app_readers,
    function_of,
    handler_of,
    holds_events,
    is_pinned,
)
from ..transports.base import Operators, StoredMessage, Transport
from ..transports.infos import ConsumerInfo
from ..transports.timestamps import iso
from .processes import processes
from .scan import SCAN
from .turns import Turn, added, with_processes
from .turns import as_json as turn_json
from .waiting_retries import any_waits, count_waiting

_Functions = dict[tuple[str, str], str]  # of consumers, by stream and name
_Missing = list[tuple[ConsumerSpec, str]]  # consumers with the functions of their handlers


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStatus:
    """A consumer. If not ``exists``, a handler needs it and it is not created yet."""

    stream: str
    name: str
    handler: str = ""  # the name it has for people: a bare consumer has its main one's
    app: str | None = None  # its owner; None if another program created it
    function: str = ""  # of the handler that reads it
    exists: bool = True
    waiting: int = 0  # stored and not delivered yet
    unacked: int = 0  # delivered and not answered yet, waiting for a retry among them
    redelivered: int = 0  # of these, the ones delivered more than once
    long_retries: int = 0  # not among these: schedules keep them until they are due
    pulls: int = 0  # requests of workers that wait for events
    oldest: datetime | None = None  # when the first unsettled event was stored
    filters: tuple[str, ...] = ()
    ack_wait: float = 0.0  # seconds
    max_ack_pending: int = -1
    deliveries: int = 0  # since it was created, repeated ones among them
    created: int = 0  # epoch nanoseconds
    max_deliver: int = -1
    turn: Turn | None = None  # of the processes that read it one is served at a time
    is_paused: bool = False  # by an operator, on the server: nothing is delivered
    pause: PauseOrder | None = None  # who paused it, if by a command of ours
    scale: ScaleOrder | None = None  # the concurrency ordered in place of the declared one

    @property
    def is_unasked(self) -> bool:
        """True if events are waiting and no worker has an open pull.

        A worker at its limit has no open pull either.
        """
        return self.exists and bool(self.waiting) and not self.pulls

    @property
    def is_unasked_for_retries(self) -> bool:
        """True if only delivered events are unsettled, and no worker has an open pull.

        They run in a worker at its limit, or wait for a retry or for what a dead worker held.
        """
        is_owing = bool(self.unacked) and not self.waiting
        return self.exists and is_owing and not self.pulls and not self.is_paused


async def consumer_statuses(
    transport: Transport, wanted: Sequence[PlannedConsumers] | None = None
) -> list[ConsumerStatus]:
    """Return all consumers of the streams that hold events, or only those of one app's handlers.

    The consumers of an app include missing ones, and the one for its retried events.
    """
    operators = transport.operators
    streams = [info.config for info in await operators.streams()]
    copies = [one for one in streams if one.sources and one.name.isprintable()]
    names = {one.name for one in (*filter(holds_events, streams), *copies)}
    names |= {one.name for one in streams if one.name == OWN_STREAM.name}
    standing = {
        (info.stream, info.name): info
        for name in sorted(names)
        for info in await operators.consumers(name)
        if not info.name.startswith(SCAN)  # another tail, trace or list
    }
    if wanted is None:
        chosen: _Functions = dict.fromkeys(sorted(standing), "")
        missing: _Missing = []
    else:
        chosen, missing = _chosen(list(standing), wanted)
    found = await asyncio.gather(
        *(_status(operators, standing[key], function) for key, function in chosen.items())
    )
    if any(one.name == ORDERS for one in streams):
        found = await _with_scales(operators, found)
    if await any_waits(operators):
        found = await asyncio.gather(*(_with_retries(operators, one) for one in found))
    return [
        *found,
        *(
            ConsumerStatus(
                stream=spec.stream,
                name=spec.name,
                handler=spec.handler,
                function=function,
                exists=False,
            )
            for spec, function in missing
        ),
    ]


def _chosen(
    standing: list[tuple[str, str]], wanted: Sequence[PlannedConsumers]
) -> tuple[_Functions, _Missing]:
    """Return the consumers the handlers read, and the missing ones, each with its function."""
    chosen: _Functions = {}
    missing: _Missing = []
    for one in wanted:
        for spec in reversed(one.specs):  # the main one first: its name is known
            here = [
                key for key in standing if key[0] == spec.stream and fnmatchcase(key[1], spec.name)
            ]
            chosen |= dict.fromkeys(here, one.handler.short)
            if not here:
                missing.append((spec, one.handler.short))
    for app in {one.handler.app for one in wanted}:
        own = [(OWN_STREAM.name, one.name) for one in app_readers(app)]
        chosen |= {key: "" for key in standing if key in own}
    return chosen, missing


async def _status(operators: Operators, info: ConsumerInfo, function: str) -> ConsumerStatus:
    is_owing = info.num_pending or info.num_ack_pending
    return ConsumerStatus(
        stream=info.stream,
        name=info.name,
        handler=handler_of(info.config),
        app=app_of(info.config),
        function=function or function_of(info.config),
        waiting=info.num_pending,
        unacked=info.num_ack_pending,
        redelivered=info.num_redelivered,
        pulls=info.num_waiting,
        oldest=await first_unsettled(operators, info) if is_owing else None,
        filters=info.config.filters,
        ack_wait=info.config.ack_wait,
        max_ack_pending=info.config.max_ack_pending,
        deliveries=info.deliveries,
        created=info.created,
        max_deliver=info.config.max_deliver,
        turn=Turn(is_taken=info.has_pin) if is_pinned(info.config) else None,
        is_paused=info.is_paused,
        pause=await known_pause(operators, info) if info.is_paused else None,
    )


async def _with_scales(
    operators: Operators, found: Sequence[ConsumerStatus]
) -> list[ConsumerStatus]:
    """Add what was ordered; without the right to read orders it is not known."""
    try:
        scales = await read_scales(operators)
    except TransportError:
        scales = {}
    return [
        replace(one, scale=scales.get((one.app, one.handler)) if one.app else None) for one in found
    ]


async def _with_retries(operators: Operators, one: ConsumerStatus) -> ConsumerStatus:
    if one.app is None or one.stream == OWN_STREAM.name:
        return one
    handler = one.handler or one.name
    return replace(one, long_retries=await count_waiting(operators, one.app, handler, one.stream))


async def first_unsettled(operators: Operators, info: ConsumerInfo) -> datetime | None:
    """Return the stored time of the oldest unsettled event of a consumer."""
    message = await first_unsettled_message(operators, info)
    return None if message is None else stored_time(message)


async def first_unsettled_message(operators: Operators, info: ConsumerInfo) -> StoredMessage | None:
    """Return the oldest unsettled event of a consumer."""
    sequence = (info.ack_floor if info.num_ack_pending else info.delivered) + 1
    found = await asyncio.gather(
        *(
            operators.next_message(info.stream, sequence, one)
            for one in info.config.filters or (">",)
        )
    )
    messages = [one for one in found if one is not None]
    return min(messages, key=lambda one: one.sequence, default=None)


async def with_turns(transport: Transport, found: Sequence[ConsumerStatus]) -> list[ConsumerStatus]:
    """Add which process is served, where it is one at a time; only then are they asked."""
    if not any(one.turn for one in found):
        return list(found)
    try:
        asked = await processes(transport)
    except PermissionDenied:
        return list(found)
    return [
        one if one.turn is None
        else replace(one, turn=with_processes(one.turn, asked, one.app, one.stream, one.name))
        for one in found
    ]  # fmt: skip


def by_handler(statuses: Sequence[ConsumerStatus]) -> list[ConsumerStatus]:
    """Add up the consumers that a handler has on one stream: for people they are one."""
    found: dict[tuple[str, str], ConsumerStatus] = {}
    for one in statuses:
        key = (one.stream, one.handler or one.name)
        found[key] = _added(found[key], one) if key in found else replace(one, name=key[1])
    return list(found.values())


def _added(one: ConsumerStatus, other: ConsumerStatus) -> ConsumerStatus:
    if not (one.exists and other.exists):  # an older version's main consumer may have all filters
        return one if one.exists else replace(other, name=one.name)
    return replace(
        one,
        function=one.function or other.function,
        waiting=one.waiting + other.waiting,
        unacked=one.unacked + other.unacked,
        redelivered=one.redelivered + other.redelivered,
        long_retries=max(one.long_retries, other.long_retries),  # of the handler
        # What one has open is not what the other needs.
        pulls=min(one.pulls, other.pulls),
        oldest=min((each.oldest for each in (one, other) if each.oldest), default=None),
        is_paused=one.is_paused or other.is_paused,
        turn=added(one.turn, other.turn),
    )


def as_json(statuses: Sequence[ConsumerStatus], now: datetime) -> dict[str, Any]:
    """Write the statuses for programs, with their age at ``now``."""
    return {
        "time": iso(now),
        "consumers": [
            {
                "stream": one.stream,
                "consumer": one.name,
                "handler": one.handler or one.name,
                "function": one.function,
                "app": one.app,
                "exists": one.exists,
                "waiting": one.waiting,
                "unacked": one.unacked,
                "redelivered": one.redelivered,
                "longRetries": one.long_retries,
                "oldest": iso(one.oldest),
                "lagSeconds": round((now - one.oldest).total_seconds(), 3) if one.oldest else 0,
                "pulls": one.pulls,
                "oneActive": one.turn is not None,
                "turn": turn_json(one.turn),
                "paused": one.is_paused,
                "pause": pause_json(one.pause),
                "scale": scale_json(one.scale),
            }
            for one in statuses
        ],
    }

"""The consumers: find those that never deliver some events, or deliver too late."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from ...errors import TransportError
from ...handlers import both_names
from ...steering.orders import PauseOrder
from ...steering.pauses import known_pause
from ...topology import (
    DAY,
    OWN_STREAM,
    app_of,
    app_reader,
    function_of,
    handler_of,
    holds_events,
    overlapping,
)
from ...transports.base import Operators
from ...transports.infos import ConsumerInfo, StreamInfo
from ..scan import SCAN
from ..status import first_unsettled
from .finding import Finding, Level

NEAR_ITS_END = 0.8  # of a stream's max_age
# With several filters the server searches all subjects for each event: 0.3 to 0.5 ms for 5 000
# subjects, compared with 7 to 25 µs for one filter (measured on 2.15.1).
MANY_SUBJECTS = 2_000


async def consumer_findings(operators: Operators, streams: Sequence[StreamInfo]) -> list[Finding]:
    """Return a finding for each problem; one line if there is none."""
    found: list[Finding] = []
    count = 0
    for stream in streams:
        is_own = stream.name == OWN_STREAM.name
        if not (is_own or holds_events(stream.config)):
            continue
        try:
            every = await operators.consumers(stream.name)
            consumers = [one for one in every if not one.name.startswith(SCAN)]
            if is_own:
                consumers = [one for one in consumers if app_reader(one) is not None]
            dying = await asyncio.gather(*(_dying(operators, stream, one) for one in consumers))
        except TransportError:
            continue  # reported with the rights
        count += 0 if is_own else len(consumers)
        for info in consumers:
            found += _standing(stream, info)
            if info.is_paused:
                found.append(_paused(info, await known_pause(operators, info)))
        found += _unread([one for one in consumers if _is_unread(one)])
        found += [one for one in dying if one is not None]
    # The two consumers of a handler have one name, and often the same to say.
    return [*dict.fromkeys(found)] or [
        Finding(Level.OK, "consumers", f"{count}, none of them stranded")
    ]


def _standing(stream: StreamInfo, info: ConsumerInfo) -> Iterator[Finding]:
    where = _where(info)
    unacked = info.num_ack_pending
    limit = info.config.max_deliver
    if limit > 0:
        yield Finding(
            Level.WARN, "max_deliver",
            f"{where}: after {_times(limit, 'delivery', 'deliveries')} an event stays undelivered"
            " for good, without a dead letter",
            "set it to -1 in that program, if possible; our consumers never set it",
        )  # fmt: skip
    floor, last = info.ack_floor, stream.state.last_sequence
    if floor > last:
        yield Finding(
            Level.FAIL, "consumers",
            f"{where}: settled up to #{floor}, and the stream ends at #{last}: the events between"
            " would never be delivered",
            "the stream lost its end or was restored: delete the consumer, its worker recreates"
            " it",
        )  # fmt: skip
    filters, subjects = info.config.filters, stream.state.subjects
    if len(filters) > 1 and subjects >= MANY_SUBJECTS:
        yield Finding(
            Level.WARN, "filters",
            f"{where}: {len(filters)} filters over {subjects} subjects take the server up to"
            " 0.5 ms for each event",
            _fewer_filters(filters),
        )  # fmt: skip
    most = info.config.max_ack_pending
    if 0 < most <= unacked:
        yield Finding(
            Level.WARN, "consumers",
            f"{where}: {_times(unacked, 'event is', 'events are')} not acknowledged, as many as its"
            " max_ack_pending allows: nothing further is delivered",
            "look at its worker; after ack_wait the events of a dead worker are delivered again",
        )  # fmt: skip
    elif most >= 1_000 and unacked >= 0.8 * most:
        yield Finding(
            Level.WARN, "consumers",
            f"{where}: {unacked} events are not acknowledged, of at most {most} (max_ack_pending):"
            " soon nothing further is delivered",
            "find out why so many wait for a retry: omni-worker dead-letters list and the worker's"
            " log name the errors",
        )  # fmt: skip


def _fewer_filters(filters: Sequence[str]) -> str:
    """Say how each consumer has a single filter, which takes the server 0.01 to 0.03 ms."""
    if overlapping(filters):
        return "name the channel: @app.on(…, channel=…) has a single filter"
    return "one @app.on for each type or channel, each with its own durable: one filter each"


def _paused(info: ConsumerInfo, order: PauseOrder | None) -> Finding:
    """Say what a pause stops, by whom it is if that is known, and how it ends."""
    own = app_reader(info)
    stops = "nothing is delivered" if own is None else own.stops
    by = "" if order is None else f" by {order.by}" + (order.reason and f" ({order.reason})")
    return Finding(
        Level.WARN, "consumers", f"{_where(info)}: paused{by}, so {stops}",
        f"omni-worker resume {handler_of(info.config)}"
        if app_of(info.config)
        else f"nats consumer resume {info.stream} {info.name}",
    )  # fmt: skip


def _is_unread(info: ConsumerInfo) -> bool:
    """Tell whether events wait and no process has asked for them."""
    is_held = info.num_ack_pending or info.is_push_bound or info.is_paused
    return bool(info.num_pending and not (is_held or info.num_waiting))


def _unread(infos: Sequence[ConsumerInfo]) -> list[Finding]:
    """Say what waits in consumers that no process reads, once for each handler."""
    waiting: Counter[tuple[str, str, str]] = Counter()
    for info in infos:
        own = app_reader(info)
        also = f", so {own.stops}" if own is not None else ""
        waiting[_where(info), _read_it(info), also] += info.num_pending
    return [
        Finding(
            Level.WARN, "consumers",
            f"{where}: {_times(count, 'event is', 'events are')} waiting, and no worker reads"
            f" it{also}", advice,
        )
        for (where, advice, also), count in waiting.items()
    ]  # fmt: skip


def _read_it(info: ConsumerInfo) -> str:
    """Say what to do about a consumer that no process reads; it may well be needed."""
    if (own := app_reader(info)) is not None:
        return (
            f"start a process of {own.app} that may read it; if nothing uses {own.app} any longer:"
            f" omni-worker consumers rm {info.name} --force"
        )
    if app := app_of(info.config):
        return (
            f"start a worker of {app}; whether it still has this handler says: omni-worker"
            " consumers list MODULE:APP"
        )
    return "start its worker; it belongs to another program"


def _where(info: ConsumerInfo) -> str:
    """Name a consumer for people: a handler's by the handler, as every command does."""
    if app_of(info.config) is None or app_reader(info) is not None:
        return f"{info.name} on {info.stream}"
    return f"{both_names(function_of(info.config), handler_of(info.config))} on {info.stream}"


async def _dying(operators: Operators, stream: StreamInfo, info: ConsumerInfo) -> Finding | None:
    """Warn if the oldest event waits so long that the stream will soon drop it."""
    max_age = stream.config.max_age
    if not max_age or not (info.num_pending or info.num_ack_pending):
        return None
    oldest = await first_unsettled(operators, info)
    age = time.time() - oldest.timestamp() if oldest is not None else 0.0
    if age < NEAR_ITS_END * max_age:
        return None
    name = stream.name
    return Finding(
        Level.WARN, "consumers",
        f"{_where(info)}: its oldest event waits for {age / DAY:.1f} d, and {name} keeps"
        f" events for {max_age / DAY:.3g} d",
        "start its worker, or raise the stream's max_age; older events are lost",
    )  # fmt: skip


def _times(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

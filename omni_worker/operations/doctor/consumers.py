"""The consumers: who of them strands events, or lets them wait until they die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import TransportError
from ...topology import DAY, NANO, holds_events
from ...transports.base import Operators
from ..scan import SCAN
from ..status import first_unsettled
from .finding import Finding, Level

NEAR_ITS_END = 0.8  # of a stream's max_age
# With several filters the server looks through all subjects for each event: 0.3 to 0.5 ms for 5 000
# of them, where one filter takes 15 µs (measured on 2.15.1).
MANY_SUBJECTS = 2_000
SIGNS_OF_A_READER = ("num_waiting", "push_bound", "paused")  # or a reason that is told


async def consumer_findings(
    operators: Operators, streams: Sequence[Mapping[str, Any]]
) -> list[Finding]:
    """What is not well with any of them; one line where all is."""
    found: list[Finding] = []
    count = 0
    for stream in streams:
        if not holds_events(stream["config"]):
            continue
        try:
            every = await operators.consumers(stream["config"]["name"])
            consumers = [one for one in every if not one["name"].startswith(SCAN)]
            dying = await asyncio.gather(*(_dying(operators, stream, one) for one in consumers))
        except TransportError:
            continue  # said among the rights
        count += len(consumers)
        for info in consumers:
            found += _standing(stream, info)
        found += [one for one in dying if one is not None]
    return found or [Finding(Level.OK, "consumers", f"{count}, none of them stranded")]


def _standing(stream: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[Finding]:
    config = info["config"]
    where = f"{info['name']} on {stream['config']['name']}"
    waiting, unacked = int(info.get("num_pending", 0)), int(info.get("num_ack_pending", 0))
    limit = int(config.get("max_deliver", -1))
    if limit > 0:
        yield Finding(
            Level.WARN, "max_deliver",
            f"{where}: after {_times(limit, 'delivery', 'deliveries')} an event stays undelivered"
            " for good, without a dead letter",
            "set it to -1 where that program can; ours never set it",
        )  # fmt: skip
    floor, last = int(info["ack_floor"]["stream_seq"]), int(stream["state"]["last_seq"])
    if floor > last:
        yield Finding(
            Level.FAIL, "consumers",
            f"{where}: settled up to #{floor}, and the stream ends at #{last}: the events between"
            " would never be delivered",
            "the stream lost its end or was restored: delete the consumer, its worker makes it"
            " anew",
        )  # fmt: skip
    filters, subjects = config.get("filter_subjects") or (), stream["state"].get("num_subjects", 0)
    if len(filters) > 1 and subjects >= MANY_SUBJECTS:
        yield Finding(
            Level.WARN, "filters",
            f"{where}: {len(filters)} filters over {subjects} subjects make each delivery slow",
            "name the channel where it is one: @app.on(…, channel=…) has a single filter",
        )  # fmt: skip
    if info.get("paused"):
        yield Finding(
            Level.WARN, "consumers", f"{where}: paused, so nothing is delivered",
            f"nats consumer resume {stream['config']['name']} {info['name']}",
        )  # fmt: skip
    most = int(config.get("max_ack_pending", -1))
    if 0 < most <= unacked:
        yield Finding(
            Level.WARN, "consumers",
            f"{where}: {_times(unacked, 'event is', 'events are')} not answered, as many as its"
            " max_ack_pending allows: no more are delivered",
            "look at its worker; dead ones give theirs back after ack_wait",
        )  # fmt: skip
    elif waiting and not (unacked or any(info.get(one) for one in SIGNS_OF_A_READER)):
        yield Finding(
            Level.WARN, "consumers",
            f"{where}: {_times(waiting, 'event waits', 'events wait')} and nobody reads it",
            "start its worker, or delete the consumer if it is not needed",
        )  # fmt: skip


async def _dying(
    operators: Operators, stream: Mapping[str, Any], info: Mapping[str, Any]
) -> Finding | None:
    """Whether its oldest event waits so long that the stream will soon drop it."""
    max_age = int(stream["config"].get("max_age", 0)) / NANO
    if not max_age or not (info.get("num_pending") or info.get("num_ack_pending")):
        return None
    oldest = await first_unsettled(operators, info)
    age = time.time() - oldest.timestamp() if oldest is not None else 0.0
    if age < NEAR_ITS_END * max_age:
        return None
    name = stream["config"]["name"]
    return Finding(
        Level.WARN, "consumers",
        f"{info['name']} on {name}: its oldest event waits for {age / DAY:.1f} d, and {name} keeps"
        f" events for {max_age / DAY:.3g} d",
        "start its worker, or raise the stream's max_age; what is older is gone",
    )  # fmt: skip


def _times(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

"""The server itself: version, features, what the account may use, its clock, its disk."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ...errors import TransportError
from ...topology import can_pin, loses_events
from ...transports.base import Operators
from ...transports.infos import AccountInfo, StreamInfo
from .finding import Finding, Level, size

OLDEST = (2, 10, 0)
LOSES_STREAMS = ((2, 10, 20), (2, 10, 23))  # from, fixed in
PAUSING = (2, 11, 0)
FAST_FILTERS = (2, 11, 3)
FULL = 0.8  # of a limit
USUAL_PAYLOAD = 1_048_576  # bytes
SKEW = 2.0  # seconds the clocks may differ: start times and ages are compared across them
SYNC_LIMIT = 10.0  # seconds of stored events that a power failure may lose

Version = tuple[int, int, int]
Monitor = Callable[[], Awaitable[Mapping[str, Any]]]


def version(found: Version) -> Finding:
    """Check that the version is one we support."""
    shown = f"nats-server {'.'.join(map(str, found))}"
    if found < OLDEST:
        return Finding(Level.FAIL, "server", shown, "2.10 or newer is needed")
    if LOSES_STREAMS[0] <= found < LOSES_STREAMS[1]:
        return Finding(
            Level.WARN, "server", f"{shown}, which may lose whole streams when it is killed",
            "2.10.23 or newer does not",
        )  # fmt: skip
    return Finding(Level.OK, "server", shown)


def features(found: Version) -> Finding:
    """List the server's features that we and operators use."""
    pausing = "; consumers can be paused" if found >= PAUSING else ""
    if loses_events(found):
        return Finding(
            Level.WARN, "features",
            "it loses events of a consumer that has a type and all below it (nats-server#6824), so"
            f" order_by without a channel is refused; several filters are slow{pausing}",
            "2.11.3 or newer loses none",
        )  # fmt: skip
    if found < FAST_FILTERS:
        return Finding(
            Level.WARN, "features", f"several filters per consumer, but slowly{pausing}",
            "2.11.3 or newer delivers to them at full speed",
        )  # fmt: skip
    if not can_pin(found):
        return Finding(
            Level.NOTE, "features",
            f"several filters per consumer, at full speed{pausing}; order_by, and by= of batches,"
            " hold with one process on the durable",
            "2.12 or newer keeps them over several processes",
        )  # fmt: skip
    return Finding(Level.OK, "features", f"several filters per consumer, at full speed{pausing}")


def payload(limit: int) -> Finding:
    """Check the maximum size of an event."""
    says = f"messages up to {size(limit)}"
    if limit < USUAL_PAYLOAD:
        return Finding(
            Level.WARN, "max_payload", says,
            "larger events are refused; raise max_payload if yours are",
        )  # fmt: skip
    return Finding(Level.OK, "max_payload", says)


def account_use(account: AccountInfo) -> Finding:
    """Compare what the account uses with its limits: at one of them the server refuses more."""
    used, near, refused = [], [], []
    for key, count, most, shown, without in (
        ("streams", account.streams, account.max_streams, str, "new streams"),
        ("consumers", account.consumers, account.max_consumers, str, "new handlers"),
        ("storage", account.storage, account.max_storage, size, "new events"),
        ("memory", account.memory, account.max_memory, size, "events kept in memory"),
    ):
        if count or most > 0:
            used.append(f"{shown(count)}{f' of {shown(most)}' if most > 0 else ''} {key}")
        if most > 0 and count >= FULL * most:
            near.append(f"max_{key} ({shown(most)})")
            refused.append(without)
    bounds = account.max_streams, account.max_consumers, account.max_storage, account.max_memory
    rest = "" if any(bound > 0 for bound in bounds) else "; no limit is set"
    says = f"uses {', '.join(used) or 'nothing yet'}{rest}"
    if not near:
        return Finding(Level.OK, "account", says)
    return Finding(
        Level.WARN, "account", says,
        f"raise this account's {' and '.join(near)} in the server's configuration, or delete what"
        f" is not needed: when it is reached the server refuses {' and '.join(refused)}",
    )  # fmt: skip


async def clock(operators: Operators, streams: Sequence[StreamInfo]) -> Finding:
    """Compare the server's clock with ours, by the time in an answer."""
    for stream in streams:
        before = time.time()
        try:
            info = await operators.stream_info(stream.name)
        except TransportError:
            continue
        after = time.time()
        if info is None or not info.answered_at:
            continue
        skew = info.answered_at / 1e9 - (before + after) / 2
        if abs(skew) > SKEW + (after - before):
            return Finding(
                Level.WARN, "clock", f"the server's clock is {skew:+.1f} s from this machine's",
                "set both by NTP: start times and ages are compared across them",
            )  # fmt: skip
        return Finding(Level.OK, "clock", f"{abs(skew) * 1000:.0f} ms from this machine's")
    return Finding(Level.NOTE, "clock", "nothing to compare it with yet")


async def sync(monitor: Monitor | None) -> Finding:
    """Check how much a power failure may lose: the server flushes its files only periodically."""
    if monitor is None:
        return Finding(
            Level.NOTE, "sync_interval",
            "not readable here; 2 min unless configured; --monitor http://HOST:8222 reads it",
        )  # fmt: skip
    try:
        config = (await monitor()).get("config") or {}
    except OSError as error:
        return Finding(
            Level.WARN, "sync_interval", f"the monitoring port does not answer: {error}",
            "give the server's http_port as --monitor http://HOST:PORT",
        )  # fmt: skip
    if config.get("sync_always"):
        return Finding(Level.OK, "sync_interval", "always: a stored event is on the disk")
    seconds = int(config.get("sync_interval", 120_000_000_000)) / 1e9
    if seconds > SYNC_LIMIT:
        return Finding(
            Level.WARN, "sync_interval",
            f"{seconds:g} s: a single server that loses power may lose the confirmed events of the"
            " last interval",
            "run three replicas, or set jetstream { sync_interval: always }",
        )  # fmt: skip
    return Finding(Level.OK, "sync_interval", f"{seconds:g} s")

"""Doctor: is this server fit for our promises? It looks, says what to do, and changes nothing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..errors import ApiError, PermissionDenied, TransportError
from ..events import DEAD_LETTER
from ..topology import (
    STREAMS,
    Conflict,
    Lacking,
    Missing,
    Standing,
    holds_events,
    plan_stream,
    route,
)
from ..transports.base import Transport
from ..transports.timestamps import nanoseconds
from .scan import Scan

OLDEST = (2, 10, 0)
SEVERAL_FILTERS = (2, 11, 2)
SKEW = 2.0  # seconds the clocks may differ: start times and ages are compared across them
FULL = 0.8  # of a limit
USUAL_PAYLOAD = 1_048_576  # bytes
SYNC_LIMIT = 10.0  # seconds of stored events a power failure may take


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # it cannot be seen from here
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``advice`` says what to do where it is not well."""

    level: Level
    what: str
    says: str
    advice: str = ""


Monitor = Callable[[], Awaitable[Mapping[str, Any]]]


async def examine(transport: Transport, monitor: Monitor | None = None) -> list[Finding]:
    """Everything that can be seen with this login; ``monitor`` reads the server's /jsz."""
    found = [_version(transport.server_version), _payload(transport.max_payload)]
    try:
        account = await transport.operators.account()
        streams = await transport.operators.streams()
    except PermissionDenied as error:
        return [*found, _denied("JetStream", error)]
    except ApiError as error:
        return [
            *found,
            Finding(
                Level.FAIL, "JetStream", str(error),
                "start the server with --jetstream, enable it for this account, or set"
                " NATS_JS_DOMAIN",
            ),
        ]  # fmt: skip
    configs = [info["config"] for info in streams]
    found += _limits(account)
    found += _streams(configs)
    found += [_full(info) for info in streams if _is_full(info)]
    found += await _rights(transport, configs)
    found += await _consumers(transport, configs)
    found.append(await _clock(transport, configs))
    found.append(await _sync(monitor))
    return found


def _version(version: tuple[int, int, int]) -> Finding:
    shown = ".".join(map(str, version))
    if version < OLDEST:
        return Finding(Level.FAIL, "server", f"nats-server {shown}", "2.10 or newer is needed")
    if version < SEVERAL_FILTERS:
        return Finding(
            Level.WARN, "server", f"nats-server {shown}: slow for handlers with several filters",
            "2.11.2 or newer is recommended",
        )  # fmt: skip
    return Finding(Level.OK, "server", f"nats-server {shown}")


def _payload(limit: int) -> Finding:
    says = f"messages up to {limit / 1024:.0f} KiB"
    if limit < USUAL_PAYLOAD:
        return Finding(
            Level.WARN, "max_payload", says,
            "larger events are refused; raise max_payload if yours are",
        )  # fmt: skip
    return Finding(Level.OK, "max_payload", says)


def _limits(account: Mapping[str, Any]) -> list[Finding]:
    limits = account.get("limits") or {}
    tight = []
    for key, limit in (
        ("memory", "max_memory"), ("storage", "max_storage"),
        ("streams", "max_streams"), ("consumers", "max_consumers"),
    ):  # fmt: skip
        used, most = int(account.get(key, 0)), int(limits.get(limit, -1))
        if most > 0 and used >= FULL * most:
            tight.append(
                Finding(
                    Level.WARN, "limits", f"{key}: {used} of {most} used",
                    f"raise the account's {limit}, or publishing and starting will be refused",
                )
            )  # fmt: skip
    if tight:
        return tight
    says = f"{account.get('streams', 0)} streams, {account.get('consumers', 0)} consumers"
    return [Finding(Level.OK, "limits", says)]


def _streams(configs: list[Mapping[str, Any]]) -> list[Finding]:
    found = []
    for spec in STREAMS:
        match plan_stream(spec, configs):
            case Missing():
                found.append(
                    Finding(
                        Level.WARN, spec.name, "missing",
                        "the first worker makes it; omni-worker plan --apply does too",
                    )
                )  # fmt: skip
            case Standing(name=name, differences=differences):
                says = "stands" if name == spec.name else f"its subjects are held by {name}"
                found.append(Finding(Level.OK, spec.name, "; ".join((says, *differences))))
            case Lacking(missing=missing):
                found.append(
                    Finding(
                        Level.FAIL, spec.name, f"does not store {', '.join(missing)}",
                        "omni-worker plan --apply adds the subject",
                    )
                )  # fmt: skip
            case Conflict(other=other, overlap=overlap):
                found.append(
                    Finding(
                        Level.FAIL, spec.name, f"{other} holds {overlap}, so it cannot be made",
                        f"take {overlap} out of {other}, or let {other} hold all of"
                        f" {', '.join(spec.subjects)}",
                    )
                )  # fmt: skip
    return found


def _is_full(info: Mapping[str, Any]) -> bool:
    limit = int(info["config"].get("max_bytes", -1))
    return holds_events(info["config"]) and 0 < limit * FULL <= int(info["state"]["bytes"])


def _full(info: Mapping[str, Any]) -> Finding:
    config = info["config"]
    loses = "refuses new events" if config.get("discard") == "new" else "drops its oldest events"
    return Finding(
        Level.WARN, config["name"],
        f"{info['state']['bytes']} of max_bytes {config['max_bytes']} used; full, it {loses}",
        "raise max_bytes",
    )  # fmt: skip


async def _rights(transport: Transport, configs: list[Mapping[str, Any]]) -> list[Finding]:
    """What a worker and these commands ask of JetStream, tried where it changes nothing."""
    name = next(iter(route([DEAD_LETTER], configs)), None)
    name = name or next((one["name"] for one in configs if holds_events(one)), None)
    if name is None:
        return [Finding(Level.OK, "rights", "nothing to try them on yet")]
    operators = transport.operators
    stream: str = name

    async def read() -> None:
        async with Scan(transport, stream, filters=["system.nobody.publishes.this"]):
            pass

    denied: list[Finding] = []
    for attempt in (
        lambda: operators.stream_info(stream),
        lambda: operators.consumers(stream),
        lambda: operators.consumer_info(stream, "omni-worker-none"),
        lambda: operators.message(stream, 1),
        read,
    ):
        try:
            await attempt()
        except PermissionDenied as error:
            denied.append(_denied("rights", error))
        except TransportError as error:
            denied.append(Finding(Level.WARN, "rights", str(error)))
    return denied or [Finding(Level.OK, "rights", f"streams and consumers can be read ({stream})")]


def _denied(what: str, error: PermissionDenied) -> Finding:
    return Finding(Level.FAIL, what, str(error), "grant it; docs/operations.md lists them all")


async def _consumers(transport: Transport, configs: list[Mapping[str, Any]]) -> list[Finding]:
    found, count = [], 0
    for config in configs:
        if not holds_events(config):
            continue
        try:
            consumers = await transport.operators.consumers(config["name"])
        except TransportError:
            continue  # said among the rights
        for info in consumers:
            count += 1
            where = f"{info['name']} on {config['name']}"
            limit = int(info["config"].get("max_deliver", -1))
            if limit > 0:
                found.append(
                    Finding(
                        Level.WARN, "max_deliver",
                        f"{where}: after {limit} deliveries an event stays undelivered for good,"
                        " without a dead letter",
                        "set it to -1 where that program can; ours never set it",
                    )
                )  # fmt: skip
            if info.get("num_pending") and not info.get("num_waiting"):
                busy = info.get("num_ack_pending")
                if not busy and not info.get("push_bound"):
                    found.append(
                        Finding(
                            Level.WARN, "consumers",
                            f"{where}: {info['num_pending']} events wait and nobody reads it",
                            "start its worker, or delete the consumer if it is not needed",
                        )
                    )  # fmt: skip
    return found or [Finding(Level.OK, "consumers", f"{count}, none of them stranded")]


async def _clock(transport: Transport, configs: list[Mapping[str, Any]]) -> Finding:
    for config in configs:
        before = time.time()
        try:
            info = await transport.operators.stream_info(config["name"])
        except TransportError:
            continue
        after = time.time()
        if info is None or not info.get("ts"):
            continue
        skew = nanoseconds(info["ts"]) / 1e9 - (before + after) / 2
        if abs(skew) > SKEW + (after - before):
            return Finding(
                Level.WARN, "clock", f"the server's clock is {skew:+.1f} s from this machine's",
                "set both by NTP: start times and ages are compared across them",
            )  # fmt: skip
        return Finding(Level.OK, "clock", f"{skew * 1000:+.0f} ms from this machine's")
    return Finding(Level.OK, "clock", "nothing to compare it by yet")


async def _sync(monitor: Monitor | None) -> Finding:
    """How much a power failure takes: the server flushes what it stored only now and then."""
    if monitor is None:
        return Finding(
            Level.NOTE, "sync_interval",
            "not readable here; 2 min unless configured, --monitor http://HOST:8222 looks",
        )  # fmt: skip
    try:
        config = (await monitor()).get("config") or {}
    except OSError as error:
        return Finding(
            Level.WARN, "sync_interval", f"the monitoring port does not answer: {error}",
            "give the server's http_port as --monitor http://HOST:PORT",
        )  # fmt: skip
    if config.get("sync_always"):
        return Finding(Level.OK, "sync_interval", "always: stored is on the disk")
    seconds = int(config.get("sync_interval", 120_000_000_000)) / 1e9
    if seconds > SYNC_LIMIT:
        return Finding(
            Level.WARN, "sync_interval",
            f"{seconds:g} s: one server that loses its power loses up to so much of what it had"
            " confirmed",
            "run three replicas, or set jetstream { sync_interval: always }",
        )  # fmt: skip
    return Finding(Level.OK, "sync_interval", f"{seconds:g} s")

"""Limits of requests: a consumer's own, and what a server can send at a time."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus, Settings
from omni_worker.nats_server import NatsServer
from omni_worker.transports.infos import read_consumer_config
from omni_worker.transports.jetstream.request_limits import (
    LEAST_BYTES,
    MOST_BYTES,
    Budget,
    RequestLimits,
    prime_up_to,
)

from ..waiting import until
from .support import (
    CONSUMER,
    STREAM,
    Reader,
    configured,
    connected,
    make_consumer,
    make_stream,
    message,
    parked,
    read,
)

FULL = b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Bytes: %d\r\n\r\n"
MEGABYTE = 1024 * 1024
FULL_STATUS = "message size exceeds maxbytes"
SECOND = 1_000_000_000


def limits(**config: int) -> RequestLimits:
    return RequestLimits(Budget(), read_consumer_config(config))


# --- what one request may ask for -------------------------------------------------------------


def test_a_request_is_as_large_as_the_consumer_allows() -> None:
    limited = limits(max_batch=7, max_bytes=1_000, max_expires=2 * SECOND)

    assert limited.allowed(50, 0) == 7
    assert limited.option(7, 0, MEGABYTE) == b'"max_bytes":997,'
    assert limited.expires == 2.0


@pytest.mark.parametrize(("count", "option"), [(1, b""), (4, b""), (5, b'"max_bytes":4194301,')])
def test_only_a_request_that_may_bring_too_much_has_a_limit_of_bytes(
    count: int, option: bytes
) -> None:
    assert limits().option(count, 0, MEGABYTE) == option


def test_of_large_events_one_request_is_open_at_a_time() -> None:
    limited = limits()
    limited.option(10, 0, MEGABYTE)
    assert limited.allowed(10, outstanding=5) == 10

    limited.request_ended(FULL_STATUS, FULL % 5_000)
    limited.option(10, 0, MEGABYTE)

    assert limited.allowed(10, outstanding=5) == 0
    assert limited.allowed(10, outstanding=0) == 10
    limited.option(10, 0, MEGABYTE)  # the one before was not ended by bytes
    assert limited.allowed(10, outstanding=5) == 10


def test_a_message_larger_than_the_limit_is_asked_for_alone_and_without_one() -> None:
    limited = limits(max_bytes=1_000)

    limited.request_ended(FULL_STATUS, FULL % 997)

    assert limited.allowed(10, outstanding=3) == 0
    assert limited.allowed(10, outstanding=0) == 1
    assert limited.option(1, 0, MEGABYTE) == b""
    assert limited.allowed(10, outstanding=0) == 10


def test_only_a_link_that_broke_soon_halves_the_bytes() -> None:
    budget = Budget()

    assert not budget.link_broke(60.0)
    assert budget.bytes == MOST_BYTES
    assert budget.link_broke(0.1)
    assert budget.bytes == MOST_BYTES // 2
    while budget.link_broke(0.1):
        pass
    assert budget.bytes == LEAST_BYTES


@pytest.mark.parametrize(("most", "prime"), [(1, 1), (2, 2), (1_000, 997), (1 << 22, 4_194_301)])
def test_events_of_one_size_do_not_add_up_to_the_limit(most: int, prime: int) -> None:
    assert prime_up_to(most) == prime


# --- on a server ------------------------------------------------------------------------------


async def publish(transport: Any, count: int, body: bytes = b"{}") -> None:
    for n in range(count):
        await transport.publish(message(body, id=f"{len(body)}-{n}"), timeout=5)


@pytest.mark.parametrize(
    "limit",
    [{"max_batch": 7}, {"max_bytes": 1_000}, {"max_bytes": 10}, {"max_expires": SECOND // 2}],
)
@pytest.mark.parametrize("at", ["the start", "a later time"])
async def test_everything_comes_within_a_consumers_limits(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture, limit: dict[str, int], at: str
) -> None:
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        await make_consumer(transport, **(limit if at == "the start" else {}))
        reader = Reader(credit=50)
        await read(transport, reader)
        await parked(transport)
        if at != "the start":
            info = await transport.operators.consumer_info(STREAM, CONSUMER)
            assert info is not None
            await transport.operators.update_consumer(STREAM, {**info.config.raw, **limit})

        await publish(transport, 60, b"x" * 300)

        await until(lambda: len(reader.deliveries) == 60)
        assert reader.sequences == list(range(1, 61))
        assert reader.cause is None
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


async def test_a_servers_small_limit_leaves_no_slot_without_its_event(tmp_path: Path) -> None:
    running: list[str] = []
    over = asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        running.append(event.id)
        await over.wait()

    with configured(tmp_path, "jetstream { limits { max_request_batch: 1 } }") as server:
        async with EventBus(server.url) as bus:
            await bus.subscribe("custom.x", handle, durable="x", concurrency=20, channel="sms")

            for n in range(20):
                await bus.publish("custom.x", {"n": n}, channel="sms", instance="one")

            await until(lambda: len(running) == 20)
            info = await bus.transport.operators.consumer_info("CUSTOM", "x")
            assert info is not None
            assert info.config.raw["max_batch"] == 1
            over.set()


async def test_a_server_with_little_room_to_send_keeps_the_link(tmp_path: Path) -> None:
    seen: list[str] = []
    losses: list[object] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)

    settings = Settings(reconnect_delay=0.05)
    with configured(tmp_path, "max_payload: 1MB\nmax_pending: 1MB") as server:
        async with EventBus(server.url, settings=settings) as bus:
            for _ in range(40):
                await bus.publish("custom.x", {"text": "x" * 700_000})
            bus.transport.watch(lambda change: losses.append(change.cause))

            await bus.subscribe(
                "custom.x", handle, durable="x", concurrency=40, start_from="first", ack_wait=1.0
            )

            await until(lambda: len(set(seen)) == 40, timeout=40)
    assert len([one for one in losses if one]) <= 3

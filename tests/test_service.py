"""A worker as a NATS service: who asks on `$SRV` finds every process, and what it does."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from omni_worker import App, Batch, Event, Reject
from omni_worker.nats_server import NatsServer
from omni_worker.operations.processes import (
    HandlerActivity,
    WorkerProcess,
    answer_to,
    as_json,
    processes,
    read_process,
)
from omni_worker.settings import Settings
from omni_worker.testing import TestWorker
from omni_worker.transports.memory import MemoryServer, MemoryTransport

from .transports.support import configured, permissions
from .waiting import until

PROCESS = WorkerProcess(
    id="0a1b", app="shop.eu", host="h1", pid=7, number=2, version="0.1.0", python="3.11.7",
    started=datetime(2026, 11, 28, 12, 0, 0, 250_000, tzinfo=UTC), nats_server="2.15.1",
    loop_lag=0.25,
    handlers=(
        HandlerActivity(
            name="orders", function="shop.place", durable="orders", queue="q",
            subjects=("custom.order", "custom.order.>"), ordered=True,
            asking=(("CUSTOM", "orders"),),
            consumers=(("CUSTOM", "orders"), ("CUSTOM", "orders-bare")), concurrency=10,
            running=3, held=5, breaker_open=True, stalls=("the breaker is open",),
            counts={"handled": 6, "retried": 1, "dead_lettered": 1}, busy_seconds=4.0,
        ),
    ),
)  # fmt: skip


def make_app(name: str = "shop", durable: str = "orders") -> App:
    app = App(name)

    @app.on("custom.order.placed", durable=durable, concurrency=4)
    async def place(event: Event[dict[str, Any]]) -> None:
        if not event.payload:
            raise Reject("empty")

    return app


# --- the protocol ---------------------------------------------------------------------------------


def test_what_a_process_says_of_itself_is_read_as_it_was_written() -> None:
    answer = answer_to("$SRV.STATS", PROCESS)

    assert answer is not None
    assert read_process(answer) == PROCESS


@pytest.mark.parametrize(
    ("subject", "is_meant"),
    [
        ("$SRV.PING", True), ("$SRV.PING.shop_eu", True), ("$SRV.PING.shop_eu.0a1b", True),
        ("$SRV.PING.shop", False), ("$SRV.PING.shop_eu.other", False), ("$SRV.SCHEMA", False),
        ("$SRV.PING.shop_eu.0a1b.more", False),
    ],
)  # fmt: skip
def test_a_process_answers_what_is_asked_of_all_of_its_app_and_of_itself(
    subject: str, is_meant: bool
) -> None:
    assert (answer_to(subject, PROCESS) is not None) == is_meant


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"metadata": 1}',
        b"[" * 100_000,
        b'{"metadata": {"omni-worker": "1"}}',
        b"\xff",
    ],
)
def test_an_answer_of_another_program_is_no_process(answer: bytes) -> None:
    assert read_process(answer) is None


@pytest.mark.parametrize("key", ["app", "host", "pid", "omni-worker"])
def test_an_answer_without_a_fact_of_ours_is_no_process(key: str) -> None:
    said = json.loads(answer_to("$SRV.STATS", PROCESS) or b"")
    del said["metadata"][key]

    assert read_process(json.dumps(said).encode()) is None


def test_processes_are_written_for_programs_as_well() -> None:
    written = as_json([PROCESS], PROCESS.started)["processes"][0]

    assert (written["app"], written["slots"], written["running"]) == ("shop.eu", 10, 3)
    assert written["handlers"][0]["counts"] == {"handled": 6, "retried": 1, "dead_lettered": 1}
    json.dumps(written)


# --- workers --------------------------------------------------------------------------------------


async def test_every_running_process_is_found_and_none_that_ended() -> None:
    server = MemoryServer()
    asking = MemoryTransport(server)
    await asking.open("asking")

    async with TestWorker(make_app(), server=server) as t, TestWorker(make_app(), server=server):
        await t.publish("custom.order.placed", {"n": 1})
        await t.publish("custom.order.placed", {})
        await t.settle()
        async with TestWorker(make_app("mail", "mails"), server=server):
            both, mail = await processes(asking), await processes(asking, app="mail")
    after = await processes(asking)

    assert [one.app for one in both] == ["mail", "shop", "shop"]
    assert [one.app for one in mail] == ["mail"]
    assert after == []
    shop = [one.handlers[0] for one in both[1:]]
    assert sum(one.counts["handled"] for one in shop) == 1
    assert sum(one.errors for one in shop) == 1
    assert {one.consumers for one in shop} == {shop[0].consumers}
    assert both[0].pid == os.getpid()
    assert both[0].slots == 4


async def test_a_process_that_is_told_not_to_is_no_service() -> None:
    server = MemoryServer()
    asking = MemoryTransport(server)
    await asking.open("asking")

    async with TestWorker(make_app(), server=server, settings=Settings(service="off")):
        found = await processes(asking)

    assert found == []


async def test_the_time_of_a_slot_counts_while_an_event_has_it(nats_server: NatsServer) -> None:
    app, begun = App("slow"), []

    @app.on("custom.order.placed", durable="slow")
    async def slow(event: Event[Any]) -> None:
        begun.append(event)
        await until(lambda: len(begun) > 1)

    async with app.running(settings=Settings(urls=(nats_server.url,))) as bus:
        [subscription] = bus.subscriptions
        idle = subscription.busy_seconds
        await bus.publish("custom.order.placed", {})
        await until(lambda: begun)
        await until(lambda: subscription.busy_seconds > idle + 0.05)
        [process] = await processes(bus.transport)
        begun.append(None)  # type: ignore[arg-type]
        await until(lambda: subscription.counts.handled == 1)
        [after] = await processes(bus.transport)

    assert process.running == 1
    assert process.handlers[0].mean_seconds == 0.0
    assert after.handlers[0].mean_seconds > 0.05


async def test_a_batch_counts_once_while_it_runs_and_not_while_it_gathers(
    nats_server: NatsServer,
) -> None:
    app, begun = App("rows"), []

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.3)
    async def store(batch: Batch[Any]) -> None:
        begun.append(batch)
        await until(lambda: len(begun) > 1)

    async with app.running(settings=Settings(urls=(nats_server.url,))) as bus:
        [subscription] = bus.subscriptions
        at_first = time.perf_counter()
        for number in range(3):
            await bus.publish("custom.row", number)
        await until(lambda: subscription.held == 3 or begun)
        gathering = subscription.busy_seconds, list(begun)
        await until(lambda: begun)
        await until(lambda: subscription.busy_seconds > 0.05)
        begun.append(None)  # type: ignore[arg-type]
        await until(lambda: subscription.counts.handled == 3)
        busy, passed = subscription.busy_seconds, time.perf_counter() - at_first

    assert gathering == (0.0, [])
    assert len(begun[0].events) == 3
    assert 0.05 < busy < passed


async def test_a_nats_client_finds_a_worker_as_a_service(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    async with make_app("shop+eu").running(settings=Settings(urls=(nats_server.url,))) as bus:
        await bus.publish("custom.order.placed", {"n": 1})
        await until(lambda: bus.subscriptions[0].counts.handled == 1)

        said = [
            json.loads((await client.request(f"$SRV.{verb}")).data)
            for verb in ("PING", "INFO", "STATS")
        ]
    await client.close()

    ping, info, stats = (
        kind.from_dict(one)
        for kind, one in zip((ServicePing, ServiceInfo, ServiceStats), said, strict=True)
    )
    assert ping.name == info.name == stats.name == "shop_eu"
    assert ping.id == info.id == stats.id
    assert ping.metadata["app"] == "shop+eu"
    assert info.endpoints[0].name == "orders"
    assert stats.endpoints[0].num_requests == 1
    assert stats.endpoints[0].num_errors == 0
    assert [one["type"] for one in said] == [
        f"io.nats.micro.v1.{verb}_response" for verb in ("ping", "info", "stats")
    ]


# --- rights ---------------------------------------------------------------------------------------


@contextmanager
def denying(tmp_path: Path, **denied: list[str]) -> Iterator[Settings]:
    with configured(tmp_path, permissions(**denied)) as server:
        yield Settings(urls=(server.url,), user="worker", password="secret")


async def test_without_the_right_to_hear_requests_it_is_said_once_and_events_are_handled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with denying(tmp_path, subscribe=["$SRV.>"]) as settings:
        async with make_app().running(settings=settings) as bus:
            await until(lambda: "do not see this process" in caplog.text)
            await bus.publish("custom.order.placed", {"n": 1})
            await until(lambda: bus.subscriptions[0].counts.handled == 1)
            found = await processes(bus.transport, within=0.1)

    assert found == []
    assert caplog.text.count("$SRV") == 1
    assert "permission denied" not in caplog.text


async def test_without_the_right_to_answer_it_is_said_once_and_no_request_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with denying(tmp_path, publish=["_INBOX.>"]) as settings:
        async with make_app().running(settings=settings) as bus:
            await processes(bus.transport, within=0.2)
            await processes(bus.transport, within=0.2)
            await bus.publish("custom.order.placed", {"n": 1})
            await until(lambda: bus.subscriptions[0].counts.handled == 1)

    assert caplog.text.count("do not see this process") == 1
    assert "permission denied" not in caplog.text


async def test_who_may_not_ask_hears_that_at_once(tmp_path: Path) -> None:
    with denying(tmp_path, publish=["$SRV.>"]) as settings:
        async with make_app().running(settings=settings) as bus:
            with pytest.raises(Exception, match=r"\$SRV\.STATS"):
                await processes(bus.transport, within=60)

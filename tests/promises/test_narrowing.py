"""A consumer keeps what an older version reads as long as that runs, and is narrowed after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from omni_worker import App, Event, EventBus, Settings, bus
from omni_worker.bus import narrowing
from omni_worker.handler_consumers import planned_consumers
from omni_worker.nats_server import NatsServer
from omni_worker.operations.processes import WorkerProcess
from omni_worker.topology import SEVEN, consumer_config, narrowed

from ..waiting import until

XY = ("custom.x", "custom.y")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the consumers every 0.1 s, not every 10 s."""
    monkeypatch.setattr(bus, "REFRESH", 0.1)
    monkeypatch.setattr(bus, "BUSY_REFRESH", 0.1)
    monkeypatch.setattr(narrowing, "ALONE_FOR", 0.3)


@pytest.fixture
async def operator(nats_server: NatsServer) -> AsyncIterator[EventBus]:
    async with EventBus(nats_server.url, name="operator") as bus:
        yield bus


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each look of a worker with something to narrow."""
    found: list[str] = []
    ask = narrowing.processes

    async def counted(*args: Any, **options: Any) -> list[WorkerProcess]:
        found.append("look")
        return await ask(*args, **options)

    monkeypatch.setattr(narrowing, "processes", counted)
    return found


async def after_more(looks: list[str], count: int = 8) -> None:
    """Wait for so many more looks: for longer than `ALONE_FOR`."""
    enough = len(looks) + count
    await until(lambda: len(looks) >= enough)


async def filters(operator: EventBus, name: str = "d") -> tuple[str, ...]:
    """The filters of a consumer, none if there is no consumer."""
    info = await operator.transport.operators.consumer_info("CUSTOM", name)
    return () if info is None else info.config.filters


def app_of(server: NatsServer, *types: str, service: Any = "on", **options: Any) -> App:
    """A version of an app, with one handler that never ends."""
    app = App("shop", settings=Settings(urls=server.url, service=service, grace=0.1))

    @app.on(*types, durable="d", **options)
    async def handle(event: Event[Any]) -> None:
        await asyncio.Event().wait()

    return app


async def test_a_type_less_is_left_to_an_older_version_at_its_limit_until_that_ends(
    nats_server: NatsServer, operator: EventBus, looks: list[str]
) -> None:
    old = app_of(nats_server, *XY, channel="c", concurrency=1, prefetch=0)
    new = app_of(nats_server, "custom.x", channel="c")
    async with AsyncExitStack() as older:
        bus = await older.enter_async_context(old.running())
        await operator.publish("custom.y", 1, channel="c", instance="i")
        await until(lambda: bus.subscriptions[0].running == 1)  # it asks for nothing more
        async with new.running():
            await after_more(looks)
            beside = await filters(operator)
            await older.aclose()

            async def is_narrow() -> bool:
                return await filters(operator) == ("custom.x.c.>",)

            await until(is_narrow)

    assert beside == ("custom.x.c.>", "custom.y.c.>")


@pytest.mark.parametrize(("service", "is_busy"), [("on", True), ("off", False)])
async def test_what_a_process_reads_that_does_not_answer_is_left_to_it(
    nats_server: NatsServer, operator: EventBus, looks: list[str], service: Any, is_busy: bool
) -> None:
    old = app_of(nats_server, *XY, channel="c", service="off")
    new = app_of(nats_server, "custom.x", channel="c", service=service, concurrency=1, prefetch=0)
    async with old.running(), new.running() as bus:
        for number in range(6 * is_busy):  # the server takes turns
            await operator.publish("custom.x", number, channel="c", instance="i")
        await until(lambda: bus.subscriptions[0].running == is_busy)
        await after_more(looks)

        assert await filters(operator) == ("custom.x.c.>", "custom.y.c.>")


async def test_an_older_version_does_not_narrow_what_a_newer_one_widened(
    nats_server: NatsServer, operator: EventBus
) -> None:
    old = app_of(nats_server, "custom.x", channel="c")
    async with old.running() as bus:
        async with app_of(nats_server, *XY, channel="c").running():
            pass
        [binding] = bus._subscriptions.bindings

        assert bus._subscriptions._narrowing is not None
        assert list(bus._subscriptions._narrowing._wide(binding)) == []


async def test_two_consumers_made_by_an_operator_are_read_without_a_restart(
    nats_server: NatsServer, operator: EventBus
) -> None:
    operators = operator.transport.operators
    ordered = app_of(nats_server, "custom.x", order_by=lambda event: "k")
    async with ordered.running():
        pass
    new = app_of(nats_server, "custom.x", service="off")  # it narrows nothing itself
    async with new.running() as bus:
        begun = [one.consumer for one in bus.subscriptions[0].sources]
        main = await operators.consumer_info("CUSTOM", "d")
        assert main is not None
        [one] = planned_consumers(
            bus.subscriptions[0].handler, bus.registry, bus.settings, SEVEN
        ).consumers
        assert one.bare is not None
        await operators.create_consumer("CUSTOM", consumer_config(one.bare))
        await operators.update_consumer("CUSTOM", narrowed(one.main, main.config))
        await until(lambda: len(bus.subscriptions[0].sources) == 2)

    assert begun == ["d"]

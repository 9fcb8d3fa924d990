"""Measured: a batch runs while its handler's function is called, and is held while it gathers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from omni_worker import App, Batch, Draft, EventBus, Settings
from omni_worker.metrics import Metrics
from omni_worker.nats_server import NatsServer
from tests.promises.conftest import World
from tests.test_metrics import scrape, value
from tests.waiting import until


@asynccontextmanager
async def running(world: World, app: App) -> AsyncIterator[EventBus]:
    url = world.server.url if isinstance(world.server, NatsServer) else "nats://memory:4222"
    settings = Settings(urls=url)
    async with app.running(transport=world.transport(settings), settings=settings) as bus:
        yield bus


async def publish(bus: EventBus, *numbers: int) -> None:
    await bus.publish_many([Draft(type="custom.row", payload=one) for one in numbers])


async def test_events_run_while_the_function_is_called_and_are_held_while_they_gather(
    world: World,
) -> None:
    app, begun, go = App("shop"), asyncio.Event(), asyncio.Event()
    metrics = app.use(Metrics())

    @app.on_batch("custom.row", durable="rows", size=3, wait=60.0)
    async def store(batch: Batch) -> None:
        begun.set()
        await go.wait()

    async with running(world, app) as bus:
        [subscription] = bus.subscriptions
        await publish(bus, 1, 2)
        await until(lambda: subscription.held == 2)
        gathering = scrape(metrics)
        await publish(bus, 3)
        await begun.wait()
        called = scrape(metrics)
        go.set()
        await until(lambda: subscription.counts.handled == 3)
        ended = scrape(metrics)

    shown = [(value(one, "running"), value(one, "held")) for one in (gathering, called)]
    assert shown == [(0, 2), (3, 3)]
    assert value(ended, "running") == 0
    count = "handler_duration_seconds_count"
    assert [value(one, count, outcome="ok") for one in (called, ended)] == [0, 1]


async def test_the_time_of_a_call_is_without_that_of_gathering_which_is_waited(
    world: World,
) -> None:
    app = App("shop")
    metrics = app.use(Metrics())

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.5)
    async def store(batch: Batch) -> None: ...

    async with running(world, app) as bus:
        await publish(bus, 1, 2, 3)
        await until(lambda: bus.subscriptions[0].counts.handled == 3)
        found = scrape(metrics)

    assert value(found, "handler_duration_seconds_sum", outcome="ok") < 0.4
    assert value(found, "event_wait_seconds_sum") > 0.4
    assert value(found, "event_wait_seconds_count") == 3


async def test_each_call_is_measured_and_each_event_waits_once(world: World) -> None:
    app = App("shop")
    metrics = app.use(Metrics())

    @app.on_batch("custom.row", durable="rows", size=4, wait=60.0, max_retries=0)
    async def store(batch: Batch) -> None:
        if 2 in batch.payloads:
            raise ValueError(2)

    async with running(world, app) as bus:
        await publish(bus, 0, 1, 2, 3)
        counts = bus.subscriptions[0].counts
        await until(lambda: (counts.handled, counts.dead_lettered) == (3, 1))
        found = scrape(metrics)

    # All four and what follows: 0 and 1, 2 and 3, 2 alone, 3 alone.
    count = "handler_duration_seconds_count"
    assert [value(found, count, outcome=one) for one in ("ok", "failed")] == [2, 3]
    assert value(found, "event_wait_seconds_count") == 4

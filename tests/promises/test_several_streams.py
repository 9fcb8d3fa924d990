"""Streams of one handler share its credit, and none waits for another."""

from __future__ import annotations

import asyncio
from typing import Any

from omni_worker import App, Event
from omni_worker.testing import TestWorker

from ..waiting import until
from .conftest import World, body

BUSY, OTHER = "custom.busy", "system.health.degraded"


async def fill(world: World, type: str, count: int, name: str = "") -> None:
    """Store events as a foreign program does."""
    ids = [f"{name or type}-{number}" for number in range(count)]
    stores = (world.store(type, body(id, type, number)) for number, id in enumerate(ids))
    await asyncio.gather(*stores)


async def test_after_each_burst_on_one_stream_events_of_another_begin_within_a_second(
    world: World,
) -> None:
    loop, began = asyncio.get_running_loop(), dict[str, float]()

    async def handle(event: Event[Any]) -> None:
        began[event.id] = loop.time()

    bus = await world.bus()
    await bus.subscribe([BUSY, OTHER], handle, durable="d")
    late, bursts = [], 10  # the places that an idle request keeps add up from burst to burst
    for burst in range(bursts):
        await fill(world, BUSY, 500, f"burst-{burst}")
        await until(lambda number=burst + 1: sum(one[0] == "b" for one in began) == 500 * number)
        for number in range(2):
            due = loop.time() + 1.0
            await until(lambda due=due: loop.time() >= due)  # one event a second
            id = f"tick-{burst}-{number}"
            stored = loop.time()
            await world.store(OTHER, body(id, OTHER, number))
            await until(lambda id=id: id in began)
            late.append(began[id] - stored)

    assert [one for one in late if one > 1] == []


async def test_while_one_stream_has_a_backlog_events_of_another_get_their_turn(
    world: World,
) -> None:
    ran: list[str] = []

    async def handle(event: Event[Any]) -> None:
        await asyncio.sleep(0.005)
        ran.append(event.type)

    bus = await world.bus()
    await fill(world, BUSY, 300)
    await fill(world, OTHER, 30)
    subscription = await bus.subscribe(
        [BUSY, OTHER], handle, durable="d", concurrency=2, prefetch=0, start_from="first"
    )
    await until(lambda: ran.count(OTHER) == 30)

    assert ran.count(BUSY) < 100
    assert subscription.counts.handed_back <= 2


async def test_all_of_the_prefetch_is_used_though_no_slot_is_free(world: World) -> None:
    go_on = asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        await go_on.wait()

    bus = await world.bus()
    await fill(world, BUSY, 40)
    options: dict[str, Any] = {"durable": "d", "concurrency": 2, "prefetch": 16}
    subscription = await bus.subscribe([BUSY, OTHER], handle, start_from="first", **options)
    await until(lambda: subscription.held >= 18)

    held = subscription.held
    go_on.set()
    await until(lambda: subscription.counts.handled == 40)

    assert held == 18


async def test_a_full_worker_hands_back_what_came_by_a_request_that_was_still_open(
    world: World,
) -> None:
    full, other = await world.bus(), await world.bus()
    forever, elsewhere = asyncio.Event(), list[str]()
    options: dict[str, Any] = {"durable": "d", "concurrency": 1, "prefetch": 0}

    async def occupied(event: Event[Any]) -> None:
        await forever.wait()

    async def free(event: Event[Any]) -> None:
        elsewhere.append(event.type)

    first = await full.subscribe([BUSY, OTHER], occupied, **options)
    await until(lambda: all(one.outstanding for one in first.sources))
    await fill(world, BUSY, 1)
    await until(lambda: first.running == 1)
    await other.subscribe([BUSY, OTHER], free, **options)
    await fill(world, OTHER, 3)
    await until(lambda: elsewhere.count(OTHER) == 3)

    assert first.held == 1
    forever.set()


async def test_a_run_of_an_hour_hoards_nothing_of_other_streams() -> None:
    app = App("hoards")
    begun: list[str] = []

    @app.on(BUSY, OTHER, durable="d", concurrency=1, prefetch=0)
    async def handle(event: Event[Any]) -> None:
        begun.append(event.id)
        await asyncio.sleep(3600)

    async with TestWorker(app) as t:
        bus = t._process.bus
        assert bus is not None
        [subscription] = bus.subscriptions
        await t.publish(BUSY, 1, id="long")
        await t.advance(seconds=1)
        for number in range(3):
            await t.publish(OTHER, {"component": "x", "status": "y"}, id=f"other-{number}")
        await t.advance(seconds=2)
        held = subscription.held
        await t.advance(seconds=3600)

    assert held == 1
    assert begun[:2] == ["long", "other-0"]

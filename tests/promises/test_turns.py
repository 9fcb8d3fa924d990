"""Turns: with order_by one of several processes is served, in memory as on a server."""

from __future__ import annotations

import asyncio
from typing import Any

from omni_worker import Draft, Event

from ..waiting import until
from .conftest import World

OPTIONS: dict[str, Any] = {"durable": "d", "order_by": lambda event: "one", "concurrency": 2}


async def test_one_is_served_and_the_next_one_goes_on(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    handled: list[tuple[str, int]] = []

    async def first(event: Event[Any]) -> None:
        await asyncio.sleep(0.01)
        handled.append(("first", event.payload))

    async def second(event: Event[Any]) -> None:
        handled.append(("second", event.payload))

    active = await one.subscribe("custom.thing", first, **OPTIONS)
    await one.publish("custom.thing", 0)
    await until(lambda: len(handled) == 1)
    standby = await other.subscribe("custom.thing", second, **OPTIONS)
    await one.publish_many(Draft(type="custom.thing", payload=n) for n in range(1, 40))
    await until(lambda: len(handled) >= 10)
    assert [source.is_served for source in standby.sources] == [False]
    await active.unsubscribe()
    ran_here = len(handled)
    await until(lambda: len(handled) == 40)

    assert [n for _, n in handled] == list(range(40))
    assert [who for who, _ in handled] == ["first"] * ran_here + ["second"] * (40 - ran_here)
    assert [source.is_served for source in standby.sources] == [True]


async def test_a_run_goes_on_after_its_turn_and_the_next_of_its_key_waits_for_it(
    world: World,
) -> None:
    one, other = await world.bus(), await world.bus()
    handled: list[tuple[str, int]] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def hang(event: Event[Any]) -> None:
        begun.set()
        await release.wait()
        handled.append(("first", event.payload))

    async def quick(event: Event[Any]) -> None:
        handled.append(("second", event.payload))

    first = await one.subscribe("custom.thing", hang, **OPTIONS)
    await one.publish_many(Draft(type="custom.thing", payload=n) for n in range(5))
    await begun.wait()
    await until(lambda: first.held == 5)
    second = await other.subscribe("custom.thing", quick, **OPTIONS)
    # As if its loop had been blocked: the next one is served, and this one hears of it.
    [source] = first.sources
    await source.stop()
    await source.close()
    first.standby.take_turn(source, False)
    await until(lambda: first.held == 1)
    await until(lambda: second.held == 4)
    assert handled == []
    release.set()
    await until(lambda: len(handled) == 5)

    assert handled == [("first", 0), *(("second", n) for n in range(1, 5))]

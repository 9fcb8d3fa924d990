"""Many events of one key: they wait behind each other, and other keys run on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker import Draft, Event, Retry
from omni_worker.subscription.gates import parked

from ..waiting import until
from .conftest import World

OPTIONS: dict[str, Any] = {
    "durable": "d", "concurrency": 2, "prefetch": 10, "start_from": "first",
    "order_by": lambda e: e.payload[0],
}  # fmt: skip


def drafts(key: str, count: int) -> list[Draft]:
    return [Draft(type="custom.thing", payload=[key, number]) for number in range(count)]


async def test_other_keys_go_on_while_one_has_many_times_the_prefetch_waiting(
    world: World,
) -> None:
    bus = await world.bus()
    go_on = asyncio.Event()
    ran: list[tuple[str, int]] = []

    async def handle(event: Event[Any]) -> None:
        key, number = event.payload
        if key == "hot":
            await go_on.wait()
        ran.append((key, number))

    await bus.publish_many(drafts("hot", 200))
    await bus.publish_many([one for key in "abc" for one in drafts(key, 5)])
    subscription = await bus.subscribe("custom.thing", handle, **OPTIONS)
    await until(lambda: len(ran) == 15)
    others, held = list(ran), subscription.held
    go_on.set()
    await until(lambda: len(ran) == 215)

    assert held == 200
    assert sorted(others) == [(key, number) for key in "abc" for number in range(5)]
    assert ran[15:] == [("hot", number) for number in range(200)]
    assert subscription.held == 0


async def test_keys_whose_events_wait_for_a_retry_do_not_hold_other_keys(world: World) -> None:
    bus = await world.bus()
    ran: list[str] = []

    async def handle(event: Event[Any]) -> None:
        key, _ = event.payload
        if key.startswith("fails"):
            raise Retry(after=600)
        ran.append(key)

    failing = [one for number in range(60) for one in drafts(f"fails-{number}", 1)]
    await bus.publish_many([*failing, *drafts("well", 5)])
    await bus.subscribe("custom.thing", handle, **OPTIONS)

    await until(lambda: len(ran) == 5)


async def test_what_waits_behind_its_key_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "MOST", 50)
    bus = await world.bus()
    go_on = asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        await go_on.wait()

    await bus.publish_many(drafts("hot", 200))
    subscription = await bus.subscribe("custom.thing", handle, **OPTIONS)
    await until(lambda: subscription.held >= 61)
    held = subscription.held
    go_on.set()
    await until(lambda: subscription.counts.handled == 200)

    assert held <= 62
    assert subscription.held == 0


async def test_stopping_hands_back_in_order_what_waits_behind_its_key(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    forever = asyncio.Event()
    ran: list[int] = []

    async def stuck(event: Event[Any]) -> None:
        await forever.wait()

    async def handle(event: Event[Any]) -> None:
        ran.append(event.payload[1])

    await one.publish_many(drafts("hot", 100))
    subscription = await one.subscribe("custom.thing", stuck, **OPTIONS)
    await until(lambda: subscription.held == 100)
    await subscription.unsubscribe(0)
    held = subscription.held
    await other.subscribe("custom.thing", handle, **OPTIONS)
    await until(lambda: len(ran) == 100)

    assert held == 0
    assert ran == list(range(100))

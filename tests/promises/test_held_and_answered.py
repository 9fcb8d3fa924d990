"""Promises 3, 4 and 8: one answer each, held work stays held, prefetch is bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from omni_worker import Context, Event, EventBus
from omni_worker.transports.memory import MemoryTransport

from ..waiting import until
from .conftest import World, body


async def test_a_handler_longer_than_ack_wait_runs_once(world: World) -> None:
    bus = await world.bus()
    runs = 0

    async def slow(event: Event[Any]) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(1.5)

    subscription = await bus.subscribe("custom.thing", slow, durable="d", ack_wait=0.5)
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.handled == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert runs == 1


async def test_what_waits_in_the_buffer_keeps_its_lease_too(world: World) -> None:
    bus = await world.bus()
    seen: list[int] = []

    async def slow(event: Event[Any]) -> None:
        seen.append(event.payload)
        await asyncio.sleep(0.3)

    await bus.subscribe("custom.thing", slow, durable="d", ack_wait=0.5, concurrency=1, prefetch=10)
    for number in range(6):
        await bus.publish("custom.thing", number)
    await until(lambda: len(seen) >= 6)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert seen == list(range(6))


async def test_after_a_reconnect_what_is_held_is_leased_anew_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease may have run out but for a moment: the timer would come too late."""
    bus = await world.bus()
    begun, release = asyncio.Event(), asyncio.Event()

    async def wait(event: Event[Any]) -> None:
        begun.set()
        await release.wait()

    subscription = await bus.subscribe("custom.thing", wait, durable="d", concurrency=1, prefetch=5)
    for number in range(3):
        await bus.publish("custom.thing", number)
    await begun.wait()
    await until(lambda: subscription.held == 3)
    [source] = [one for one in subscription.sources if one.consumer == "d-bare"]
    extended: list[int] = []
    monkeypatch.setattr(
        type(source), "answer", lambda self, one, answer: extended.append(one.sequence)
    )
    subscription.resumed(source)
    monkeypatch.undo()
    release.set()

    assert extended == [1, 2, 3]


async def test_no_more_is_held_than_concurrency_and_prefetch(world: World) -> None:
    bus = await world.bus()
    release = asyncio.Event()

    async def wait(event: Event[Any]) -> None:
        await release.wait()

    subscription = await bus.subscribe("custom.thing", wait, durable="d", concurrency=2, prefetch=3)
    for number in range(30):
        await world.store("custom.thing", body(str(number)))
    await until(lambda: subscription.held == 5)
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert (await world.info("CUSTOM", "d")).num_ack_pending == 5
    running = subscription.running
    release.set()
    await until(lambda: subscription.counts.handled == 30)

    assert running == 2


async def test_concurrency_is_reached_and_not_exceeded(world: World) -> None:
    bus = await world.bus()
    now, most = 0, 0
    release = asyncio.Event()

    async def count(event: Event[Any]) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await release.wait()
        now -= 1

    subscription = await bus.subscribe(
        "custom.thing", count, durable="d", concurrency=7, prefetch=43
    )
    for number in range(50):
        await world.store("custom.thing", body(str(number)))
    await until(lambda: subscription.held == 50 and now >= 7)
    release.set()
    await until(lambda: subscription.counts.handled == 50)

    assert most == 7


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_timeout_ends_a_handler_and_counts_as_a_failure(
    world: World, swallows: bool
) -> None:
    bus = await world.bus()
    attempts: list[int] = []

    async def hang(event: Event[Any], ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt > 1:
            return
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if not swallows:
                raise
            await asyncio.sleep(3600)

    subscription = await bus.subscribe(
        "custom.thing", hang, durable="d", timeout=0.15, retry_delay=0.01
    )
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.handled == 1)

    assert attempts == [1, 2]
    assert subscription.counts.retried == 1


async def test_a_handler_that_ends_well_after_its_timeout_is_done_and_the_next_runs_its_time(
    world: World,
) -> None:
    bus = await world.bus()
    ended: list[bool] = []

    async def tidy_up(event: Event[Any]) -> None:
        try:
            # Hangs once. Then it takes a while, in which a timer left from that would end it.
            await asyncio.sleep(3600 if not ended else 0.05)
        except asyncio.CancelledError:
            ended.append(True)
        else:
            ended.append(False)

    subscription = await bus.subscribe(
        "custom.thing", tidy_up, durable="d", timeout=0.5, concurrency=1
    )
    for _ in range(3):
        await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.handled == 3)

    assert ended == [True, False, False]
    assert subscription.counts.retried == 0


async def test_the_letter_of_a_timeout_shows_where_the_handler_was_waiting(world: World) -> None:
    bus = await world.bus()

    async def ask_the_slow_service() -> None:
        await asyncio.sleep(3600)

    async def hang(event: Event[Any]) -> None:
        await ask_the_slow_service()

    subscription = await bus.subscribe(
        "custom.thing", hang, durable="d", timeout=0.05, max_retries=0
    )
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.dead_lettered == 1)
    [letter] = await world.letters()

    assert letter["payload"]["error"] == "the handler ran longer than timeout=0.05 s"
    assert "in ask_the_slow_service" in letter["payload"]["traceback"]


async def test_a_timeout_ends_a_run_whose_consumer_is_gone(world: World) -> None:
    bus = await world.bus()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(event: Event[Any]) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    subscription = await bus.subscribe("custom.thing", hang, durable="d", timeout=0.3, ack_wait=0.6)
    await bus.publish("custom.thing", {})
    await begun.wait()
    for source in subscription.sources:
        subscription.detach(source)  # nothing is held any more, and it is not made again
    async with asyncio.timeout(10):
        await ended.wait()
    await until(lambda: not any(slot.delivery for slot in subscription._slots.all))

    assert subscription.counts.retried == 0  # what was lost with its consumer takes no answer


async def test_a_plain_function_runs_in_a_thread_and_the_loop_goes_on(world: World) -> None:
    bus = await world.bus()
    names: list[str] = []
    others: list[str] = []

    def blocking(event: Event[Any], ctx: Context) -> None:
        time.sleep(0.05)
        names.append(threading.current_thread().name)
        ctx.wait(ctx.publish("custom.other", {"from": event.id}))

    async def other(event: Event[Any]) -> None:
        others.append(event.metadata.correlation_id or "")

    await bus.subscribe("custom.thing", blocking, durable="d", concurrency=3)
    await bus.subscribe("custom.other", other, durable="o")
    ids = [(await bus.publish("custom.thing", {})).id for _ in range(6)]
    await until(lambda: len(others) == 6)

    assert sorted(others) == sorted(ids)
    assert threading.main_thread().name not in names


async def test_an_overdue_thread_keeps_its_event_until_it_ends(world: World) -> None:
    bus = await world.bus()
    runs = 0
    free = threading.Event()

    def stuck(event: Event[Any]) -> None:
        nonlocal runs
        runs += 1
        free.wait(5)

    subscription = await bus.subscribe(
        "custom.thing", stuck, durable="d", timeout=0.1, ack_wait=0.4
    )
    await bus.publish("custom.thing", {})
    await until(lambda: runs == 1)
    started = time.monotonic()
    await until(lambda: time.monotonic() - started > 1.0)  # longer than timeout and ack_wait
    held = subscription.held
    free.set()
    await until(lambda: subscription.counts.handled == 1)

    assert held == 1
    assert runs == 1


async def test_a_settled_event_that_comes_again_is_acknowledged_unrun() -> None:
    transport = MemoryTransport()
    async with EventBus(transport=transport, name="tests") as bus:
        runs = 0

        async def handle(event: Event[Any]) -> None:
            nonlocal runs
            runs += 1

        subscription = await bus.subscribe("custom.thing", handle, durable="d", ack_wait=0.3)
        transport.drop_answers(1)
        await bus.publish("custom.thing", {})
        await until(lambda: subscription.counts.recognised == 1)

        assert runs == 1


async def test_after_a_reconnect_nothing_settled_runs_twice() -> None:
    transport = MemoryTransport()
    async with EventBus(transport=transport, name="tests") as bus:
        seen: list[int] = []

        async def handle(event: Event[Any]) -> None:
            seen.append(event.payload)
            if event.payload == 5:
                transport.disconnect()  # the answers of this turn are lost on the way

        await bus.subscribe("custom.thing", handle, durable="d", ack_wait=0.4, concurrency=1)
        for number in range(10):
            transport.server.store("custom.thing", body(str(number), payload=number))
        await until(lambda: 5 in seen)
        transport.reconnect()
        await until(lambda: len(set(seen)) == 10)

        assert sorted(seen) == list(range(10))

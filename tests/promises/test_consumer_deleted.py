"""A consumer deleted while an event waits for its retry: what came after it does not run again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest

from omni_worker import Event, EventBus, Retry, recently_settled
from omni_worker.nats_server import NatsServer
from omni_worker.notes.settled import read_block, write_block
from omni_worker.operations import recreate
from omni_worker.operations.recreate import look_at_remaking, remake
from omni_worker.positions import read_position
from omni_worker.recently_settled import SettledMemory
from omni_worker.service import service
from omni_worker.topology import consumer_config

from ..waiting import until
from .conftest import World, body

EVENTS = 400


class KilledNow(BaseException):
    """The end of a process, as far as one that lives on can have it."""


async def raise_interrupted(*_: object) -> None:
    raise KilledNow


async def fill(world: World, count: int = EVENTS) -> None:
    await world.store("custom.thing", body("waits", payload=0))
    await asyncio.gather(
        *(world.store("custom.thing", body(f"e-{n}", payload=n)) for n in range(1, count))
    )


class Handled:
    """Runs of one durable, in any number of buses; the first event waits for its retry."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.by: list[Counter[str]] = []

    async def subscribe(self, bus: Any, **options: Any) -> Any:
        own: Counter[str] = Counter()
        self.by.append(own)

        async def handle(event: Event[Any]) -> None:
            if event.payload == 0:
                raise Retry(after=50)
            await asyncio.sleep(0)
            self.runs[event.id] += 1
            own[event.id] += 1

        options |= {"durable": "d", "start_from": "first"}
        return await bus.subscribe("custom.thing", handle, **options)


@pytest.fixture(autouse=True)
def small_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recently_settled, "GENERATION", 100)


async def lose_consumer(world: World) -> None:
    """As an operator; returns when it is recreated and has delivered everything again."""
    operators = world.buses[0].transport.operators
    before = await world.info("CUSTOM", "d")
    await operators.delete_consumer("CUSTOM", "d-bare")

    async def is_back() -> bool:
        info = await operators.consumer_info("CUSTOM", "d-bare")
        return (
            info is not None
            and info.created != before.created
            and (info.num_pending, info.num_ack_pending) == (0, 1)
        )

    await until(is_back)


async def test_nothing_runs_twice_in_one_process(world: World) -> None:
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)
    await fill(world)
    await until(lambda: len(handled.runs) == EVENTS - 1)

    await lose_consumer(world)

    assert set(handled.runs.values()) == {1}


async def test_nothing_runs_twice_in_another_process_either(world: World) -> None:
    one, other, handled = await world.bus(), await world.bus(), Handled()
    await handled.subscribe(one)
    await handled.subscribe(other)
    await fill(world)
    await until(lambda: len(handled.runs) == EVENTS - 1)

    for bus in (one, other):  # twice: the second look sees that something stays unsettled
        for known in bus._subscriptions.bindings:
            await known.refresh()
            await known.refresh()
    await lose_consumer(world)

    assert all(handled.by)
    assert set(handled.runs.values()) == {1}


async def test_a_deletion_is_noticed_while_nothing_is_requested(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reports it to open requests only, and a full handler has none."""
    monkeypatch.setattr("omni_worker.bus.REFRESH", 0.2)
    bus, runs, done = await world.bus(), Counter[str](), asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        runs[event.id] += 1
        await done.wait()

    options: dict[str, Any] = {"durable": "d", "concurrency": 1, "prefetch": 0}
    await bus.subscribe("custom.thing", handle, channel="whatsapp", **options)
    await world.store("custom.thing.whatsapp.wa-1", body("long"))
    await until(lambda: runs["long"] == 1)
    operators = bus.transport.operators
    await operators.delete_consumer("CUSTOM", "d")

    async def is_back() -> bool:
        return await operators.consumer_info("CUSTOM", "d") is not None

    await until(is_back)
    done.set()
    await world.store("custom.thing.whatsapp.wa-1", body("next"))
    await until(lambda: runs["next"] == 1)

    assert runs["long"] == 1


async def test_a_process_that_starts_leaves_a_deleted_consumer_to_those_that_read_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that it created would begin with the first event, for all processes."""
    one, handled = await world.bus(), Handled()
    await handled.subscribe(one)
    await fill(world, 50)
    await until(lambda: len(handled.runs) == 49)
    [known] = one._subscriptions.bindings
    lost: list[tuple[Any, Any]] = []
    notices = known.on_lost
    monkeypatch.setattr(known, "on_lost", lambda *about: lost.append(about))
    with service(one):
        await one.transport.operators.delete_consumer("CUSTOM", "d-bare")
        other = await world.bus()
        asked = watched(other.transport, "ask_all")
        starts = asyncio.create_task(handled.subscribe(other))
        await until(lambda: lost and asked.is_set())
        notices(*lost[0])
        await starts

    async def is_delivered() -> bool:
        info = await world.info("CUSTOM", "d-bare")
        return (info.num_pending, info.num_ack_pending) == (0, 1)  # one waits for its retry

    await until(is_delivered)
    assert set(handled.runs.values()) == {1}


def watched(of: Any, name: str) -> asyncio.Event:
    """Set an event when a coroutine function of an object has returned."""
    real, done = getattr(of, name), asyncio.Event()

    async def call(*given: Any, **named: Any) -> Any:
        try:
            return await real(*given, **named)
        finally:
            done.set()

    setattr(of, name, call)
    return done


async def test_what_an_operator_wants_again_runs_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    bus, handled = await world.bus(), Handled()
    subscription = await handled.subscribe(bus)
    await fill(world, 50)
    await until(lambda: len(handled.runs) == 49)
    [known] = bus._subscriptions.bindings
    [bound] = [one for one in known.bound.values() if one.spec.name == "d-bare"]

    operators = bus.transport.operators
    await operators.delete_consumer("CUSTOM", "d-bare")
    await operators.create_consumer("CUSTOM", consumer_config(bound.spec))
    await until(lambda: set(handled.runs.values()) == {2})

    assert subscription.counts.recognised == 0
    assert "was reset by others: its events run again" in caplog.text


async def test_a_recreation_by_hand_that_was_interrupted_is_finished_by_the_next_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.bus.REFRESH", 0.2)
    first, handled = await world.bus(), Handled()
    await handled.subscribe(first, start_from="new")
    await world.store("custom.thing", body("before", payload=1))
    await until(lambda: handled.runs["before"] == 1)
    [spec] = [one.spec for known in first._subscriptions.bindings for one in known.bound.values()
              if one.spec.name == "d-bare"]  # fmt: skip
    await until(lambda: world.is_quiet("CUSTOM", "d"))
    await first.close()
    second = await world.bus()
    world.buses.remove(first)
    await world.store("custom.thing", body("missed", payload=1))
    monkeypatch.setattr(recreate, "write_consumer", raise_interrupted)

    with pytest.raises(KilledNow):
        await remake(second.transport, await look_at_remaking(second.transport, spec))
    await handled.subscribe(second, start_from="new")

    await until(lambda: handled.runs["missed"] == 1)
    assert handled.runs["before"] == 1
    # The note has served: it would take a later consumer of that name back to here.
    operators = second.transport.operators
    await until(lambda: is_none(read_position(operators, "CUSTOM", "d-bare")))


async def is_none(answer: Awaitable[object]) -> bool:
    return await answer is None


def test_a_noted_block_is_read_as_it_was_and_a_broken_one_not_at_all() -> None:
    memory = SettledMemory()
    for sequence in range(70_000, 80_000, 3):
        memory.add(sequence, sequence * 1_000)

    [(_, block)] = memory.changed()

    assert read_block(write_block(block)) == block
    assert read_block(write_block(block)[:-4]) is None
    assert read_block(b"") is None
    assert len(write_block(block)) < 4_000


@pytest.mark.parametrize("new_link", [False, True], ids=["same link", "new link"])
async def test_what_a_reset_delivers_again_runs_again(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture, new_link: bool
) -> None:
    handled = Handled()
    async with EventBus(nats_server.url, name="tests") as bus:
        subscription = await handled.subscribe(bus, channel="whatsapp")
        for number in range(1, 50):
            await bus.publish("custom.thing", number, channel="whatsapp", instance="wa-1")
        await until(lambda: len(handled.runs) == 49)
        transport: Any = bus.transport
        [known] = bus._subscriptions.bindings
        if new_link:  # from now on first deliveries may be repeats
            transport._connection.force_reconnect("a test")
            await until(lambda: subscription.resumptions > 0)
            await until(
                lambda: known.bound and all(one.looks.deliveries for one in known.bound.values())
            )

        await transport._requests.ask("$JS.API.CONSUMER.RESET.CUSTOM.d", b'{"seq":1}')
        await until(lambda: set(handled.runs.values()) == {2})

    assert "was reset by others" in caplog.text

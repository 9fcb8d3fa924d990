"""A scaled handler: as many events at once as ordered, in every process, until it is reset."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from omni_worker import App, ConfigError, Event, EventBus
from omni_worker.cli.handler_list import handler_list
from omni_worker.listeners.sentences import sentence_of
from omni_worker.nats_server import NatsServer
from omni_worker.service import activity
from omni_worker.signals import Listener, Scaled, Signal
from omni_worker.steering.controls import this_person
from omni_worker.testing import TestWorker
from tests.operations.support import operate
from tests.promises.conftest import World, body, kind, real_server, world
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]


class Counted:
    """A handler whose runs end one by one, when they are let go."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most = 0  # at once, since it was set to 0
        self._go = asyncio.Semaphore(0)

    @property
    def running(self) -> int:
        return len(self.begun) - len(self.ended)

    async def handle(self, event: Event[Any]) -> None:
        self.begun.append(event.payload)
        self.most = max(self.most, self.running)
        await self._go.acquire()
        self.ended.append(event.payload)

    def let_go(self, count: int) -> None:
        for _ in range(count):
            self._go.release()

    async def until_running(self, count: int) -> None:
        await until(lambda: self.running == count, seen=lambda: self.running)


async def publish(bus: EventBus, count: int) -> None:
    for number in range(count):
        await bus.publish("custom.thing", number)


async def scale(bus: EventBus, concurrency: int) -> None:
    """Order a concurrency, and wait until this process follows."""
    await bus.scale("r1", concurrency)
    await until(lambda: bus.subscriptions[0].scaling.concurrency == concurrency)


async def test_more_begin_within_a_second_in_every_process(world: World) -> None:
    bus, other = await world.bus(), await world.bus()
    one, two = Counted(), Counted()
    await bus.subscribe("custom.thing", one.handle, durable="r1", concurrency=1, prefetch=1)
    await other.subscribe("custom.thing", two.handle, durable="r1", concurrency=1, prefetch=1)
    await publish(bus, 12)
    await until(lambda: one.running == two.running == 1)
    began = time.monotonic()

    await bus.scale("r1", 3, reason="much to do")
    await until(lambda: one.running == two.running == 3)

    assert time.monotonic() - began < 5  # a look would find it after ten seconds
    for each in (one, two):
        each.let_go(20)
    await until(lambda: world.is_quiet("CUSTOM", "r1"))
    assert (one.most, two.most) == (3, 3)
    assert sorted(one.ended + two.ended) == list(range(12))


async def test_with_fewer_nothing_that_runs_is_stopped_and_nothing_begins(world: World) -> None:
    bus, counted = await world.bus(), Counted()
    await bus.subscribe("custom.thing", counted.handle, durable="r1", concurrency=6)
    await publish(bus, 20)
    await counted.until_running(6)

    await scale(bus, 2)
    await until(lambda: bus.subscriptions[0].held == 6)  # what waits beyond it goes back
    counted.let_go(3)
    await counted.until_running(3)
    begun = len(counted.begun)
    counted.let_go(1)
    await counted.until_running(2)
    still = len(counted.begun)
    counted.most = 0
    counted.let_go(20)
    await until(lambda: world.is_quiet("CUSTOM", "r1"))

    assert (begun, still) == (6, 6)
    assert counted.most <= 2
    assert sorted(counted.ended) == list(range(20))  # each once
    assert bus.subscriptions[0].counts.handled == 20


@pytest.mark.parametrize("options", [{"limit": 1}, {"rate": "1/h"}], ids=["limit", "rate"])
async def test_what_waits_for_its_rate_or_limit_beyond_a_smaller_scale_is_for_others(
    world: World, options: dict[str, Any]
) -> None:
    bus, other, counted = await world.bus(), await world.bus(), Counted()
    await bus.subscribe("custom.thing", counted.handle, durable="r1", concurrency=6, **options)
    await publish(bus, 12)
    await until(lambda: counted.running == 1 and bus.subscriptions[0].held == 12)
    others = await other.subscribe(
        "custom.thing", counted.handle, durable="r1", concurrency=6, **options
    )

    await scale(bus, 1)
    await until(lambda: bus.subscriptions[0].held == 2)
    await until(lambda: others.held == 2)

    assert counted.begun == counted.begun[:1]
    if "limit" in options:
        counted.let_go(12)
        await until(lambda: world.is_quiet("CUSTOM", "r1"))
        assert sorted(counted.ended) == list(range(12))  # each once
        assert bus.subscriptions[0].counts.retried == others.counts.retried == 0


async def test_it_holds_for_processes_that_start_later_with_another_concurrency(
    world: World,
) -> None:
    looker, bus, counted = await world.bus("looker"), await world.bus(), Counted()
    await bus.subscribe("custom.thing", counted.handle, durable="r1", concurrency=1)
    await bus.scale("r1", 4, reason="night")
    await bus.close()
    bus = await world.bus()
    signals: list[Signal] = []
    bus.signals.add(Listener(signals.append))
    assert looker.is_connected

    await bus.subscribe("custom.thing", counted.handle, durable="r1", concurrency=2)
    await publish(bus, 8)
    await counted.until_running(4)
    listed = handler_list(bus)
    shown = activity(bus.subscriptions[0]).concurrency
    await bus.scale("r1", None)
    await until(lambda: bus.subscriptions[0].scaling.concurrency == 2)
    counted.let_go(8)
    await until(lambda: world.is_quiet("CUSTOM", "r1"))

    assert "    scaled    to 4 events at once by" in listed
    assert shown == 4
    scaled = [one for one in signals if isinstance(one, Scaled)]
    assert [(one.concurrency, one.declared) for one in scaled] == [(4, 2), (2, 2)]
    assert "(night); to end it: omni-worker scale r1 --reset" in scaled[0].reason
    assert scaled[1].reason == ""
    [changed, restored] = [one.text for one in map(sentence_of, scaled) if one is not None]
    assert changed.startswith("handle (r1) is scaled to 4 events at once by ")
    assert restored == "handle (r1) runs 2 at once again, as declared"


async def test_order_by_key_holds_while_it_is_scaled_up_and_down(world: World) -> None:
    bus, counted = await world.bus(), Counted()
    await bus.subscribe(
        "custom.thing", counted.handle, durable="r1", order_by=lambda event: event.payload % 4,
        concurrency=4,
    )  # fmt: skip
    for number in range(24):
        await world.store("custom.thing", body(str(number), payload=number))
    await counted.until_running(4)

    await scale(bus, 1)
    counted.let_go(6)
    await until(lambda: len(counted.ended) == 6)
    await counted.until_running(1)
    await bus.scale("r1", 4)
    await counted.until_running(4)
    counted.let_go(24)
    await until(lambda: world.is_quiet("CUSTOM", "r1"))

    for key in range(4):
        assert [one for one in counted.begun if one % 4 == key] == list(range(key, 24, 4))


async def test_a_plain_def_handler_gets_more_threads(world: World) -> None:
    bus, together, met = await world.bus(), threading.Barrier(3, timeout=10.0), list[int]()

    def handle(event: Event[Any]) -> None:
        met.append(together.wait())

    await bus.subscribe("custom.thing", handle, durable="r1", concurrency=1)
    await bus.scale("r1", 3)
    await publish(bus, 3)
    await until(lambda: world.is_quiet("CUSTOM", "r1"))

    assert sorted(met) == [0, 1, 2]


async def test_several_streams_share_what_is_ordered(world: World) -> None:
    bus, counted = await world.bus(), Counted()
    await bus.subscribe(
        ["custom.thing", "media.received"], counted.handle, durable="r1", concurrency=8
    )
    for number in range(20):
        await world.store("custom.thing", body(f"a{number}", payload=number))
        await world.store("media.received", body(f"b{number}", "media.received", payload=number))
    await counted.until_running(8)

    await scale(bus, 2)
    counted.let_go(6)
    await counted.until_running(2)
    counted.most = 0
    counted.let_go(40)
    for stream in ("CUSTOM", "MEDIA"):
        await until(lambda stream=stream: world.is_quiet(stream, "r1"))  # type: ignore[misc]

    assert counted.most <= 2
    assert len(counted.ended) == 40


async def test_a_number_that_cannot_be_and_a_handler_without_a_durable_are_refused(
    world: World,
) -> None:
    bus, counted = await world.bus(), Counted()
    await bus.subscribe("custom.thing", counted.handle, durable="r1")

    async def alone(event: Event[Any]) -> None:
        pass

    await bus.subscribe("custom.other", alone)

    with pytest.raises(ConfigError, match="scale to 0: expected 1 to 100000"):
        await bus.scale(counted.handle, 0)
    with pytest.raises(ConfigError, match="cannot be steered together"):
        await bus.scale(alone, 2)


async def test_an_app_scales_its_handler_in_virtual_time() -> None:
    app, most, running = App("shop"), 0, 0

    @app.on("custom.order", durable="orders", concurrency=1)
    async def place(event: Event[Any]) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(60)
        running -= 1

    async with TestWorker(app) as t:
        await app.scale(place, 3, reason="sale")
        for number in range(6):
            await t.publish("custom.order", number)
        await t.advance(minutes=3)
        await t.settle()

    assert most == 3


@pytest.fixture
def ask(nats_server: NatsServer) -> Callable[..., tuple[int, str]]:
    def ask(*arguments: str) -> tuple[int, str]:
        said = operate(nats_server.url, *arguments)
        return said.code, " ".join((said.out + said.err).split())

    return ask


async def test_a_command_scales_and_resets_without_the_app(
    nats_server: NatsServer, ask: Callable[..., tuple[int, str]]
) -> None:
    counted = Counted()
    async with EventBus(nats_server.url, name="router") as bus:
        await bus.subscribe("custom.thing", counted.handle, durable="r1", concurrency=1)
        await publish(bus, 3)
        scaled = await asyncio.to_thread(ask, "scale", "r1", "3", "--reason", "sale")
        await counted.until_running(3)
        shown = await asyncio.to_thread(ask, "status")
        reset = await asyncio.to_thread(ask, "scale", "r1", "--reset")
        again = await asyncio.to_thread(ask, "scale", "r1", "--reset")
        counted.let_go(3)
    wrong = ask("scale", "r1")
    both = ask("scale", "r1", "3", "--reset")

    by = f"by {this_person()} (sale); to end it: omni-worker scale r1 --reset"
    says = f"scaled to 3 events at once {by}"
    assert scaled == (0, f"handle (r1) of router is {says}. Noticed by 1 process.")
    assert f"r1 is {says}." in shown[1]
    assert reset == (
        0, "handle (r1) of router runs as many events at once as it declares. Noticed by 1 process."
    )  # fmt: skip
    assert again == (0, "handle (r1) of router was not scaled.")
    assert (wrong[0], both[0]) == (2, 2)

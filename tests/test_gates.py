"""Gates: a limit on the rate and a pause, each an object before the runs, the engine untouched."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker import Draft, Event
from omni_worker.bus import EventBus
from omni_worker.handlers import Handler, declare
from omni_worker.outcomes import HandBack, Outcome
from omni_worker.signals import Listener, Paused, Resumed, Signal
from omni_worker.subscription.gates import Flow, Gate, Go
from omni_worker.subscription.run import Run

from .promises.conftest import World, kind, real_server, world
from .waiting import until

__all__ = ["kind", "real_server", "world"]  # fixtures


class Rate(Gate):
    """At most so many runs a second, evenly spread."""

    def __init__(self, per_second: float) -> None:
        self._every = 1 / per_second
        self._next = 0.0

    def opened(self, flow: Flow) -> None:
        self._flow = flow

    async def through(self, run: Run, go: Go) -> Outcome:
        now = self._flow.now()
        turn = max(now, self._next)
        self._next = turn + self._every
        if turn > now and not await self._flow.wait(turn - now):
            return HandBack(reason="the worker stops")
        return await go(run)


class Pause(Gate):
    """While paused nothing is pulled and nothing begins; what runs goes on."""

    def __init__(self) -> None:
        self._going = asyncio.Event()
        self._going.set()
        self._closed = False

    def opened(self, flow: Flow) -> None:
        self._flow = flow

    def pause(self, reason: str) -> None:
        self._going.clear()
        self._flow.hold("paused")
        self._flow.emit(Paused(handler=self._flow.handler, reason=reason))

    def resume(self) -> None:
        self._going.set()
        self._flow.release("paused")
        self._flow.emit(Resumed(handler=self._flow.handler))

    async def through(self, run: Run, go: Go) -> Outcome:
        await self._going.wait()
        if self._closed:
            return HandBack(reason="the worker stops")
        return await go(run)

    def close(self) -> None:
        self._closed = not self._going.is_set()
        self._going.set()


class Seen(Gate):
    """Record what went through, in order; an outcome in its place if one is set."""

    def __init__(self, name: str, seen: list[str], instead: Outcome | None = None) -> None:
        self._name = name
        self._seen = seen
        self._instead = instead

    async def through(self, run: Run, go: Go) -> Outcome:
        self._seen.append(f"{self._name} {run.event.payload} {run.attempt}")
        return self._instead if self._instead is not None else await go(run)


def handler_of(call: Any, **options: Any) -> Handler:
    given: Any = {"durable": "d", **options}
    return declare(
        call,
        app="tests",
        types=("custom.thing",),
        subject=None,
        channel=None,
        instance=None,
        options=given,
        names={},
    )


async def publish(bus: EventBus, *numbers: int) -> None:
    await bus.publish_many(Draft(type="custom.thing", payload=number) for number in numbers)


async def test_a_rate_gate_spreads_the_runs(world: World) -> None:
    bus = await world.bus()
    began: list[float] = []

    async def handle(event: Event[Any]) -> None:
        began.append(asyncio.get_running_loop().time())

    subscription = await bus.run_handler(handler_of(handle), gates=[Rate(50)])
    await publish(bus, *range(11))
    await until(lambda: subscription.counts.handled == 11)

    assert began[-1] - began[0] >= 0.2 - 0.01
    assert subscription.counts.handed_back == 0


async def test_while_paused_nothing_is_pulled_and_nothing_begins(world: World) -> None:
    bus = await world.bus()
    told: list[Signal] = []
    handled: list[int] = []
    gate, first = Pause(), asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)
        if event.payload == 0:
            gate.pause("a person asked")
            first.set()

    subscription = await bus.run_handler(
        handler_of(handle, concurrency=1, prefetch=3),
        gates=[gate],
        listeners=[Listener(told.append, (Paused, Resumed))],
    )
    await publish(bus, *range(40))
    await first.wait()
    await until(lambda: sum(source.outstanding for source in subscription.sources) == 0)
    paused = await world.info("CUSTOM", "d")
    await publish(bus, *range(40, 45))
    later = await world.info("CUSTOM", "d")
    ran_meanwhile, held = list(handled), subscription.held
    gate.resume()
    await until(lambda: len(handled) == 45)

    assert ran_meanwhile == [0]
    assert held <= 4
    assert later.delivered == paused.delivered <= 5
    assert later.num_waiting == 0
    assert handled == list(range(45))
    assert subscription.counts.handed_back == 0
    assert [type(signal) for signal in told] == [Paused, Resumed]


async def test_a_pause_takes_back_what_an_idle_handler_asked_for(world: World) -> None:
    bus = await world.bus()
    handled: list[int] = []
    gate = Pause()

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)

    subscription = await bus.run_handler(handler_of(handle), gates=[gate])
    await publish(bus, 0)
    await until(lambda: handled == [0])
    gate.pause("a person asked")
    await until(lambda: sum(source.outstanding for source in subscription.sources) == 0)
    await publish(bus, *range(1, 21))
    paused = await world.info("CUSTOM", "d")
    gate.resume()
    await until(lambda: len(handled) == 21)

    assert (paused.num_waiting, paused.num_ack_pending, paused.num_pending) == (0, 0, 20)
    assert handled == list(range(21))


async def test_a_paused_handler_stops_at_once_and_loses_nothing(world: World) -> None:
    bus = await world.bus()
    handled: list[int] = []
    gate = Pause()

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)

    subscription = await bus.run_handler(handler_of(handle), gates=[gate])
    gate.pause("a deploy")
    await publish(bus, *range(5))
    async with asyncio.timeout(5):
        await subscription.unsubscribe(grace=30)
    before = list(handled)
    await bus.run_handler(handler_of(handle))
    await until(lambda: len(handled) == 5)

    assert before == []
    assert sorted(handled) == list(range(5))


async def test_gates_stand_in_the_order_given_and_see_every_attempt(world: World) -> None:
    bus = await world.bus()
    seen: list[str] = []

    async def fails_once(event: Event[Any]) -> None:
        if len(seen) < 3:
            raise ValueError("no")

    subscription = await bus.run_handler(
        handler_of(fails_once, retry_delay=0.05), gates=[Seen("outer", seen), Seen("inner", seen)]
    )
    await publish(bus, 7)
    await until(lambda: subscription.counts.handled == 1)

    assert seen == ["outer 7 1", "inner 7 1", "outer 7 2", "inner 7 2"]


async def test_an_event_that_a_gate_hands_back_spends_no_attempt(world: World) -> None:
    bus = await world.bus()
    seen: list[str] = []
    closed = Seen("gate", seen, HandBack(0.05, "not now"))

    async def handle(event: Event[Any]) -> None:
        seen.append(f"handler {event.payload}")

    subscription = await bus.run_handler(handler_of(handle, max_retries=0), gates=[closed])
    await publish(bus, 7)
    await until(lambda: subscription.counts.handed_back >= 2)
    closed._instead = None
    await until(lambda: subscription.counts.handled == 1)

    assert seen[-2:] == ["gate 7 1", "handler 7"]
    assert subscription.counts.dead_lettered == 0


@pytest.mark.parametrize("options", [{"order_by": lambda event: 1}, {"exactly_once": True}])
async def test_a_gate_of_the_user_stands_beside_those_of_the_engine(
    world: World, options: dict[str, Any]
) -> None:
    bus = await world.bus()
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(f"handler {event.payload}")

    await bus.run_handler(handler_of(handle, **options), gates=[Seen("gate", seen)])
    await publish(bus, 1)
    await until(lambda: len(seen) == 2)

    assert seen == ["gate 1 1", "handler 1"]

"""Limits: how often a handler runs, and how many events at once, over all processes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from omni_worker import Context, Draft, Event, EventBus
from omni_worker.errors import TransportError
from omni_worker.handlers import declare
from omni_worker.limits import STREAM
from omni_worker.limits.places import Places
from omni_worker.outcomes import Outcome
from omni_worker.process.health import examine
from omni_worker.signals import Listener, Signal, Stalled, StallEnded
from omni_worker.subscription.gates import Gate, Go, limit, rate, trouble
from omni_worker.subscription.run import Run

from ..transports.servers import oldest
from ..waiting import until
from .conftest import World

SLACK = 0.25  # seconds an event may take from its token to its handler, on a busy machine


class Runs:
    """A handler that notes when it runs for which payload, and how many run at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.times: list[float] = []
        self.payloads: list[Any] = []
        self.attempts: list[int] = []
        self.most = self.now = 0
        self.seconds = seconds

    async def handle(self, event: Event[Any], ctx: Context) -> None:
        self.times.append(time.monotonic())
        self.payloads.append(event.payload)
        self.attempts.append(ctx.attempt)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1

    def check(self, per_second: float, spare: int) -> None:
        """In no window are there more runs than the rate, one burst of a second, and ``spare``."""
        burst = max(1.0, per_second)
        for at, begin in enumerate(self.times):
            for upto in range(at, len(self.times)):
                seconds = self.times[upto] - begin + SLACK
                assert upto - at + 1 <= per_second * seconds + burst + spare, (at, upto, seconds)


async def publish(bus: EventBus, *payloads: Any) -> None:
    await bus.publish_many(Draft(type="custom.thing", payload=one) for one in payloads)


async def test_a_rate_is_that_of_all_processes_and_spends_no_attempt(world: World) -> None:
    buses, runs = [await world.bus() for _ in range(3)], Runs()
    await publish(buses[0], *range(90))
    for bus in buses:
        await bus.subscribe(
            "custom.thing", runs.handle, durable="d", start_from="first", rate="40/s"
        )
    await until(lambda: len(runs.times) == 90)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    runs.check(40, spare=3)
    assert runs.times[-1] - runs.times[0] > 1.0  # 40 at once, 50 more at their rate
    assert sorted(runs.payloads) == list(range(90))
    assert set(runs.attempts) == {1}
    assert sum(bus.subscriptions[0].counts.handed_back for bus in buses) == 0


async def test_a_key_whose_rate_is_used_up_holds_up_nobody_else(world: World) -> None:
    bus, runs = await world.bus(), Runs()
    await publish(bus, *["hot"] * 200, *[f"chat-{n}" for n in range(20)])
    subscription = await bus.subscribe(
        "custom.thing", runs.handle, durable="d", start_from="first", concurrency=2, prefetch=2,
        rate="1/h", rate_by=lambda event: event.payload,
    )  # fmt: skip
    await until(lambda: len(runs.times) == 21)
    await until(lambda: subscription.counts.handed_back >= 197)
    await until(lambda: subscription.held == 2)  # they wait here for their tokens

    assert Counter(runs.payloads) == Counter({"hot": 1, **{f"chat-{n}": 1 for n in range(20)}})
    assert await bus.transport.operators.stream_info(STREAM) is not None


async def test_what_was_handed_back_comes_for_its_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "HELD_FOR", 0.2)
    bus, runs = await world.bus(), Runs()
    subscription = await bus.subscribe(
        "custom.thing", runs.handle, durable="d", rate="20/s", rate_by=lambda event: "all"
    )
    await publish(bus, *range(50))
    await until(lambda: len(runs.times) == 50)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    runs.check(20, spare=1)
    assert subscription.counts.handed_back > 0
    assert sorted(runs.payloads) == list(range(50))
    assert set(runs.attempts) == {1}
    assert subscription.counts.dead_lettered == 0


async def test_a_retry_is_a_run_and_needs_a_token(world: World) -> None:
    bus, runs = await world.bus(), Runs()

    async def fail(event: Event[Any], ctx: Context) -> None:
        await runs.handle(event, ctx)
        raise ValueError("always")

    subscription = await bus.subscribe(
        "custom.thing", fail, durable="d", rate="4/s", max_retries=2, retry_delay=0.001, breaker=0
    )
    await publish(bus, *range(4))
    await until(lambda: subscription.counts.dead_lettered == 4)

    assert len(runs.times) == 12
    runs.check(4, spare=1)
    assert Counter(runs.attempts) == {1: 4, 2: 4, 3: 4}


async def test_a_function_of_the_key_that_fails_is_a_failure_of_the_event(world: World) -> None:
    bus, runs = await world.bus(), Runs()
    subscription = await bus.subscribe(
        "custom.thing", runs.handle, durable="d", max_retries=0, rate="9/s",
        rate_by=lambda event: event.payload["chat"],
    )  # fmt: skip
    await publish(bus, {"chat": {"not": "a key"}}, {}, {"chat": 1})
    await until(lambda: subscription.counts.dead_lettered == 2)
    await until(lambda: subscription.counts.handled == 1)

    errors = sorted(one["payload"]["error"] for one in await world.letters())
    assert errors == ["'chat'", "rate_by= returned dict: expected a string, a number, or a tuple of"
                      " them"]  # fmt: skip


class Barrier(Gate):
    """A gate of the user that holds every run until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.waiting = 0

    async def through(self, run: Run, go: Go) -> Outcome:
        self.waiting += 1
        await self.go.wait()
        return await go(run)


async def test_tokens_that_waited_elsewhere_are_not_spent_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "FRESH", 0.1)
    bus, runs, gate = await world.bus(), Runs(), Barrier()

    handler = declare(
        runs.handle,
        app=bus.name,
        types=["custom.thing"],
        options={"durable": "d", "rate": "5/s", "concurrency": 20},
    )
    await bus.run_handler(handler, gates=[gate])
    await publish(bus, *range(15))
    await until(lambda: gate.waiting >= 12)
    gate.go.set()
    began = time.monotonic()
    await until(lambda: len(runs.times) == 15)

    assert sum(one - began < 0.15 for one in runs.times) <= 3  # a spare one, and what is due
    assert runs.times[-1] - began > 1.5


async def test_a_rate_keeps_the_order_of_keys(world: World) -> None:
    bus, runs = await world.bus(), Runs()
    await publish(bus, *[{"key": n % 3, "n": n} for n in range(60)])
    subscription = await bus.subscribe(
        "custom.thing", runs.handle, durable="d", start_from="first",
        order_by=lambda event: event.payload["key"],
        rate="10/s", rate_by=lambda event: event.payload["key"], limit=2,
    )  # fmt: skip
    await until(lambda: len(runs.times) == 60)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    for key in range(3):
        numbers = [one["n"] for one in runs.payloads if one["key"] == key]
        assert numbers == sorted(numbers)
    assert runs.most <= 2
    assert subscription.counts.handed_back == 0


async def test_with_exactly_once_each_runs_once_within_rate_and_limit(world: World) -> None:
    buses, runs = [await world.bus() for _ in range(2)], Runs(0.01)
    for bus in buses:
        await bus.subscribe(
            "custom.thing", runs.handle, durable="d", exactly_once=True, rate="30/s", limit=2
        )
    await publish(buses[0], *range(50))
    await until(lambda: len(runs.times) >= 50)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert sorted(runs.payloads) == list(range(50))
    assert runs.most <= 2
    runs.check(30, spare=2)


# --- so many at once -------------------------------------------------------------------------


async def test_a_limit_is_that_of_all_processes_and_consumers(world: World) -> None:
    buses, runs = [await world.bus() for _ in range(3)], Runs(0.02)
    for bus in buses:
        await bus.subscribe("custom.*", runs.handle, durable="d", limit=4)
    await buses[0].publish_many(
        Draft(type="custom.thing", payload=n, **where)
        for n in range(60)
        for where in ({}, {"channel": "whatsapp", "instance": "wa-1"})
    )
    await until(lambda: len(runs.times) == 120)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert runs.most == 4
    assert set(runs.attempts) == {1}


async def test_processes_take_turns_where_there_are_fewer_places(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, "TURN", 0.1)
    buses = [await world.bus() for _ in range(3)]
    runs, order = Runs(0.01), list[int]()
    for number, bus in enumerate(buses):

        async def handle(event: Event[Any], ctx: Context, number: int = number) -> None:
            order.append(number)
            await runs.handle(event, ctx)

        await bus.subscribe("custom.thing", handle, durable="d", limit=1, prefetch=5)
    await publish(buses[0], *range(150))
    await until(lambda: len(order) == 150, 30)

    assert runs.most == 1
    assert {*order[:90]} == {0, 1, 2}  # though the first one had enough to do


async def test_the_places_of_a_killed_process_come_free_after_its_lease(world: World) -> None:
    bus, runs = await world.bus(), Runs()
    handler = declare(
        runs.handle, app=bus.name, types=["custom.thing"], options={"durable": "d", "limit": 2}
    )
    dead = Places(lambda: bus.transport.bucket("omni-worker-limits", ttl=7_200.0), handler, 2)
    assert await dead.write(await dead.look(), 0, 2, 1.0)  # and never again
    assert dead.mine == 2

    await bus.run_handler(handler)
    await publish(bus, 1)
    began = time.monotonic()
    await until(lambda: runs.times)

    assert 0.9 < runs.times[0] - began < 5


async def test_places_are_not_used_while_it_is_unclear_whether_they_are_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await world.bus()
    handler = declare(
        Runs().handle, app=bus.name, types=["custom.thing"], options={"durable": "d", "limit": 3}
    )
    bucket = await bus.transport.bucket("omni-worker-limits", ttl=7_200.0)
    places = Places(lambda: bus.transport.bucket("omni-worker-limits", ttl=7_200.0), handler, 3)
    assert await places.write(await places.look(), 0, 3, 30.0)
    members = await places.look()

    async def unanswered(*_: Any) -> int:
        raise TransportError("no answer")

    monkeypatch.setattr(type(bucket), "update", unanswered)
    with pytest.raises(TransportError):
        await places.write(members, 1, 0, 30.0)

    assert places.mine == 1
    await places.look()
    assert places.mine == 3  # it was not written


async def test_an_outage_of_a_whole_lease_takes_no_places_from_others(world: World) -> None:
    bus = await world.bus()
    handler = declare(
        Runs().handle, app=bus.name, types=["custom.thing"], options={"durable": "d", "limit": 2}
    )
    one, other = (
        Places(lambda: bus.transport.bucket("omni-worker-limits", ttl=7_200.0), handler, 2)
        for _ in range(2)
    )
    assert await one.write(await one.look(), 0, 2, 1.0)
    assert [member.places for member in await other.look()] == [2]
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > 1.1)  # no process can look or write

    after = await other.look()

    assert [member.places for member in after] == [2]
    assert await one.write(await one.look(), 2, 0, 1.0)
    assert [member.places for member in await other.look()] == [2]


async def test_a_process_that_stops_gives_its_places_up_at_once(world: World) -> None:
    bus, other, runs = await world.bus(), await world.bus(), Runs(0.3)
    for one in (bus, other):
        await one.subscribe("custom.thing", runs.handle, durable="d", limit=2)
    await publish(bus, *range(16))
    await until(lambda: all(one.subscriptions[0].running for one in (bus, other)))

    began = time.monotonic()
    await other.close(5.0)
    await until(lambda: bus.subscriptions[0].running == 2)
    both_after = time.monotonic() - began
    await until(lambda: len(runs.times) == 16)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert both_after < 10  # the lease is one of thirty seconds
    assert runs.most == 2
    assert set(runs.attempts) == {1}


async def test_what_waits_for_a_token_or_a_place_is_handed_back_by_a_pause_and_a_stop(
    world: World,
) -> None:
    bus, runs = await world.bus(), Runs(0.5)
    for durable, options in (("d", {"rate": "1/h"}), ("e", {"limit": 1})):
        await bus.subscribe("custom.thing", runs.handle, durable=durable, **options)
    await publish(bus, *range(5))
    rated, limited = bus.subscriptions
    await until(lambda: rated.held == 4 and limited.held >= 1)

    await bus.pause("d")
    await bus.pause("e")
    await until(lambda: rated.held == limited.held == 0)
    ran = len(runs.times)
    await bus.resume("e")
    await until(lambda: limited.counts.handled == 5)
    await bus.close(1.0)

    assert ran < 6
    assert rated.counts.handled == 1
    assert set(runs.attempts) == {1}


# --- the bucket ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"rate": "100/s"}, {"limit": 3}], ids=["rate", "limit"])
async def test_without_a_working_bucket_nothing_begins_and_the_reason_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(trouble, "STALLED_AFTER", 0.3)
    monkeypatch.setattr(limit, "IDLE", 0.01)
    bus, runs = await world.bus(), Runs()
    heard: list[Signal] = []
    bus.signals.add(Listener(heard.append, (Stalled, StallEnded)))
    subscription = await bus.subscribe("custom.thing", runs.handle, durable="d", **options)
    await publish(bus, 0)
    await until(lambda: runs.payloads == [0])
    await until(lambda: _has_no_places(bus))
    await world.update_stream(STREAM, max_msg_size=5)
    await publish(bus, *range(1, 31))
    await until(lambda: heard)
    [reason] = subscription.stalls
    not_ready, ran = examine(bus, 0.0).not_ready, len(runs.times)
    await world.update_stream(STREAM, max_msg_size=-1)
    await until(lambda: len(runs.times) == 31)
    await until(lambda: len(heard) == 2)

    [name] = options
    assert reason.startswith(f"{name}= takes no events: the bucket omni-worker-limits refuses")
    assert not_ready == (f"handler d takes no events: {reason}",)
    assert ran <= 1 + (name == "rate")  # a chunk taken before
    assert [type(one) for one in heard] == [Stalled, StallEnded]
    assert set(runs.attempts) == {1}


async def _has_no_places(bus: EventBus) -> bool:
    bucket = await bus.transport.bucket("omni-worker-limits", ttl=7_200.0)
    entry = await bucket.get(f"limit.{bus.name}.d")
    return entry is None or entry.value == b"[]"


async def test_limits_go_on_when_their_bucket_was_deleted(world: World) -> None:
    bus, runs = await world.bus(), Runs()
    await bus.subscribe("custom.thing", runs.handle, durable="d", rate="50/s", limit=3)
    await publish(bus, 0)
    await until(lambda: runs.payloads == [0])
    await world.delete_stream(STREAM)
    await publish(bus, *range(1, 21))
    await until(lambda: len(runs.times) == 21)

    assert sorted(runs.payloads) == list(range(21))
    assert runs.most <= 3


async def test_the_oldest_server_that_we_promise_has_limits_as_well() -> None:
    with oldest() as server:
        runs = Runs(0.01)
        async with EventBus(server.url, name="a") as one, EventBus(server.url, name="a") as two:
            for bus in (one, two):
                await bus.subscribe("custom.thing", runs.handle, durable="d", rate="40/s", limit=3)
            await publish(one, *range(60))
            await until(lambda: len(runs.times) == 60)

    runs.check(40, spare=2)
    assert runs.times[-1] - runs.times[0] > 0.4
    assert runs.most <= 3

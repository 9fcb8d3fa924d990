"""A paused handler: nothing is delivered or begun, everywhere, until it is resumed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omni_worker import App, ConfigError, Event, EventBus, Reject
from omni_worker.cli.handler_list import handler_list
from omni_worker.errors import PermissionDenied, TransportError
from omni_worker.listeners.sentences import sentence_of
from omni_worker.nats_server import NatsServer
from omni_worker.process.health import examine
from omni_worker.signals import AppReaderPaused, Listener, Paused, Resumed, Signal
from omni_worker.steering.controls import Controls, this_person
from omni_worker.steering.orders import STREAM
from omni_worker.steering.pauses import NoSuchHandler, check_version
from omni_worker.testing import TestWorker
from omni_worker.transports.base import Message
from tests.operations.support import operate
from tests.promises.conftest import World, body, kind, real_server, world
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]


class Held:
    """A handler whose runs end when they are let go."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.go = asyncio.Event()

    async def handle(self, event: Event[Any]) -> None:
        self.begun.append(event.payload)
        await self.go.wait()


async def buffered(bus: EventBus, count: int) -> None:
    await until(lambda: bus.subscriptions[0].held == count, seen=lambda: bus.subscriptions[0].held)


async def test_what_has_not_begun_waits_on_the_server_and_what_runs_ends(world: World) -> None:
    bus, held = await world.bus(), Held()
    await bus.subscribe("custom.thing", held.handle, durable="r1", concurrency=1, prefetch=5)
    for number in range(4):
        await bus.publish("custom.thing", number)
    await buffered(bus, 4)

    await bus.pause("r1", reason="night")
    await buffered(bus, 1)
    held.go.set()
    await buffered(bus, 0)
    paused = list(held.begun)
    await bus.resume("r1")
    await until(lambda: world.is_quiet("CUSTOM", "r1"))

    assert paused == [0]
    assert sorted(held.begun) == [0, 1, 2, 3]
    assert bus.subscriptions[0].counts.handled == 4


async def test_the_first_event_comes_at_once_after_a_resume(world: World) -> None:
    bus = await world.bus()
    other = await world.bus()
    came: list[float] = []

    async def handle(event: Event[Any]) -> None:
        came.append(time.monotonic())

    for one in (bus, other):
        await one.subscribe("custom.thing", handle, durable="r1")
    await bus.pause("r1")
    await bus.publish("custom.thing", 1)
    began = time.monotonic()

    await other.resume("r1")
    await until(lambda: came)

    assert came[0] - began < 5  # a look would find it after ten seconds


async def test_a_pause_names_who_and_why_wherever_it_is_seen(world: World) -> None:
    bus = await world.bus()
    signals: list[Signal] = []
    bus.signals.add(Listener(signals.append))
    await bus.subscribe("custom.thing", Held().handle, durable="r1")

    await bus.pause("r1", for_=timedelta(minutes=5), reason="the bank is down")
    await until(lambda: bus.subscriptions[0].warnings)
    report, listed = examine(bus, 0.0), handler_list(bus)
    await bus.resume("r1")
    await until(lambda: any(isinstance(one, Resumed) for one in signals))

    [warning] = report.warnings
    lines = [sentence_of(one) for one in signals if isinstance(one, Paused | Resumed)]
    [paused, resumed] = [one.text for one in lines if one is not None]
    assert paused.startswith("handle (r1) is paused until 20")
    assert resumed == "handle (r1) is resumed"
    assert warning.startswith("handler r1: paused until 20")
    assert "(the bank is down); to resume: omni-worker resume r1" in warning
    assert report.why_not_ready == ()
    assert "    paused    until" in listed
    assert len([one for one in signals if isinstance(one, Paused)]) == 1
    assert examine(bus, 0.0).warnings == ()


async def test_a_pause_for_a_time_ends_by_itself(world: World) -> None:
    bus, held = await world.bus(), Held()
    held.go.set()
    await bus.subscribe("custom.thing", held.handle, durable="r1")

    await bus.pause("r1", for_=1.0)
    await bus.publish("custom.thing", 1)
    paused = (await world.info("CUSTOM", "r1")).is_paused
    await until(lambda: held.begun)

    assert paused
    await until(lambda: not bus.subscriptions[0].warnings)


async def test_a_consumer_that_is_made_while_its_handler_is_paused_is_paused_too(
    world: World,
) -> None:
    bus, held = await world.bus(), Held()
    held.go.set()
    await bus.subscribe("custom.thing", held.handle, durable="r1")
    await bus.pause("r1")
    first = await world.info("CUSTOM", "r1")

    await bus.transport.operators.delete_consumer("CUSTOM", "r1")
    await until(lambda: _is_new(world, first.created))
    await bus.publish("custom.thing", 1)
    again = await world.info("CUSTOM", "r1")
    await bus.resume("r1")
    await until(lambda: held.begun)

    assert again.is_paused


async def _is_new(world: World, created: int) -> bool:
    info = await world.buses[0].transport.operators.consumer_info("CUSTOM", "r1")
    return info is not None and info.created != created


async def test_a_process_that_starts_while_its_handler_is_paused_knows_why(world: World) -> None:
    looker, bus, held = await world.bus("looker"), await world.bus(), Held()
    held.go.set()
    await bus.subscribe("custom.thing", held.handle, durable="r1")
    await bus.pause("r1", reason="night")
    await bus.close()
    bus = await world.bus()
    assert looker.is_connected

    await bus.subscribe("custom.thing", held.handle, durable="r1", ack_wait=20.0)
    [warning] = bus.subscriptions[0].warnings
    await bus.publish("custom.thing", 1)
    info = await world.info("CUSTOM", "r1")
    await bus.resume("r1")
    await until(lambda: held.begun)

    assert "(night)" in warning
    assert (info.is_paused, info.config.ack_wait) == (True, 20.0)  # an update keeps it


async def test_a_dead_letter_that_is_sent_back_waits_as_all_others_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.subscription.pauses.RETURN_AFTER", 0.2)
    bus = await world.bus()
    runs: list[int] = []

    async def handle(event: Event[Any]) -> None:
        runs.append(event.payload)
        if len(runs) == 1:
            raise Reject("not today")

    await bus.subscribe("custom.thing", handle, durable="r1")
    await bus.publish("custom.thing", 1)
    await until(lambda: world.is_quiet("CUSTOM", "r1"))
    [letter] = [one async for one in bus.dead_letters.list()]
    await bus.pause("r1")
    await until(lambda: bus.subscriptions[0].pauses.is_paused)

    await bus.dead_letters.retry(letter)
    await bus._returns.look()
    await until(lambda: _is_redelivered(world))
    paused = list(runs)
    await bus.resume("r1")
    await until(lambda: len(runs) == 2)

    assert paused == [1]
    await until(lambda: world.is_quiet("OMNI_WORKER", "tests-retry"))
    assert bus.subscriptions[0].counts.dead_lettered == 1


async def _is_redelivered(world: World) -> bool:
    info = await world.info("OMNI_WORKER", "tests-retry")
    return info.deliveries >= 3


async def test_order_holds_over_a_pause(world: World) -> None:
    bus, held = await world.bus(), Held()
    await bus.subscribe(
        "custom.thing", held.handle, durable="r1", order_by=lambda event: event.payload % 2,
        concurrency=4,
    )  # fmt: skip
    for number in range(12):
        await world.store("custom.thing", body(str(number), payload=number))
    await until(lambda: len(held.begun) == 2)

    await bus.pause("r1")
    await buffered(bus, 2)
    held.go.set()
    await buffered(bus, 0)
    paused = list(held.begun)
    await bus.resume("r1")
    await until(lambda: world.is_quiet("CUSTOM", "r1"))

    assert paused == [0, 1]
    assert [one for one in held.begun if one % 2] == [1, 3, 5, 7, 9, 11]
    assert [one for one in held.begun if not one % 2] == [0, 2, 4, 6, 8, 10]


async def test_a_second_pause_with_another_reason_is_reported(world: World) -> None:
    bus = await world.bus()
    signals: list[Signal] = []
    bus.signals.add(Listener(signals.append))
    await bus.subscribe("custom.thing", Held().handle, durable="r1")
    await bus.pause("r1", reason="night")
    await until(lambda: bus.subscriptions[0].warnings)

    await bus.pause("r1", reason="the bank is down")
    await until(lambda: "the bank is down" in bus.subscriptions[0].warnings[0])

    reasons = [one.reason for one in signals if isinstance(one, Paused)]
    assert [("night" in one, "the bank is down" in one) for one in reasons] == [
        (True, False), (False, True),
    ]  # fmt: skip


async def test_what_waits_for_a_trial_of_the_breaker_is_not_tried_in_a_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.subscription.gates.breaker.FIRST_PAUSE", 5.0)
    bus = await world.bus()
    runs, handled, is_down = 0, list[int](), True

    async def handle(event: Event[Any]) -> None:
        nonlocal runs
        runs += 1
        if is_down:
            raise ConnectionError("away")
        handled.append(event.payload)

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="r1", breaker=2, concurrency=2, retry_delay=0.05
    )
    for number in range(8):
        await bus.publish("custom.thing", number)
    await until(lambda: subscription.is_on_trial and len(subscription._parts.breaker._waiting) == 2)
    before = runs
    await bus.pause("r1")
    await until(lambda: not subscription._parts.breaker._waiting)
    await until(lambda: subscription.held == 0)
    paused = runs
    is_down = False
    await bus.resume("r1")
    await until(lambda: len(handled) == 8)

    assert paused == before
    assert sorted(handled) == list(range(8))


@pytest.mark.parametrize("options", [{}, {"order_by": lambda event: event.payload % 3}])
async def test_after_a_resume_an_open_breaker_tries_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("omni_worker.subscription.gates.breaker.FIRST_PAUSE", 600.0)
    bus, handled, is_down = await world.bus(), list[int](), True

    async def handle(event: Event[Any]) -> None:
        if is_down:
            raise ConnectionError("away")
        handled.append(event.payload)

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="r1", breaker=2, concurrency=2, retry_delay=0.05, **options
    )
    for number in range(8):
        await bus.publish("custom.thing", number)
    await until(lambda: subscription.is_on_trial and subscription._parts.breaker._waiting)
    await bus.pause("r1")
    await until(lambda: subscription.pauses.is_paused)
    is_down = False
    await bus.resume("r1")
    await until(lambda: handled)

    await until(lambda: not subscription.is_on_trial)


async def test_in_order_nothing_new_is_tried_in_a_pause_and_all_comes_at_once_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.subscription.gates.breaker.FIRST_PAUSE", 0.3)
    bus = await world.bus()
    begun, handled, is_down = list[int](), list[int](), True

    async def handle(event: Event[Any]) -> None:
        begun.append(event.payload)
        if is_down:
            raise ConnectionError("away")
        handled.append(event.payload)

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="r1", breaker=2, concurrency=3, retry_delay=0.05,
        max_retries=100, order_by=lambda event: event.payload % 6,
    )  # fmt: skip
    for number in range(24):
        await bus.publish("custom.thing", number)
    waiting = subscription._parts.breaker._waiting
    await until(lambda: len([one for one in waiting if not one.trouble.failures]) == 3)

    await bus.pause("r1")
    await until(lambda: all(one.trouble.failures for one in waiting))
    await until(lambda: subscription.held <= 2)  # retries, which hold their keys
    paused = set(begun)
    is_down = False
    resumed = time.monotonic()
    await bus.resume("r1")
    await until(lambda: len(handled) == 24)

    assert paused == {0, 1}
    assert time.monotonic() - resumed < 10  # not after ack_wait
    for key in range(6):
        assert [one for one in handled if one % 6 == key] == list(range(key, 24, 6))
    await until(lambda: subscription.held == 0, seen=lambda: subscription.held)


async def test_the_right_to_read_orders_is_used_when_it_is_granted_while_running(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await world.bus()
    operators, is_denied = bus.transport.operators, True
    stream_info = operators.stream_info

    async def asked(stream: str) -> Any:
        if is_denied and stream == STREAM:
            raise PermissionDenied("no right to it")
        return await stream_info(stream)

    monkeypatch.setattr(operators, "stream_info", asked)
    await bus.subscribe("custom.thing", Held().handle, durable="r1")
    other = await world.bus("other")
    await Controls(other.transport, "tests", lambda: "me").pause("r1", None, "night")
    await until(lambda: bus.subscriptions[0].warnings)
    without = list(bus.subscriptions[0].warnings)

    is_denied = False
    await Controls(other.transport, "tests", lambda: "me").pause("r1", None, "still night")
    await until(lambda: "by me (still night)" in bus.subscriptions[0].warnings[0])

    assert all("is paused by others" in one for one in without)


async def test_a_handler_is_named_by_its_durable_or_its_function(world: World) -> None:
    bus, held = await world.bus(), Held()
    await bus.subscribe("custom.thing", held.handle, durable="r1")

    async def alone(event: Event[Any]) -> None:
        pass

    async def stranger(event: Event[Any]) -> None:
        pass

    await bus.subscribe("custom.other", alone)

    await bus.pause(held.handle)
    assert (await world.info("CUSTOM", "r1")).is_paused
    await bus.resume("handle")
    assert not (await world.info("CUSTOM", "r1")).is_paused
    with pytest.raises(ConfigError, match="no durable= and no queue="):
        await bus.pause(alone)
    with pytest.raises(ConfigError, match=r"stranger is no handler .* of these: .*handle \(r1\)"):
        await bus.pause(stranger)
    for seconds in (0, -1.0, float("nan"), 1e18):
        with pytest.raises(ConfigError, match="more than 0"):
            await bus.pause("r1", for_=seconds)
    with pytest.raises(NoSuchHandler, match=r"'r9'; the server has .*r1"):
        await bus.pause("r9")


def test_a_server_that_cannot_pause_is_named_with_its_version() -> None:
    check_version((2, 11, 0))

    with pytest.raises(TransportError, match=r"needs nats-server 2\.11\.0 .* is 2\.10\.26"):
        check_version((2, 10, 26))


async def test_a_pause_in_virtual_time_lasts_as_long_as_it_says() -> None:
    app, handled = App("shop"), list[Any]()

    @app.on("custom.order", durable="orders")
    async def place(event: Event[Any]) -> None:
        handled.append(event.payload)

    async with TestWorker(app) as t:
        await app.pause(place, for_=timedelta(hours=1), reason="stocktaking")
        await t.publish("custom.order", 1)
        await t.advance(minutes=59)
        early = list(handled)
        await t.advance(minutes=2)
        await t.settle()

    assert (early, handled) == ([], [1])


@pytest.fixture
def ask(nats_server: NatsServer) -> Callable[..., tuple[int, str]]:
    def ask(*arguments: str) -> tuple[int, str]:
        said = operate(nats_server.url, *arguments)
        return said.code, " ".join((said.out + said.err).split())

    return ask


async def test_a_command_pauses_and_resumes_on_every_stream_without_the_app(
    nats_server: NatsServer, ask: Callable[..., tuple[int, str]]
) -> None:
    held = Held()
    held.go.set()
    async with EventBus(nats_server.url, name="router") as bus:
        await bus.subscribe(["custom.thing", "message.failed"], held.handle, durable="r1")
        paused = await asyncio.to_thread(ask, "pause", "r1", "--for", "10m", "--reason", "night")
        await bus.publish("custom.thing", 1)
        await bus.transport.publish(
            Message("message.failed", body("2", "message.failed"), ""), timeout=5
        )
        shown = await asyncio.to_thread(ask, "status")
        noticed = list(bus.subscriptions[0].warnings)
        resumed = await asyncio.to_thread(ask, "resume", "r1")
        await until(lambda: len(held.begun) == 2)
        again = await asyncio.to_thread(ask, "resume", "r1")
    unknown = ask("pause", "r2")
    too_long = ask("pause", "r1", "--for", "99999999w")

    by = f"by {this_person()} (night); to resume: omni-worker resume r1"
    assert paused[0] == 0
    assert paused[1].startswith("handle (r1) of router is paused until 20")
    assert by in paused[1]
    assert "Noticed by 1 process." in paused[1]
    assert by in shown[1]
    assert by in noticed[0]
    assert resumed[1].startswith("handle (r1) of router is resumed.")
    assert again == (0, "handle (r1) of router was not paused.")
    assert unknown == (
        1, "omni-worker: no consumer belongs to a handler 'r2'; the server has r1"
    )  # fmt: skip
    assert too_long[0] == 2
    assert "less than 100 years; without a time it lasts until" in too_long[1]


async def test_what_an_app_reads_for_itself_is_not_paused_but_resumed_when_others_paused_it(
    nats_server: NatsServer, ask: Callable[..., tuple[int, str]]
) -> None:
    heard: list[Any] = []

    async def hear(event: Event[Any]) -> None:
        heard.append(event.payload)

    async with EventBus(nats_server.url, name="shop") as bus:
        await bus.subscribe("custom.late", hear, durable="r1")
        await bus.publish("custom.late", 1, after=0)
        await until(lambda: heard == [1])
        refused = await asyncio.to_thread(ask, "pause", "shop-due", "--app-name", "shop")
        unscaled = await asyncio.to_thread(ask, "scale", "shop-due", "3")
        again = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        await bus.transport.operators.pause_consumer("OMNI_WORKER", "shop-due", again)
        await bus.publish("custom.late", 2, after=0)
        shown = await asyncio.to_thread(ask, "status")
        examined = await asyncio.to_thread(ask, "doctor")
        resumed = await asyncio.to_thread(ask, "resume", "shop-due")
        await until(lambda: heard == [1, 2])
        after = await asyncio.to_thread(ask, "doctor")

    why = (
        "shop-due belongs to no handler: it publishes the events of shop that are due (after=, at=,"
        " crons), and atomic() blocks; to hold back one event or cron: omni-worker schedules pause"
        " KEY; to stop a handler: omni-worker pause HANDLER"
    )
    assert refused == unscaled == (1, f"omni-worker: {why}")
    stops = "nothing of shop that is due is published, and no atomic() block"
    how = "omni-worker resume shop-due"
    assert f"shop-due is paused by others, so {stops}; to resume: {how}." in shown[1]
    assert f"shop-due on OMNI_WORKER: paused, so {stops}" in examined[1]
    assert how in examined[1]
    assert resumed == (0, "shop-due of shop is resumed.")
    assert "shop-due" not in after[1]


async def test_the_doctor_says_who_paused_a_handler_and_how_it_goes_on(
    nats_server: NatsServer, ask: Callable[..., tuple[int, str]]
) -> None:
    async with EventBus(nats_server.url, name="router") as bus:
        held = Held()
        await bus.subscribe("custom.thing", held.handle, durable="r1")
        await asyncio.to_thread(ask, "pause", "r1", "--reason", "night")
        by_us = await asyncio.to_thread(ask, "doctor")
        await asyncio.to_thread(ask, "resume", "r1")
        later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        await bus.transport.operators.pause_consumer("CUSTOM", "r1", later)
        by_others = await asyncio.to_thread(ask, "doctor")
        shown = await asyncio.to_thread(ask, "status")

    by = f"paused by {this_person()} (night), so nothing is delivered"
    assert by_us[1].count(f"(r1) on CUSTOM: {by}") == 1  # one line for both of its consumers
    assert "omni-worker resume r1" in by_us[1]
    assert "(r1) on CUSTOM: paused, so nothing is delivered" in by_others[1]
    assert "omni-worker resume r1" in by_others[1]
    assert "nats consumer resume" not in by_us[1] + by_others[1]
    again = "to resume: omni-worker resume r1"
    assert f"r1 is paused by others, so nothing is delivered; {again}." in shown[1]


async def test_a_worker_says_that_what_its_app_reads_for_itself_is_paused(world: World) -> None:
    heard: list[AppReaderPaused] = []
    bus = await world.bus()
    bus.signals.add(Listener(heard.append, (AppReaderPaused,)))
    await bus.publish("custom.late", 1, after=3600)
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    due = f"{bus.name}-due"

    await bus.transport.operators.pause_consumer("OMNI_WORKER", due, later)
    await bus.schedules.look()
    await bus.schedules.look()
    paused = examine(bus, 0.0)
    await Controls(bus.transport, bus.name, this_person).resume(due)
    await bus.schedules.look()

    says = (
        f"{due} is paused by others, so nothing of {bus.name} that is due is published, and no"
        f" atomic() block; to resume: omni-worker resume {due}"
    )
    assert (paused.warnings, paused.not_ready) == ((says,), ())
    assert [(one.reason, one.is_over) for one in heard] == [(says, False), (says, True)]
    sentences = [sentence_of(one) for one in heard]
    assert [one.text for one in sentences if one] == [says, f"{due} is no longer paused"]
    assert examine(bus, 0.0).warnings == ()

"""A concurrency that adapts itself: as many at once as are worth it, within its bounds."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from omni_worker import App, Auto, ConfigError, Draft, Event, EventBus
from omni_worker.adaptive import Climb
from omni_worker.cli.handler_list import handler_list
from omni_worker.handlers import with_settings
from omni_worker.listeners.sentences import sentence_of
from omni_worker.options import check_options, options_in_force
from omni_worker.service import activity
from omni_worker.settings import Settings
from omni_worker.signals import Listener, Scaled, Signal, Tuned
from omni_worker.testing import TestWorker
from tests.promises.conftest import World, kind, real_server, world
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]

LOOK = 0.25


class Dependency:
    """Dependency of handlers: at most ``room`` of their calls go on at once, the others queue."""

    def __init__(self, room: int, seconds: float) -> None:
        self.seconds = seconds
        self._room = asyncio.Semaphore(room)

    async def call(self) -> None:
        async with self._room:
            await asyncio.sleep(self.seconds)


def climbed(climb: Climb, room: int, seconds: float, *, lasts: float, began: float = 0.0) -> float:
    """Let a climb look at a handler whose calls behave like a ``Dependency``; return the time."""
    now, handled = began, began * 1_000.0
    while now < began + lasts:
        now += LOOK
        handled += min(climb.size, room) / seconds * LOOK
        climb.look(now, int(handled), is_full=True)
    return now


# --- what is decided ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "least", "most"), [(1, 1, 2), (5, 4, 8), (20, 13, 30), (60, 35, 90), (1000, 133, 200)]
)
def test_it_finds_about_as_many_as_the_dependency_can_take(
    room: int, least: int, most: int
) -> None:
    climb = Climb(Auto())

    climbed(climb, room, 0.1, lasts=60)

    assert least <= climb.size <= most


def test_many_are_reached_in_seconds() -> None:
    climb = Climb(Auto())

    climbed(climb, 1000, 0.1, lasts=8)

    assert climb.size == 200


def test_runs_that_take_longer_without_more_of_them_lower_it() -> None:
    climb = Climb(Auto())
    now = climbed(climb, 40, 0.1, lasts=60)
    before = climb.size

    climbed(climb, 8, 0.1, lasts=40, began=now)  # the dependency lost four fifths of its room

    assert before >= 26
    assert climb.size <= 12


def test_runs_that_are_only_longer_do_not_lower_it_for_long() -> None:
    climb = Climb(Auto())
    now = climbed(climb, 40, 0.1, lasts=60)

    sizes = set()
    for _ in range(20):
        now = climbed(climb, 40, 0.4, lasts=4, began=now)
        sizes.add(climb.size)

    assert min(sizes) >= 17
    assert climb.size >= 26


def test_while_no_events_wait_nothing_changes() -> None:
    climb = Climb(Auto(1, 200))

    for look in range(1, 1_000):
        climb.look(look * LOOK, look * 100, is_full=look % 2 == 0)

    assert climb.size == 10


def test_bounds_hold() -> None:
    low, high = Climb(Auto(4, 6)), Climb(Auto(20, 50))

    climbed(low, 1000, 0.1, lasts=60)
    climbed(high, 1, 0.01, lasts=60)

    assert 4 <= low.size <= 6
    assert 20 <= high.size <= 30


# --- where it is written --------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [(0, 5), (5, 4), (1, 100_001), (True, 3), (1.0, 3)])
def test_bounds_that_cannot_be_are_refused(bounds: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Auto(*bounds)


@pytest.mark.parametrize("given", ["10", "automatic", 0, (1, 2)])
def test_another_concurrency_is_refused_with_what_is_expected(given: Any) -> None:
    app = App("shop")

    with pytest.raises(ConfigError, match="whole number, 1 to 100000, or auto"):

        @app.on("custom.order", durable="orders", concurrency=given)
        async def place(event: Event[Any]) -> None:
            pass


def test_batches_do_not_adapt() -> None:
    app = App("shop")

    with pytest.raises(ConfigError, match="concurrency= of batches"):

        @app.on_batch("custom.order", durable="orders", concurrency="auto", size=5)
        async def place(batch: Any) -> None:
            pass


def test_it_is_shown_as_it_is_declared() -> None:
    app = App("shop")

    @app.on("custom.order", durable="orders", concurrency="auto")
    async def place(event: Event[Any]) -> None:
        pass

    @app.on("custom.parcel", durable="parcels", concurrency=Auto(4, 100))
    async def send(event: Event[Any]) -> None:
        pass

    shown = [options_in_force(one.options)["concurrency"] for one in app.handlers]

    assert shown == ["auto, 1 to 200", "auto, 4 to 100"]


def test_it_may_be_the_setting_of_every_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_WORKER_CONCURRENCY", "auto")

    filled = with_settings(check_options({}), Settings())

    assert filled.concurrency == Auto(1, 200)
    assert options_in_force(filled)["concurrency"] == "auto, 1 to 200"


@pytest.mark.parametrize("given", ["0", "100001", "many", "1.5"])
def test_a_setting_that_is_neither_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_WORKER_CONCURRENCY", given)

    with pytest.raises(ConfigError, match="a whole number, 1 to 100000, or auto"):
        Settings()


# --- at work --------------------------------------------------------------------------------


async def test_it_grows_and_shrinks_in_virtual_time() -> None:
    app, dependency = App("shop"), Dependency(20, 0.1)
    most, running, sizes = 0, 0, list[int]()

    @app.on("custom.order", durable="orders", concurrency="auto")
    async def place(event: Event[Any]) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await dependency.call()
        running -= 1

    async with TestWorker(app) as t:
        for number in range(4_000):
            await t.publish("custom.order", number)
        await t.advance(seconds=10)
        for _ in range(8):
            most = 0
            await t.advance(seconds=1)
            sizes.append(most)

    assert 13 <= sorted(sizes)[4] <= 40


async def flood(bus: EventBus, count: int) -> None:
    await bus.publish_many([Draft(type="custom.thing", payload=number) for number in range(count)])


async def test_it_grows_while_more_are_handled_for_it(world: World) -> None:
    bus = await world.bus()
    signals: list[Tuned] = []
    bus.signals.add(Listener(signals.append, (Tuned,)))
    wide = Dependency(1_000, 0.05)

    async def handle(event: Event[Any]) -> None:
        await wide.call()

    subscription = await bus.subscribe("custom.thing", handle, durable="r1", concurrency="auto")
    await flood(bus, 8_000)

    await until(lambda: subscription.scaling.concurrency >= 40, seen=lambda: signals)

    assert [(one.before, one.concurrency) for one in signals[:2]] == [(10, 20), (20, 40)]
    sentence = sentence_of(signals[0])
    assert sentence is not None
    assert sentence.text == "handle (r1) runs 20 at once, not 10"
    await until(lambda: world.is_quiet("CUSTOM", "r1"))
    assert subscription.counts.handled == 8_000


async def test_it_shrinks_to_what_a_narrow_dependency_takes(world: World) -> None:
    bus, narrow = await world.bus(), Dependency(1, 0.004)

    async def handle(event: Event[Any]) -> None:
        await narrow.call()

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="r1", concurrency=Auto(1, 50)
    )
    await flood(bus, 4_000)

    await until(lambda: subscription.scaling.concurrency <= 4)

    assert activity(subscription).adapts


async def test_an_ordered_number_wins_and_a_reset_lets_it_adapt_again(world: World) -> None:
    bus, wide, signals = await world.bus(), Dependency(1_000, 0.05), list[Signal]()
    bus.signals.add(Listener(signals.append, (Scaled, Tuned)))

    async def handle(event: Event[Any]) -> None:
        await wide.call()

    subscription = await bus.subscribe("custom.thing", handle, durable="r1", concurrency="auto")
    scaling = subscription.scaling
    await bus.scale("r1", 3, reason="night")
    await until(lambda: scaling.concurrency == 3)
    listed, adapts = handler_list(bus), scaling.adapts
    await flood(bus, 5_000)
    await until(lambda: subscription.counts.handled > 120)  # two seconds
    held = scaling.concurrency
    await bus.scale("r1", None)
    await until(lambda: scaling.concurrency == 20, seen=lambda: signals)

    assert "    scaled    to 3 events at once by" in listed
    assert (held, adapts, scaling.adapts) == (3, False, True)
    [ordered, reset, tuned] = [one.text for one in map(sentence_of, signals[:3]) if one is not None]
    assert ordered.endswith("(it adapts itself)")
    assert reset == "handle (r1) adapts again how many run at once, now 10"
    assert tuned == "handle (r1) runs 20 at once, not 10"


async def test_a_plain_def_handler_gets_the_threads_it_needs(world: World) -> None:
    bus = await world.bus()

    def handle(event: Event[Any]) -> None:
        time.sleep(0.02)

    subscription = await bus.subscribe("custom.thing", handle, durable="r1", concurrency="auto")
    await flood(bus, 6_000)

    await until(lambda: subscription.scaling.concurrency >= 20)
    before = subscription.counts.handled
    await until(lambda: subscription.running > 10)

    assert before > 0

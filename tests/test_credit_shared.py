"""Credit over several sources: a request open at each, turns for the last place, none in excess."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker.subscription import credit
from omni_worker.subscription.credit import Credit
from omni_worker.subscription.source_state import SourceState

from .waiting import until


class Source:
    """A source that remembers what was requested, and delivers by hand."""

    stream = "CUSTOM"

    def __init__(self, consumer: str) -> None:
        self.consumer = consumer
        self.outstanding = 0
        self.requests: list[tuple[int, bool]] = []

    def request(self, count: int, *, brief: bool = False) -> None:
        self.requests.append((count, brief))
        self.outstanding += count

    async def withdraw(self) -> None:
        self.outstanding = 0


class Scene:
    """Some sources with one credit, by a clock of their own."""

    def __init__(self, count: int, **options: Any) -> None:
        self.now = 0.0
        self.sources: list[Any] = [Source(str(number)) for number in range(count)]
        self.states = {one: SourceState(one) for one in self.sources}
        self.credit = Credit(
            self.states,
            **{"prefetch": 0, "streams": count, "ordered": False, **options},
            now=lambda: self.now,
        )
        self.credit.sources_changed()

    def deliver(self, number: int, count: int = 1) -> None:
        """As the subscription does on receipt."""
        for _ in range(count):
            self.sources[number].outstanding -= 1
            self.credit.held += 1
        if not self.sources[number].outstanding and self.credit.held <= self.credit.limit:
            self.credit.refill_if_low()

    @property
    def open(self) -> list[int]:
        return [source.outstanding for source in self.sources]


def test_each_source_has_a_request_open_that_an_idle_one_does_not_pay_for() -> None:
    scene = Scene(3, concurrency=2, prefetch=6)
    assert scene.open == [1, 1, 1]

    for _ in range(6):
        scene.deliver(0, scene.open[0])
        for _ in range(scene.credit.held):
            scene.credit.give_back(10)
        scene.now += 1

    assert scene.open[1:] == [1, 1]
    assert scene.open[0] > 3  # a third of eight is less


def test_a_large_request_is_brief_and_the_one_that_waits_is_not() -> None:
    scene = Scene(2, concurrency=10, prefetch=10)

    scene.deliver(0)
    scene.deliver(0, scene.open[0])

    assert scene.sources[1].requests == [(1, False)]
    assert scene.sources[0].requests[0] == (1, False)
    assert all(brief == (count > 1) for count, brief in scene.sources[0].requests)


async def test_never_more_than_one_for_each_further_source_can_come_in_excess() -> None:
    scene = Scene(3, concurrency=4, prefetch=4)

    for step in range(300):
        number = step * 7 % 3
        scene.now += 0.02 * (step % 5)
        if scene.open[number]:
            scene.deliver(number, 1 + step % scene.open[number])
        elif scene.credit.held:
            scene.credit.give_back(10)
        scene.credit.refill()

        assert scene.credit.held + sum(scene.open) <= scene.credit.limit + 2
    scene.credit.close()


async def test_busy_sources_take_turns_for_the_last_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(2, concurrency=1)
    asked = []

    for _ in range(6):
        [number] = [index for index, open in enumerate(scene.open) if open]
        asked.append(number)
        scene.deliver(number)
        scene.now += 0.001
        scene.credit.give_back(10)

    scene.credit.close()
    assert asked == [0, 1, 0, 1, 0, 1]


async def test_a_silent_source_keeps_its_turn_from_the_others_only_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credit, "SILENT_AFTER", 0.001)
    scene = Scene(9, concurrency=1)
    loop = asyncio.get_running_loop()
    scene.credit._now = loop.time

    await until(lambda: scene.open == [1] * 9, timeout=1)

    scene.credit.close()


async def test_a_source_that_was_alone_gives_back_what_it_requested_when_a_second_comes() -> None:
    scene = Scene(1, concurrency=2, prefetch=6)
    before = scene.open
    second: Any = Source("late")

    scene.sources.append(second)
    scene.states[second] = SourceState(second)
    scene.credit.sources_changed()
    await until(lambda: scene.open == [1, 1])

    assert before == [8]

"""Slots: whatever becomes of one of them, what waits is run."""

from __future__ import annotations

from typing import Any

from omni_worker.subscription.slots import Slot, Slots

from .waiting import until


class Play:
    """Two workers, and what they ran."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.workers = Slots(2, self._work, "tests of workers")

    async def _work(self, worker: Slot) -> None:
        while await self.workers.is_ready(worker):
            self.ran.append(self.workers.buffer.popleft())

    async def until_ran(self, *wanted: Any) -> None:
        await until(lambda: self.ran == list(wanted), seen=lambda: self.ran)


async def test_a_worker_cancelled_before_its_first_step_holds_nothing_up() -> None:
    play = Play()
    play.workers.offer("one")  # type: ignore[arg-type]
    [worker] = play.workers.all
    assert worker.task is not None

    worker.task.cancel()

    await play.until_ran("one")


async def test_a_worker_cancelled_in_the_turn_it_is_woken_holds_nothing_up() -> None:
    play = Play()
    play.workers.offer("one")  # type: ignore[arg-type]
    await play.until_ran("one")
    [worker] = play.workers.all
    assert worker.task is not None

    play.workers.offer("two")  # type: ignore[arg-type]
    worker.task.cancel()

    await play.until_ran("one", "two")
    play.workers.offer("three")  # type: ignore[arg-type]
    await play.until_ran("one", "two", "three")


async def test_with_fewer_slots_idle_ones_end_and_with_more_what_waits_begins() -> None:
    play = Play()
    for name in ("one", "two"):
        play.workers.offer(name)  # type: ignore[arg-type]
        await play.until_ran(*("one", "two")[: len(play.ran) + 1])
    play.workers.resize(1)
    await until(lambda: len(play.workers.all) == 1)

    play.workers.offer("three")  # type: ignore[arg-type]
    await play.until_ran("one", "two", "three")

    assert play.workers.is_free
    assert len(play.workers.all) == 1

"""Notes on what goes back without having begun: no attempt of another process is lost."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from omni_worker import Context, Event
from omni_worker.signals import Listener, Retried
from omni_worker.subscription import Subscription

from ..waiting import until
from .conftest import World, body

HURT = "e-hurt"  # the event that fails


class Process:
    """A process of the handler: `HURT` fails here, every other event waits until it may end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.attempts: list[int] = []  # of HURT
        self.failed: list[int] = []
        self.begun: list[str] = []
        self.may_end: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.subscription: Subscription

    async def handle(self, event: Event[Any], ctx: Context) -> None:
        self.begun.append(event.id)
        if event.id == HURT:
            self.attempts.append(ctx.attempt)
            raise RuntimeError("no")
        await self.may_end[event.id].wait()

    async def start(self, **options: Any) -> None:
        bus = await self.world.bus()
        bus.signals.add(Listener(lambda one: self.failed.append(one.attempt), (Retried,)))
        given: dict[str, Any] = {"durable": "d", "concurrency": 1, "max_retries": 9, **options}
        self.subscription = await bus.subscribe("custom.thing", self.handle, **given)

    async def stop(self) -> None:
        await self.subscription.unsubscribe(0.0)


async def test_an_event_that_did_not_begin_here_keeps_what_it_spent_elsewhere(
    world: World,
) -> None:
    first, second, third = Process(world), Process(world), Process(world)
    await first.start(retry_delay=1.0)
    await world.store("custom.thing", body(HURT))
    await until(lambda: first.failed == [1])
    await first.stop()

    await second.start()
    await world.store("custom.thing", body("e-long"))
    await until(lambda: second.begun == ["e-long"] and second.subscription.held == 2)
    await second.stop()
    assert not second.attempts

    await third.start()
    third.may_end["e-long"].set()
    await until(lambda: third.attempts)
    assert third.attempts[0] == 2


async def test_what_a_process_knows_of_old_replaces_no_newer_note(world: World) -> None:
    first, second, third = Process(world), Process(world), Process(world)
    await first.start(prefetch=1, retry_delay=1.0)
    await world.store("custom.thing", body(HURT))
    await until(lambda: first.failed == [1])
    for id in ("e-1", "e-2"):
        await world.store("custom.thing", body(id))
    await until(lambda: first.subscription.held == 2)  # it takes nothing further

    await second.start(retry_delay=1.0)
    await until(lambda: second.failed == [2])
    await second.stop()
    first.may_end["e-1"].set()
    await until(lambda: first.begun[-1] == "e-2" and first.subscription.held == 2)
    await first.stop()
    assert first.attempts == [1]

    await third.start()
    third.may_end["e-2"].set()
    await until(lambda: third.attempts)
    assert third.attempts[0] == 3


async def test_a_process_whose_leases_ran_out_notes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = Process(world), Process(world), Process(world)
    await first.start(prefetch=1, ack_wait=1.0)
    monkeypatch.setattr(first.subscription._leases, "_extend_due", lambda: None)  # as if frozen
    for id in ("e-long", HURT):
        await world.store("custom.thing", body(id))
    await until(lambda: first.subscription.held == 2)

    await second.start(concurrency=2, ack_wait=1.0, retry_delay=2.0)
    await until(lambda: second.failed == [1])
    await second.stop()
    await first.stop()
    assert not first.attempts

    await third.start(concurrency=2, ack_wait=1.0)
    third.may_end["e-long"].set()
    await until(lambda: third.attempts)
    assert third.attempts[0] == 2

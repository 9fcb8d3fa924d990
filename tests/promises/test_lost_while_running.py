"""A consumer lost under a run, which ends before there is another one: no key is held for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker import Event
from omni_worker.binding import Binding
from omni_worker.notes.attempts import AttemptNotes

from ..waiting import until
from .conftest import World, body

EVENTS = 4  # of one key
RETRY = 0.02  # seconds


class Held:
    """Calls of one method wait here until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: type, name: str) -> None:
        self.waits, self.go = asyncio.Event(), asyncio.Event()
        original = getattr(where, name)

        async def held(*given: Any) -> Any:
            self.waits.set()
            await self.go.wait()
            return await original(*given)

        monkeypatch.setattr(where, name, held)


@pytest.mark.parametrize("moment", ["its handler runs", "its failure is noted"])
async def test_an_event_that_fails_while_its_consumer_is_lost_comes_again_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    bus, ended = await world.bus(), []
    began, fail = asyncio.Event(), asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        if not began.is_set():
            began.set()
            await fail.wait()
            raise ValueError("once")
        ended.append(event.payload)

    options: dict[str, Any] = {"durable": "d", "retry_delay": RETRY, "order_by": lambda e: "key"}
    subscription = await bus.subscribe("custom.thing", handle, **options)
    for number in range(EVENTS):
        await world.store("custom.thing", body(f"e-{number}", payload=number))
    await began.wait()
    binds = Held(monkeypatch, Binding, "_bind_one")
    notes = Held(monkeypatch, AttemptNotes, "keep")
    if moment == "its failure is noted":
        fail.set()
        await notes.waits.wait()
    await bus.transport.operators.delete_consumer("CUSTOM", "d")
    await binds.waits.wait()
    fail.set()
    notes.go.set()

    await until(lambda: subscription.held == 0)  # it is released, as those behind it
    binds.go.set()
    await until(lambda: len(ended) == EVENTS)
    assert ended == list(range(EVENTS))
    await until(lambda: subscription.held == 0)

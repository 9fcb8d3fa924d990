"""Two reasons to hand back the same event: it goes back once, and gives its place back once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from omni_worker import Event, EventBus
from omni_worker.notes.attempts import AttemptNotes
from omni_worker.signals import HandedBack, Listener

from ..waiting import until
from .conftest import World, body

AT_ONCE = 4


async def test_a_pause_while_a_smaller_scale_is_noted_hands_nothing_back_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, begin = asyncio.Event(), asyncio.Event()
    noting, noted = asyncio.Event(), AttemptNotes.keep_all

    async def handle(event: Event[Any]) -> None:
        await go.wait()

    async def note_later(self: AttemptNotes, notes: Any) -> None:
        monkeypatch.setattr(AttemptNotes, "keep_all", noted)
        noting.set()
        await begin.wait()
        await noted(self, notes)

    back: Counter[int] = Counter()
    hears = Listener(lambda one: back.update([one.delivery.sequence]), (HandedBack,))
    bus = EventBus(transport=world.transport(), name="tests", listeners=[hears])
    world.buses.append(bus)
    await bus.connect()
    subscription = await bus.subscribe("custom.thing", handle, durable="d", concurrency=AT_ONCE)
    for number in range(40):
        await world.store("custom.thing", body(f"e-{number}", payload=number))
    await until(lambda: subscription.running == AT_ONCE and subscription.held == 2 * AT_ONCE)
    monkeypatch.setattr(AttemptNotes, "keep_all", note_later)

    await bus.scale("d", 1)
    await noting.wait()
    await bus.pause("d")
    await until(lambda: subscription.pauses.is_paused)
    begin.set()
    await until(lambda: subscription.held == AT_ONCE)  # those that run
    go.set()
    await until(lambda: subscription.held == 0)

    assert set(back.values()) == {1}

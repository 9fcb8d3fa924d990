"""Streams that are created late: a pattern finds them, and nothing in them is missed."""

from __future__ import annotations

from typing import Any

import pytest

from omni_worker import Event, bus
from omni_worker.errors import StreamMissing

from ..waiting import until
from .conftest import World, body


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the server every second."""
    monkeypatch.setattr(bus, "REFRESH", 1.0)


async def make(world: World, name: str, *subjects: str) -> None:
    operators = world.buses[0].transport.operators
    await operators.create_stream({"name": name, "subjects": list(subjects)})


async def publish(world: World, id: str) -> None:
    await world.store("second.synced", body(id, "second.synced"), id)


async def test_a_running_pattern_reads_a_new_stream_from_its_first_event(
    soon: None, world: World
) -> None:
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)

    one = await world.bus()
    await make(world, "FIRST", "first.>")
    subscription = await one.subscribe("*.synced", handle, durable="w")
    await make(world, "SECOND", "second.>")

    for number in range(3):
        await publish(world, f"e{number}")

    await until(lambda: len(seen) == 3, timeout=10)
    assert seen == ["e0", "e1", "e2"]
    assert {source.stream for source in subscription.sources} >= {"FIRST", "SECOND"}
    assert subscription.missing == 0


async def test_a_stream_made_while_no_worker_ran_is_read_from_its_first_event(
    world: World,
) -> None:
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)

    one = await world.bus()
    await make(world, "FIRST", "first.>")
    await one.subscribe("*.synced", handle, durable="w")
    await one.drain()
    await make(world, "SECOND", "second.>")
    await publish(world, "while away")
    two = await world.bus()

    await two.subscribe("*.synced", handle, durable="w")

    await until(lambda: seen == ["while away"], timeout=10)


async def test_a_pattern_that_is_widened_answers_no_history(world: World) -> None:
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)

    one = await world.bus()
    await make(world, "FIRST", "first.>")
    await one.subscribe("first.*", handle, durable="w")
    await one.drain()
    await make(world, "SECOND", "second.>")
    await publish(world, "history")
    two = await world.bus()
    await two.subscribe("*.synced", handle, durable="w")

    await publish(world, "new")

    await until(lambda: bool(seen), timeout=10)
    assert seen == ["new"]


async def test_without_waiting_a_missing_stream_is_an_error_at_once(world: World) -> None:
    async def handle(event: Event[Any]) -> None: ...

    one = await world.bus()

    with pytest.raises(StreamMissing, match=r"no stream on the server stores second\.synced"):
        await one.subscribe("second.synced", handle, durable="w")

"""Deploys: two versions of an app with other options on one consumer, each with its own leases."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from omni_worker import Event, bus, upkeep

from ..waiting import until
from .conftest import World, body


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the consumers every 0.1 s, not every 10 s."""
    monkeypatch.setattr(bus, "REFRESH", 0.1)
    monkeypatch.setattr(bus, "BUSY_REFRESH", 0.1)
    monkeypatch.setattr(upkeep, "READ_BY_ALL", 1.0)


async def test_a_version_with_a_shorter_ack_wait_gets_nothing_that_an_ending_one_still_runs(
    world: World,
) -> None:
    old, new = await world.bus(), await world.bus()
    over = asyncio.Event()
    runs: list[str] = []

    async def slow(event: Event[Any]) -> None:
        runs.append(f"old {event.id}")
        await over.wait()

    async def quick(event: Event[Any]) -> None:
        runs.append(f"new {event.id}")

    await old.subscribe("custom.thing", slow, durable="d", ack_wait=6.0)
    await world.store("custom.thing", body("held"))
    await until(lambda: runs == ["old held"])
    await new.subscribe("custom.thing", quick, durable="d", ack_wait=0.4)
    kept = (await world.info("CUSTOM", "d-bare")).config.ack_wait
    ending = asyncio.create_task(old.drain(20.0))

    async def is_in_force() -> bool:
        return (await world.info("CUSTOM", "d-bare")).config.ack_wait == 0.4

    await until(is_in_force, 10.0)
    since = time.monotonic()
    await until(lambda: time.monotonic() - since > 1.2)  # three times the new ack_wait
    await world.store("custom.thing", body("next"))
    await until(lambda: "new next" in runs)
    over.set()
    await ending

    assert kept == 6.0
    assert runs == ["old held", "new next"]
    await until(lambda: world.is_quiet("CUSTOM", "d"))


async def test_a_consumer_that_is_made_again_has_the_ack_wait_of_the_version_started_last(
    world: World,
) -> None:
    old, new = await world.bus(), await world.bus()

    async def handle(event: Event[Any]) -> None: ...

    subscription = await old.subscribe("custom.thing", handle, durable="d", ack_wait=2.0)
    await new.subscribe("custom.thing", handle, durable="d", ack_wait=6.0)
    await until(lambda: subscription._leases.ack_wait == 6.0)
    before = await world.info("CUSTOM", "d-bare")
    await new.transport.operators.delete_consumer("CUSTOM", "d-bare")
    await new.drain()

    async def is_back() -> bool:
        found = (await world.consumers("CUSTOM", "d"))[-1]
        return found.name == "d-bare" and found.created != before.created

    await until(is_back)

    assert (await world.info("CUSTOM", "d-bare")).config.ack_wait == 6.0


async def test_a_consumer_that_another_process_recreates_unseen_runs_nothing_again(
    world: World,
) -> None:
    """Only who has a request standing there hears that it was deleted."""
    bus, other = await world.bus(), await world.bus()
    over = asyncio.Event()
    runs: list[str] = []

    async def handle(event: Event[Any]) -> None:
        runs.append(event.id)
        if event.id == "last":
            await over.wait()

    await bus.subscribe("custom.thing", handle, durable="d", concurrency=1, prefetch=0)
    for id in ("a", "b", "c", "last"):
        await world.store("custom.thing", body(id))
    await until(lambda: runs == ["a", "b", "c", "last"])
    before = await world.info("CUSTOM", "d-bare")
    config = {key: one for key, one in before.config.raw.items() if key != "metadata"}
    tag = {**before.config.metadata, "omni-worker.origin": str(before.created)}
    operators = other.transport.operators
    await operators.delete_consumer("CUSTOM", "d-bare")
    again = {**config, "metadata": tag, "deliver_policy": "by_start_sequence", "opt_start_seq": 1}
    await operators.create_consumer("CUSTOM", again)
    over.set()
    await world.store("custom.thing", body("next"))
    await until(lambda: "next" in runs)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert runs == ["a", "b", "c", "last", "next"]

"""Streams that are created late: a pattern finds them, and nothing in them is missed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from omni_worker import Event, EventBus, bus
from omni_worker.errors import StreamMissing
from omni_worker.signals import LateConsumerLost, Listener

from ..waiting import until
from .conftest import World, body


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the server every second."""
    monkeypatch.setattr(bus, "REFRESH", 1.0)


async def make(world: World, name: str, *subjects: str) -> None:
    operators = world.buses[0].transport.operators
    await operators.create_stream({"name": name, "subjects": list(subjects)})


async def make_foreign(world: World, stream: str, *consumers: str) -> None:
    """Make consumers as another program does."""
    for name in consumers:
        config = {"name": name, "durable_name": name, "ack_policy": "explicit"}
        await world.buses[0].transport.operators.create_consumer(stream, config)


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

    await until(lambda: len(seen) == 3)
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

    await until(lambda: bool(seen))
    assert seen == ["new"]


@pytest.fixture
def when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the server only when a test calls `look`."""
    monkeypatch.setattr(bus, "REFRESH", 3600.0)


async def look(*buses: EventBus) -> None:
    for one in buses:
        await one._subscriptions.refresh(busy_only=False)


async def test_subjects_added_to_a_stream_that_is_read_are_read_from_their_first_event(
    when_asked: None, world: World
) -> None:
    runs: Counter[str] = Counter()
    sent: list[str] = []

    async def handle(event: Event[Any]) -> None:
        runs[event.id] += 1

    async def publish_all(number: int, *types: str) -> None:
        for type in types:
            for subject in (type, f"{type}.c.i"):
                id = f"{subject} {number}"
                await world.store(subject, body(id, type), id)
                sent.append(id)

    await world.bus()
    await make(world, "FIRST", "first.>")
    one, two = await world.bus(), await world.bus()
    for each in (one, two):
        await each.subscribe("*.synced", handle, durable="w")
    await world.update_stream("FIRST", subjects=["first.>", "second.>"])
    for number in range(50):
        await publish_all(number, "first.synced", "second.synced")
    await until(lambda: len(runs) == 100)

    await look(one, two)
    for number in range(50, 60):
        await publish_all(number, "first.synced", "second.synced")

    await until(lambda: set(sent) <= set(runs))
    await until(lambda: has_no_late_consumer(world, one, two))
    # What came after the last event that the consumer had may be delivered by both.
    unsure = {id for id in sent if id.startswith("second") and id.endswith(" 49")}
    assert {id for id in sent if runs[id] != 1} <= unsure
    assert max(runs.values()) <= 2
    assert [bus.subscriptions[0].missing for bus in (one, two)] == [0, 0]


async def test_what_a_widened_consumer_has_yet_to_deliver_comes_once(
    when_asked: None, world: World
) -> None:
    runs: Counter[str] = Counter()
    sent: list[str] = []
    go_on = asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        runs[event.id] += 1
        await go_on.wait()

    await world.bus()
    await make(world, "FIRST", "first.>")
    one, two = await world.bus(), await world.bus()
    for each in (one, two):
        await each.subscribe("*.synced", handle, durable="w", concurrency=1, prefetch=0)
    for number in range(2):
        await world.store("first.synced", body(f"f{number}", "first.synced"), f"f{number}")
    await until(lambda: len(runs) == 2)  # neither asks for more
    await world.update_stream("FIRST", subjects=["first.>", "second.>"])
    for number in range(2, 40):
        for type in ("first.synced", "second.synced"):
            sent.append(f"{type} {number}")
            await world.store(type, body(sent[-1], type), sent[-1])

    await look(one, two)
    go_on.set()

    await until(lambda: set(sent) <= set(runs))
    await until(lambda: has_no_late_consumer(world, one, two))
    assert max(runs.values()) == 1


async def test_a_late_consumer_follows_the_ack_wait_of_the_first(
    when_asked: None, world: World
) -> None:
    async def handle(event: Event[Any]) -> None:
        raise RuntimeError("not yet")

    await world.bus()
    await make(world, "FIRST", "first.>")
    one, two = await world.bus(), await world.bus()
    await one.subscribe("*.synced", handle, durable="w", retry_delay=50.0, ack_wait=20.0)
    await world.update_stream("FIRST", subjects=["first.>", "second.>"])
    await publish(world, "passed")
    await look(one)
    before = await world.info("FIRST", "w-bare-late")

    await two.subscribe("*.synced", handle, durable="w", retry_delay=50.0, ack_wait=40.0)
    await look(one)

    after = await world.info("FIRST", "w-bare-late")
    assert (before.config.ack_wait, after.config.ack_wait) == (20.0, 40.0)
    assert after.config.metadata == before.config.metadata


async def test_what_a_widened_consumer_passed_is_read_by_the_next_process(
    when_asked: None, world: World
) -> None:
    runs: Counter[str] = Counter()
    is_ready = False

    async def handle(event: Event[Any]) -> None:
        if not is_ready and event.type == "second.synced":
            raise RuntimeError("not yet")
        runs[event.id] += 1

    await world.bus()
    await make(world, "FIRST", "first.>")
    one = await world.bus()
    await one.subscribe("*.synced", handle, durable="w", retry_delay=0.1, max_retries=1000)
    await world.update_stream("FIRST", subjects=["first.>", "second.>"])
    await publish(world, "passed")
    await world.store("first.synced", body("later", "first.synced"), "later")
    await until(lambda: "later" in runs)
    await look(one)
    await one.close(0.0)
    is_ready = True
    two = await world.bus()

    await two.subscribe("*.synced", handle, durable="w")

    await until(lambda: has_no_late_consumer(world, two))
    assert runs == Counter(["passed", "later"])


async def test_what_a_widened_consumer_passed_is_read_though_that_is_recreated(
    when_asked: None, world: World
) -> None:
    runs: Counter[str] = Counter()
    is_ready = False

    async def handle(event: Event[Any]) -> None:
        if not is_ready and event.type == "second.synced":
            raise RuntimeError("not yet")
        runs[event.id] += 1

    operators = (await world.bus()).transport.operators
    await make(world, "FIRST", "first.>")
    one = await world.bus()
    await one.subscribe("*.synced", handle, durable="w", retry_delay=0.1, max_retries=1000)
    await world.update_stream("FIRST", subjects=["first.>", "second.>"])
    await publish(world, "passed")
    await world.store("first.synced", body("later", "first.synced"), "later")
    await until(lambda: "later" in runs)
    await look(one)
    await one.close(0.0)
    main = await world.info("FIRST", "w")
    await operators.delete_consumer("FIRST", main.name)
    metadata = {key: text for key, text in main.config.metadata.items() if "late" not in key}
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": main.delivered + 1}
    await operators.create_consumer("FIRST", {**main.config.raw, **start, "metadata": metadata})
    is_ready = True
    two = await world.bus()

    await two.subscribe("*.synced", handle, durable="w")

    await until(lambda: has_no_late_consumer(world, two))
    assert runs == Counter(["passed", "later"])


async def test_a_handler_that_cannot_be_widened_keeps_no_other_from_new_subjects(
    when_asked: None, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def refused(event: Event[Any]) -> None: ...

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)

    await world.bus()
    await make(world, "FIRST", "first.>")
    one = await world.bus()
    await one.subscribe("*.synced", refused, durable="r")
    await one.subscribe("*.synced", handle, durable="w")
    await make_foreign(world, "FIRST", "r-late", "r-bare-late")
    await world.update_stream("FIRST", subjects=["first.>", "second.>"])
    await publish(world, "passed")

    await look(one)
    await look(one)

    await until(lambda: seen == ["passed"])
    lines = [one.message for one in caplog.records if "cannot be read" in one.message]
    assert len(lines) == 1
    assert "refused: new subjects of FIRST" in lines[0]


async def test_a_late_consumer_that_others_delete_too_early_is_reported_once(
    when_asked: None, world: World
) -> None:
    runs: list[str] = []
    lost: list[LateConsumerLost] = []

    async def handle(event: Event[Any]) -> None:
        if event.type == "second.synced":
            raise RuntimeError("not yet")
        runs.append(event.id)

    await world.bus()
    await make(world, "FIRST", "first.>")
    one = await world.bus()
    one.signals.add(Listener(lost.append, (LateConsumerLost,)))
    await one.subscribe("*.synced", handle, durable="w", retry_delay=50.0)
    await world.update_stream("FIRST", subjects=["first.>", "second.>"])
    await publish(world, "passed")
    await world.store("first.synced", body("later", "first.synced"), "later")
    await until(lambda: runs == ["later"])
    await look(one)

    await world.buses[0].transport.operators.delete_consumer("FIRST", "w-bare-late")
    await look(one)
    await look(one)

    assert [signal.consumer for signal in lost] == ["w-bare-late"]


async def has_no_late_consumer(world: World, *buses: EventBus) -> bool:
    await look(*buses)
    found = await world.buses[0].transport.operators.consumers("FIRST")
    return not any(info.name.endswith("-late") for info in found)


async def test_without_waiting_a_missing_stream_is_an_error_at_once(world: World) -> None:
    async def handle(event: Event[Any]) -> None: ...

    one = await world.bus()

    with pytest.raises(StreamMissing, match=r"no stream on the server stores second\.synced"):
        await one.subscribe("second.synced", handle, durable="w")

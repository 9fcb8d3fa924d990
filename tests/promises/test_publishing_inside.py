"""Publishing inside a handler: as part of the run, on the right loop, and never in vain."""

from __future__ import annotations

import asyncio
import json
import threading
from hashlib import sha256
from typing import Any

import pytest

from omni_worker import Context, Draft, Event
from omni_worker.context import _NAMESPACE
from omni_worker.ids import derived_id
from omni_worker.signals import IdTaken, Listener
from tests.waiting import until

from .conftest import World, body, kind, real_server, world

__all__ = ["kind", "real_server", "world"]

never_awaited = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


async def outputs(world: World, sequences: int) -> list[tuple[str, Any]]:
    """Subject and event of what the stream of custom events holds."""
    found = []
    for sequence in range(1, sequences + 1):
        message = await world.buses[0].transport.operators.message("CUSTOM", sequence)
        if message is not None:
            found.append((message.subject, json.loads(message.body)))
    return found


@pytest.mark.parametrize("many", [False, True])
async def test_an_output_is_stored_although_another_message_has_its_id(
    world: World, many: bool
) -> None:
    bus = await world.bus()
    taken: list[IdTaken] = []
    bus.signals = type(bus.signals)([Listener(taken.append, (IdTaken,))])
    digest = sha256(b'{"of":"v2"}').hexdigest()
    id = derived_id(_NAMESPACE, f"v2\nd\ncustom.out\n{digest}\n1")
    await world.store("custom.other", b"{}", id)
    runs: list[Any] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        if many:
            runs.extend(await ctx.publish_many([Draft(type="custom.out", payload={"of": "v2"})]))
        else:
            runs.append(await ctx.publish("custom.out", {"of": "v2"}))
        if len(runs) == 1:
            raise ValueError("once more")

    await bus.subscribe("custom.in", handle, durable="d", retry_delay=0.01)
    await world.store("custom.in", body("v2", "custom.in"))
    await until(lambda: len(runs) == 2)

    stored = [event for subject, event in await outputs(world, 9) if subject == "custom.out"]
    assert [event["payload"] for event in stored] == [{"of": "v2"}]
    assert runs[0].id == runs[1].id == stored[0]["id"] != id
    assert {one.id for one in taken} == {id}


async def test_publishing_by_the_bus_in_a_handler_is_part_of_the_run(world: World) -> None:
    bus = await world.bus()
    runs: list[str] = []

    async def handle(event: Event[Any]) -> None:
        await bus.publish("custom.out", {"x": 1})
        await bus.publish_many([Draft(type="custom.out", payload={"x": 2})])
        runs.append(event.id)
        if len(runs) == 1:
            raise ValueError("once more")

    await bus.subscribe("custom.in", handle, durable="d", retry_delay=0.01)
    await world.store("custom.in", body("e-1", "custom.in"))
    await until(lambda: len(runs) == 2)

    stored = [event for subject, event in await outputs(world, 9) if subject == "custom.out"]
    assert [event["payload"] for event in stored] == [{"x": 1}, {"x": 2}]
    assert [event["metadata"]["correlationId"] for event in stored] == ["e-1", "e-1"]


async def test_another_event_loop_is_an_error_that_names_the_right_call(world: World) -> None:
    bus = await world.bus()
    errors: list[str] = []

    def handle(event: Event[Any], ctx: Context) -> None:
        for publish in (ctx.publish, bus.publish):
            try:
                asyncio.run(publish("custom.out", {}))
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

    def elsewhere() -> None:
        try:
            asyncio.run(bus.publish("custom.out", {}))
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")

    await bus.subscribe("custom.in", handle, durable="d")
    await bus.publish("custom.in", {})
    await until(lambda: len(errors) == 2)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    await until(lambda: not thread.is_alive())

    assert len(errors) == 3
    assert all(one.startswith("ConfigError: this runs on another event loop") for one in errors)
    assert "ctx.wait(ctx.publish(…))" in errors[0]


@never_awaited
@pytest.mark.parametrize("kind_of_handler", ["async", "alone", "plain", "named"])
async def test_a_publish_that_is_never_awaited_fails_the_run(
    world: World, kind_of_handler: str
) -> None:
    bus = await world.bus()

    async def forget(event: Event[Any], ctx: Context) -> None:
        ctx.publish("custom.out", {})  # type: ignore[unused-coroutine]

    async def forget_event_alone(event: Event[Any]) -> None:
        bus.publish("custom.out", {})  # type: ignore[unused-coroutine]

    def forget_in_thread(event: Event[Any]) -> None:
        bus.publish("custom.out", {})  # type: ignore[unused-coroutine]

    async def forget_named(event: Event[Any], ctx: Context) -> None:
        many = ctx.publish_many([Draft(type="custom.out", payload={})])
        assert many is not None

    handlers: dict[str, Any] = {
        "async": forget, "alone": forget_event_alone, "plain": forget_in_thread,
        "named": forget_named,
    }  # fmt: skip
    subscription = await bus.subscribe(
        "custom.in", handlers[kind_of_handler], durable="d", max_retries=0
    )
    await bus.publish("custom.in", {})
    await until(lambda: subscription.counts.dead_lettered == 1)

    [letter] = await world.letters()
    assert "was called and never awaited" in letter["payload"]["error"]
    assert "await ctx.publish" in letter["payload"]["error"]


async def test_a_publish_in_a_task_that_outlives_its_run_is_no_failure(world: World) -> None:
    bus = await world.bus()
    tasks: list[asyncio.Task[Any]] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        tasks.append(asyncio.create_task(ctx.publish("custom.out", {})))

    subscription = await bus.subscribe("custom.in", handle, durable="d", max_retries=0)
    await bus.publish("custom.in", {})
    await until(lambda: subscription.counts.handled == 1)

    assert (await tasks[0]).duplicate is False

"""Contexts: each run begins with the context the worker began with."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from omni_worker import App, Context, Event, EventBus, Retry
from omni_worker.current import CONTEXT, current_context, current_run
from omni_worker.testing import TestWorker
from omni_worker.transports.memory import MemoryServer, MemoryTransport

from .waiting import until

user: ContextVar[str | None] = ContextVar("user", default=None)
EVENTS = 20


class Odd:
    """A value that cannot be compared, like an array."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


odd: ContextVar[Odd | None] = ContextVar("odd", default=None)


async def play(app: App, events: int = EVENTS) -> TestWorker:
    async with TestWorker(app) as t:
        for number in range(events):
            await t.publish("custom.x", {"n": number})
        await t.settle()
    return t


@pytest.mark.parametrize("concurrency", [1, 5])
@pytest.mark.parametrize("fails", [False, True], ids=["done", "retried"])
async def test_no_run_sees_what_another_one_set(concurrency: int, fails: bool) -> None:
    app, seen = App("contexts"), list[str | None]()

    @app.on("custom.x", durable="d", concurrency=concurrency, retry_delay=1.0)
    async def handle(event: Event[Any], ctx: Context) -> None:
        seen.append(user.get())
        user.set(event.id)
        await asyncio.sleep(0)
        assert user.get() == event.id
        if fails and ctx.attempt == 1:
            raise Retry

    await play(app)

    assert seen == [None] * EVENTS * (1 + fails)


async def test_a_value_that_cannot_be_compared_is_not_seen_by_the_next_run() -> None:
    app, seen, first = App("contexts"), list[Any](), Odd()
    odd_token = odd.set(first)

    @app.on("custom.x", durable="d", concurrency=1)
    async def handle(event: Event[Any]) -> None:
        seen.append(odd.get())
        odd.set(Odd())

    await play(app)
    odd.reset(odd_token)

    assert len(seen) == EVENTS
    assert all(one is first for one in seen)


@pytest.mark.parametrize("sets", [False, True])
async def test_a_slot_ends_only_if_its_context_was_changed(sets: bool) -> None:
    app, tasks = App("contexts"), list[Any]()

    @app.on("custom.x", durable="d", concurrency=1)
    async def handle(event: Event[Any]) -> None:
        tasks.append(asyncio.current_task())
        token = user.set("somebody")
        if not sets:
            user.reset(token)

    await play(app)

    assert len(set(tasks)) == (EVENTS if sets else 1)


async def test_a_run_sees_what_was_set_before_the_worker_began() -> None:
    app, seen = App("contexts"), list[Any]()
    token = user.set("the worker's")

    @app.on("custom.x", durable="d")
    async def handle(event: Event[Any]) -> None:
        seen.append(user.get())
        user.set(None)

    await play(app)
    user.reset(token)

    assert seen == ["the worker's"] * EVENTS


async def test_what_a_handler_wakes_sees_nothing_of_it() -> None:
    app, seen = App("contexts"), list[Any]()

    @app.on("custom.x", durable="first")
    async def first(event: Event[Any], ctx: Context) -> None:
        user.set("first's")
        await ctx.publish("custom.y", {})

    @app.on("custom.y", durable="second")
    async def second(event: Event[Any]) -> None:
        context = current_run()
        assert context is not None
        seen.append((user.get(), context.event.type))

    await play(app)

    assert seen == [(None, "custom.y")] * EVENTS


async def test_every_caller_in_a_run_gets_the_same_context() -> None:
    seen: list[list[Context | None]] = []

    async def ask() -> Context | None:
        return current_run()

    async def handle(event: Event[Any]) -> None:
        task = asyncio.create_task(ask())
        seen.append([await asyncio.to_thread(current_run), await task, current_run()])

    async with EventBus(transport=MemoryTransport(MemoryServer()), name="contexts") as bus:
        await bus.subscribe("custom.x", handle, durable="d")
        ids = [(await bus.publish("custom.x", number)).id for number in range(3)]
        await until(lambda: len(seen) == 3)

    for contexts in seen:
        assert contexts[0] is contexts[1] is contexts[2]
    assert sorted(one.event.id for one, *_ in seen if one is not None) == sorted(ids)


async def test_a_task_that_outlives_its_run_keeps_the_context_of_its_event() -> None:
    app, seen, tasks = App("contexts"), dict[str, Any](), list[asyncio.Task[None]]()
    go = asyncio.Event()

    async def later(id: str) -> None:
        await go.wait()
        context = current_run()
        seen[id] = context.event.id if context is not None else None

    @app.on("custom.x", durable="d", concurrency=1)
    async def handle(event: Event[Any]) -> None:
        tasks.append(asyncio.create_task(later(event.id)))
        if len(tasks) == EVENTS:
            go.set()

    await play(app)
    await asyncio.gather(*tasks)

    assert len(seen) == EVENTS
    assert all(id == of for id, of in seen.items())


class Overtaken(list[Any]):
    """A run of which another thread made the context since this one looked."""

    def __len__(self) -> int:
        return CONTEXT


async def test_of_two_threads_that_ask_at_once_both_get_the_first_context() -> None:
    seen: list[tuple[Context, Context | None]] = []

    async def handle(event: Event[Any]) -> None:
        run = current_context.get()
        assert isinstance(run, list)
        first = Context(*run)
        token = current_context.set(Overtaken([*run, first]))
        seen.append((first, current_run()))
        current_context.reset(token)

    async with EventBus(transport=MemoryTransport(MemoryServer()), name="contexts") as bus:
        await bus.subscribe("custom.x", handle, durable="d")
        await bus.publish("custom.x")
        await until(lambda: len(seen) == 1)

    [(first, told)] = seen
    assert told is first

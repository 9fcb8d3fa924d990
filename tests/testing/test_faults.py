"""The kit's faults: a lost ack, a broken connection, a process that dies, a restart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker import App, Context, Event
from omni_worker.outcomes import Done
from omni_worker.testing import TestWorker


def app_with(durable: str | None = "go", **options: Any) -> tuple[App, Any]:
    app = App("faulty")

    @app.on("custom.go", durable=durable, **options)
    async def go(event: Event[Any], ctx: Context) -> None:
        await ctx.publish("custom.done", event.payload)
        if event.payload == "fails once" and ctx.attempt == 1:
            raise ValueError("once")

    return app, go


async def test_a_lost_ack_costs_ack_wait_and_no_second_run() -> None:
    app, go = app_with()

    async with TestWorker(app) as t:
        clock = asyncio.get_running_loop()
        began = clock.time()
        t.drop_next_ack()
        await t.publish("custom.go")
        await t.settle()
        took = clock.time() - began

    assert t.attempts(go) == 1
    assert took == pytest.approx(30, abs=0.1)


async def test_a_lost_ack_of_a_guarded_event_costs_no_second_run() -> None:
    app, go = app_with(exactly_once=True)

    async with TestWorker(app) as t:
        began = asyncio.get_running_loop().time()
        t.drop_next_ack()
        await t.publish("custom.go")
        await t.settle()
        assert t.pending == []
        assert asyncio.get_running_loop().time() - began >= 30

    assert t.attempts(go) == 1


async def test_a_broken_connection_loses_nothing() -> None:
    app, _ = app_with()

    async with TestWorker(app) as t:
        for number in range(10):
            await t.publish("custom.go", number)
        t.disconnect(seconds=40)  # longer than the leases
        for number in range(10, 20):
            await t.publish("custom.go", number)
        await t.settle()
        assert t.pending == []

    assert sorted(one.payload for one in t.published("custom.done")) == list(range(20))
    assert t.dead_letters == []


async def test_of_two_disconnects_the_last_one_counts() -> None:
    app, _ = app_with()

    async with TestWorker(app) as t:
        t.disconnect(seconds=5)
        t.disconnect(seconds=60)
        await t.publish("custom.go", 1)
        await t.advance(seconds=30)
        assert t.published("custom.done") == []
        await t.settle()

    assert len(t.published("custom.done")) == 1


async def test_a_restart_ends_a_disconnect() -> None:
    app, _ = app_with()

    async with TestWorker(app) as t:
        t.disconnect(seconds=60)
        await t.restart()
        await t.publish("custom.go", 1)
        await t.settle()

    assert len(t.published("custom.done")) == 1


async def test_a_process_that_dies_after_the_work_runs_it_again_and_publishes_once() -> None:
    app, go = app_with()

    async with TestWorker(app) as t:
        t.crash(go)
        sent = await t.publish("custom.go", 1)
        await t.settle()

    assert t.attempts(go, sent) == 2
    assert t.outcomes(go, sent) == [Done()]
    assert len(t.published("custom.done")) == 1


async def test_what_a_dead_process_was_doing_has_no_ending() -> None:
    app = App("both")

    @app.on("custom.slow", durable="slow")
    async def slow(event: Event[Any]) -> None:
        await asyncio.sleep(5)

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any]) -> None:
        await asyncio.sleep(1)

    async with TestWorker(app, raise_errors=True) as t:
        t.crash(go)
        await t.publish("custom.slow")
        await t.publish("custom.go")
        await t.settle()

    assert (t.attempts(slow), t.outcomes(slow)) == (2, [Done()])


async def test_a_crash_in_a_later_attempt() -> None:
    app, go = app_with()

    async with TestWorker(app) as t:
        t.crash(go, on_attempt=2)
        sent = await t.publish("custom.go", "fails once")
        await t.settle()

    assert [run.attempt for run in t.runs(go, sent)] == [1, 2, 2]
    assert t.outcomes(go, sent)[-1] == Done()


async def test_an_event_that_kills_every_process_is_dead_lettered_and_the_rest_is_handled() -> None:
    app = App("killer")

    @app.on("custom.poison", durable="poison", max_retries=2)
    async def poison(event: Event[Any]) -> None: ...

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any]) -> None: ...

    async with TestWorker(app) as t:
        t.crash(poison, on_attempt=None, times=100)
        await t.publish("custom.poison")
        for _ in range(20):
            await t.publish("custom.go")
        await t.settle()

    assert len(t.dead_letters) == 1
    assert 3 <= t.attempts(poison) <= 4  # attempts, or one more
    assert t.outcomes(go).count(Done()) == 20


async def test_a_handler_without_a_name_loses_what_its_process_held() -> None:
    app, go = app_with(durable=None)

    async with TestWorker(app) as t:
        t.crash(go)
        await t.publish("custom.go", 1)
        await t.settle()
        await t.publish("custom.go", 2)
        await t.settle()

    assert [run.event.payload for run in t.runs(go)] == [1, 2]


async def test_a_restart_hands_back_and_spends_no_attempt() -> None:
    app, go = app_with(concurrency=1)

    async with TestWorker(app) as t:
        for number in range(10):
            await t.publish("custom.go", number)
        await t.restart()
        await t.settle()

    assert t.outcomes(go) == [Done()] * 10
    assert {run.attempt for run in t.runs(go)} == {1}


async def test_a_retry_outlives_a_restart() -> None:
    app, go = app_with()

    async with TestWorker(app) as t:
        sent = await t.publish("custom.go", "fails once")
        await t.advance(seconds=0.5)
        assert t.attempts(go, sent) == 1
        await t.restart()
        await t.settle()

    assert [run.attempt for run in t.runs(go, sent)] == [1, 2]


async def test_a_running_handler_may_finish_before_a_restart() -> None:
    app = App("patient")

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any]) -> None:
        await asyncio.sleep(20)

    async with TestWorker(app) as t:
        await t.publish("custom.go")
        await t.advance(seconds=1)
        await t.restart()
        await t.settle()

    assert t.outcomes(go) == [Done()]
    assert t.attempts(go) == 1

"""TestWorker: what a test sees of an app, and that it is the real engine it sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import App, ConfigError, Context, Event, Reject, Retry, Settings
from omni_worker.outcomes import Done, Failed, Rejected
from omni_worker.testing import MemoryServer, Run, TestWorker, Unsettled, event_of
from omni_worker.testing.pending import explain


class Order(BaseModel):
    amount: int


def shop() -> tuple[App, Any]:
    """An app with one handler: it accepts, rejects, or fails twice and then accepts."""
    app = App("shop")

    @app.on("custom.order.placed", durable="orders")
    async def place(event: Event[Order], ctx: Context) -> None:
        if event.payload.amount <= 0:
            raise Reject("nothing was ordered")
        if event.payload.amount == 13 and ctx.attempt < 3:
            raise ValueError("not now")
        await app.publish(
            "custom.order.accepted",
            {"amount": event.payload.amount},
            channel=event.channel,
            instance=event.instance,
        )

    return app, place


async def test_a_handled_event_shows_what_came_of_it() -> None:
    app, place = shop()

    async with TestWorker(app) as t:
        sent = await t.publish(
            "custom.order.placed", {"amount": 3}, channel="web", instance="shop-1"
        )
        await t.settle()

    [accepted] = t.published("custom.order.accepted")
    assert accepted.payload == {"amount": 3}
    assert (accepted.channel, accepted.instance) == ("web", "shop-1")
    assert accepted.metadata.correlation_id == sent.id
    assert (t.attempts(place), t.outcomes(place), t.dead_letters) == (1, [Done()], [])


async def test_retries_happen_in_their_own_time() -> None:
    app, place = shop()

    async with TestWorker(app) as t:
        clock = asyncio.get_running_loop()
        began, real = clock.time(), time.monotonic()
        sent = await t.publish("custom.order.placed", {"amount": 13})
        await t.settle()
        took, really = clock.time() - began, time.monotonic() - real

    assert [run.attempt for run in t.runs(place, sent)] == [1, 2, 3]
    assert [type(one) for one in t.outcomes(place)] == [Failed, Failed, Done]
    assert 2.7 <= took <= 3.3  # 1 s and 2 s, each ± 10 %
    assert really < 2.7  # what the retries would take for real


async def test_a_rejected_event_is_a_dead_letter_with_its_reason() -> None:
    app, place = shop()

    async with TestWorker(app) as t:
        sent = await t.publish("custom.order.placed", {"amount": 0})
        await t.settle()

    [letter] = t.dead_letters
    assert letter.payload["originalEventId"] == sent.id
    assert letter.payload["error"] == "nothing was ordered"
    assert isinstance(t.outcomes(place)[0], Rejected)
    assert t.published() == []


async def test_what_cannot_be_read_is_a_dead_letter_and_no_attempt() -> None:
    app, place = shop()

    async with TestWorker(app) as t:
        t.server.store("custom.order.placed", b"\xff")
        await t.publish("custom.order.placed", {"amount": "many"})
        await t.settle()

    assert len(t.dead_letters) == 2
    assert t.attempts(place) == 0


async def test_published_takes_types_patterns_and_addresses() -> None:
    app = App("fan")

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any]) -> None:
        await app.publish("custom.a", 1, channel="web", instance="one")
        await app.publish("custom.a", 2, channel="web", instance="two")
        await app.publish("custom.b.deep", 3)

    async with TestWorker(app) as t:
        await t.publish("custom.go")
        await t.settle()

    def payloads(*given: str, **address: str) -> list[Any]:
        return [event.payload for event in t.published(*given, **address)]

    assert payloads() == [1, 2, 3]
    assert payloads("custom.a") == [1, 2]
    assert payloads("custom.>") == [1, 2, 3]
    assert payloads("custom.*") == [1, 2]
    assert payloads("custom.a", instance="two") == [2]
    assert payloads("custom.c") == []


async def test_an_event_published_by_two_runs_is_one_event() -> None:
    app = App("twice")

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any], ctx: Context) -> None:
        await ctx.publish("custom.done", 1)
        if ctx.attempt == 1:
            raise ValueError("after publishing")

    async with TestWorker(app) as t:
        await t.publish("custom.go")
        await t.settle()

    assert t.attempts(go) == 2
    assert len(t.published("custom.done")) == 1


async def test_settle_waits_for_a_retry_that_a_schedule_keeps() -> None:
    app = App("late")

    @app.on("custom.go", durable="go", max_retries=2)
    async def go(event: Event[Any], ctx: Context) -> None:
        if ctx.attempt < 3:
            raise Retry(after=86_400)

    async with TestWorker(app) as t:
        await t.publish("custom.go")
        await t.settle()

    assert t.attempts(go) == 3
    assert t.dead_letters == []


async def test_pending_says_what_waits_and_for_how_long() -> None:
    app = App("late")

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any], ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry(after=3600)

    async with TestWorker(app) as t:
        sent = await t.publish("custom.go")
        await t.advance(seconds=1)
        [waiting] = t.pending
        assert (waiting.state, waiting.deliveries) == ("retry", 1)
        assert waiting.event is not None
        assert waiting.event.id == sent.id
        assert waiting.due == pytest.approx(3599, abs=0.1)

        await t.advance(minutes=59)
        assert t.attempts(go) == 1
        await t.advance(minutes=1)

        assert t.attempts(go) == 2
        assert t.pending == []


async def test_raise_errors_fails_the_test_with_the_handlers_own_exception() -> None:
    app, _ = shop()

    async def test() -> None:
        async with TestWorker(app, raise_errors=True) as t:
            await t.publish("custom.order.placed", {"amount": 13})
            await t.settle()

    with pytest.raises(ValueError, match="not now") as caught:
        await test()

    assert caught.traceback[-1].name == "place"


async def test_raise_errors_minds_errors_nobody_settled_for() -> None:
    app, place = shop()

    async def test() -> None:
        async with TestWorker(app, raise_errors=True) as t:
            await t.publish("custom.order.placed", {"amount": 13})
            while not t.outcomes(place):
                await asyncio.sleep(0)

    with pytest.raises(ValueError, match="not now"):
        await test()


async def test_raise_errors_lets_intended_endings_pass() -> None:
    app, place = shop()

    async with TestWorker(app, raise_errors=True) as t:
        await t.publish("custom.order.placed", {"amount": 0})
        await t.settle()

    assert t.attempts(place) == 1


async def test_raise_errors_says_when_a_handler_ran_too_long() -> None:
    app = App("slow")

    @app.on("custom.go", durable="go", timeout=5)
    async def go(event: Event[Any]) -> None:
        await asyncio.sleep(3600)

    async def test() -> None:
        async with TestWorker(app, raise_errors=True) as t:
            await t.publish("custom.go")
            await t.settle()

    with pytest.raises(
        TimeoutError, match="go, attempt 1: the handler ran longer than timeout=5 s"
    ):
        await test()


async def test_an_app_may_run_any_number_of_times_from_scratch() -> None:
    app, place = shop()

    for _ in range(3):
        async with TestWorker(app) as t:
            await t.publish("custom.order.placed", {"amount": 1}, id="same")
            await t.settle()

        assert t.attempts(place) == 1
        assert len(t.published("custom.order.accepted")) == 1


async def test_two_workers_share_a_durable_and_come_to_rest_together() -> None:
    first, place = shop()
    second, place_too = shop()
    server = MemoryServer()

    async with TestWorker(first, server=server) as one, TestWorker(second, server=server) as two:
        for _ in range(100):
            await one.publish("custom.order.placed", {"amount": 13})
        await one.settle()

        assert (one.pending, two.pending) == ([], [])

    ended = [one.outcomes(place).count(Done()), two.outcomes(place_too).count(Done())]
    assert sum(ended) == 100
    assert min(ended) > 0


async def test_settle_waits_for_every_worker_of_the_loop() -> None:
    first, _ = shop()
    second, server = App("mailer"), MemoryServer()

    @second.on("custom.order.accepted", durable="mails")
    async def mail(event: Event[Any]) -> None:
        await asyncio.sleep(3600)

    async with TestWorker(first, server=server) as one, TestWorker(second, server=server) as two:
        await one.publish("custom.order.placed", {"amount": 1})
        await one.settle()

        assert two.outcomes(mail) == [Done()]


async def test_the_lifespan_runs_and_may_sleep() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[str]:
        await asyncio.sleep(5)
        seen.append("open")
        yield "state"
        await asyncio.sleep(5)
        seen.append("closed")

    app = App("alive", lifespan=lifespan)

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any], ctx: Context) -> None:
        seen.append(ctx.state)

    async with TestWorker(app) as t:
        await t.publish("custom.go")
        await t.settle()
    assert seen == ["open", "state", "closed"]


async def test_an_app_that_cannot_start_says_so_with_its_own_error() -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        raise ZeroDivisionError("no database")
        yield

    with pytest.raises(ZeroDivisionError, match="no database"):
        async with TestWorker(App("broken", lifespan=lifespan)):
            pass

    await asyncio.wait_for(asyncio.sleep(0.001), 1)  # the loop is as it was


async def test_settings_may_be_given() -> None:
    app, place = shop()

    async with TestWorker(app, settings=Settings(max_retries=0)) as t:
        await t.publish("custom.order.placed", {"amount": 13})
        await t.settle()

    assert (t.attempts(place), len(t.dead_letters)) == (1, 1)


async def test_handlers_have_names_and_a_wrong_one_is_an_error() -> None:
    app, place = shop()

    async with TestWorker(app) as t:
        await t.publish("custom.order.placed", {"amount": 1})
        await t.settle()

    assert t.attempts("orders") == t.attempts("place") == t.attempts(place) == 1
    said = r"no handler is called shop; the handlers are place \(orders\)"
    with pytest.raises(ConfigError, match=said):
        t.attempts(shop)
    with pytest.raises(ConfigError, match="is not running"):
        await t.settle()


async def test_plain_functions_run_in_threads_and_time_waits_for_them() -> None:
    app = App("threads")
    seen: list[float] = []

    @app.on("custom.go", durable="go", timeout=1)
    def go(event: Event[Any], ctx: Context) -> None:
        time.sleep(0.05)
        seen.append(1)
        ctx.wait(asyncio.sleep(0.5))  # the loop's time, in which only the loop waits
        ctx.wait(ctx.publish("custom.done", 1))

    async with TestWorker(app) as t:
        began = asyncio.get_running_loop().time()
        await t.publish("custom.go")
        await t.settle()
        took = asyncio.get_running_loop().time() - began

    assert len(t.published("custom.done")) == 1
    assert t.outcomes(go) == [Done()]
    assert took == pytest.approx(0.5, abs=0.1)


# --- a settle that never ends ------------------------------------------------------------------


async def test_an_endless_circle_is_named() -> None:
    app = App("pingpong")

    @app.on("custom.ping", durable="ping")
    async def ping(event: Event[Any]) -> None:
        await app.publish("custom.ping")

    async with TestWorker(app, patience=0.3) as t:
        await t.publish("custom.ping")
        with pytest.raises(Unsettled) as caught:
            await t.settle()

    assert "the app does not come to rest: 0.3 s of real time" in str(caught.value)
    assert "ping ran " in str(caught.value)
    assert "times for custom.ping" in str(caught.value)


def test_each_handler_that_ran_is_named_with_its_own_error() -> None:
    app = App("circle")

    @app.on("custom.ping", durable="ping")
    async def ping(event: Event[Any]) -> None: ...

    @app.on("custom.pong", durable="pong")
    async def pong(event: Event[Any]) -> None: ...

    failed, handled = Failed(ValueError("no")), Done()
    first, second = app.handlers
    runs = [
        Run(handler=first, event=event_of("custom.ping", 1), attempt=1, outcome=failed),
        Run(handler=first, event=event_of("custom.ping", 1), attempt=2, outcome=failed),
        Run(handler=second, event=event_of("custom.pong", 1), attempt=1, outcome=handled),
    ]

    assert str(explain("why", [], runs, [], [])).splitlines() == [
        "why",
        "  since it began ping ran 2 times for custom.ping; the last error: ValueError: no",
        "  since it began pong ran once for custom.pong",
    ]


async def test_a_handler_that_never_returns_is_named_with_its_line() -> None:
    app = App("stuck")

    @app.on("custom.go", durable="go")
    async def go(event: Event[Any]) -> None:
        await asyncio.Event().wait()

    async with TestWorker(app) as t:
        await t.publish("custom.go", id="e-1")
        with pytest.raises(Unsettled) as caught:
            await t.settle()

    assert "nothing left could change that" in str(caught.value)
    assert "test_worker.py:" in str(caught.value)
    assert "go: custom.go e-1 held" in str(caught.value)


async def test_a_connection_that_stays_down_is_named() -> None:
    app, place = shop()

    async with TestWorker(app) as t:
        t.disconnect(seconds=None)
        await t.publish("custom.order.placed", {"amount": 1})
        with pytest.raises(Unsettled, match=r"the connection is down, and only t\.reconnect"):
            await t.settle()
        t.reconnect()
        await t.settle()

    assert t.attempts(place) == 1


# --- an event without the kit ------------------------------------------------------------------


async def test_a_handler_is_a_plain_function() -> None:
    seen: list[Any] = []
    app = App("plain")

    @app.on("custom.order.placed", durable="orders")
    async def place(event: Event[Order]) -> None:
        seen.append((event.payload.amount, event.channel, event.instance))

    await place(event_of("custom.order.placed", Order(amount=2), channel="web", instance="one"))

    assert seen == [(2, "web", "one")]

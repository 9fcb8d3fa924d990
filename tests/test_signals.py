"""Signals: every listener hears its kinds, and none can disturb the engine."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from examples.metrics_listener import ENDINGS, Metrics
from omni_worker import App, ConfigError, Context, Event, Reject, Retry
from omni_worker.outcomes import Done
from omni_worker.signals import (
    BreakerClosed,
    BreakerOpened,
    Connected,
    DeadLettered,
    Disconnected,
    HandlerSignal,
    Listener,
    PublishConfirmed,
    PublishFailed,
    RunFinished,
    RunStarted,
    Signal,
    Signals,
)
from omni_worker.testing import TestWorker


def test_every_listener_hears_in_the_order_of_registration() -> None:
    heard: list[str] = []
    signals = Signals([Listener(lambda _: heard.append("first"))])
    signals.add(Listener(lambda _: heard.append("second")))

    signals.emit(Connected(server="a"))

    assert heard == ["first", "second"]


def test_a_listener_hears_only_its_kinds() -> None:
    heard: list[Signal] = []
    signals = Signals([Listener(heard.append, (BreakerOpened, BreakerClosed))])

    signals.emit(Connected(server="a"))

    assert heard == []
    assert signals.emitter(Connected) is None
    assert signals.emitter(BreakerOpened) is not None


def test_a_listener_that_fails_is_logged_and_the_others_hear(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Signal] = []

    def fail(signal: Any) -> None:
        raise RuntimeError("boom")

    signals = Signals([Listener(fail), Listener(heard.append)])
    with caplog.at_level(logging.ERROR, "omni_worker.signals"):
        signals.emit(Connected(server="a"))

    assert heard == [Connected(server="a")]
    assert "a listener failed on Connected" in caplog.text


def test_a_listener_given_twice_hears_once() -> None:
    heard: list[Signal] = []
    signals = Signals([Listener(heard.append), Listener(heard.append)])

    signals.emit(Connected(server="a"))

    assert len(heard) == 1


# --- of an app ----------------------------------------------------------------------------------


def two_apps() -> tuple[App, App]:
    """A shop that includes billing; each event of theirs says how it wants to end."""
    billing, shop = App("billing"), App("shop")

    async def end(event: Event[Any], ctx: Context) -> None:
        match event.payload:
            case "fails once" if ctx.attempt == 1:
                raise ValueError("not yet")
            case "later" if ctx.attempt == 1:
                raise Retry(after=50)
            case "never":
                raise Reject("no")
            case "publishes":
                await ctx.publish("custom.note", {})

    @billing.on("custom.bill", durable="bills", order_by=lambda event: event.id)
    async def bill(event: Event[Any], ctx: Context) -> None:
        await end(event, ctx)

    @shop.on("custom.order", durable="orders")
    async def order(event: Event[str], ctx: Context) -> None:
        await end(event, ctx)

    shop.include(billing)
    return shop, billing


async def test_a_metrics_listener_hears_every_ending_of_an_included_app_as_well() -> None:
    shop, _ = two_apps()
    metrics = Metrics()
    shop.listen(metrics, *ENDINGS)

    async with TestWorker(shop) as t:
        for type in ("custom.order", "custom.bill"):
            for payload in ("well", "fails once", "never", "publishes"):
                await t.publish(type, payload)
            await t.publish(f"{type}.of.another.type", "skipped")
        t.server.store("custom.order", b"unreadable")
        await t.settle()
        t.drop_next_ack()
        await t.publish("custom.order", "its ack is lost")
        await t.settle()
        await t.publish("custom.bill", "later")
        await t.advance(seconds=5)
        await t.restart()  # what waits for its retry is handed back
        await t.settle()

    assert metrics.counts == {
        ("handled", "order"): 4,
        ("handled", "bill"): 4,
        ("retried", "order"): 1,
        ("retried", "bill"): 2,
        ("dead-lettered", "order"): 2,
        ("dead-lettered", "bill"): 1,
        ("skipped", "order"): 1,
        ("skipped", "bill"): 1,
        ("handed back", "bill"): 1,
        ("recognised", "order"): 1,
        ("published", "custom.note"): 2,
        ("published", "system.dead_letter"): 3,
    }


async def test_an_included_apps_listener_hears_its_own_handlers_and_what_is_published() -> None:
    shop, billing = two_apps()
    heard: list[Signal] = []
    billing.listen(heard.append)

    async with TestWorker(shop) as t:
        await t.publish("custom.order", "publishes")
        await t.publish("custom.bill", "well")
        await t.settle()

    assert {one.handler.short for one in heard if isinstance(one, HandlerSignal)} == {"bill"}
    assert [one.type for one in heard if isinstance(one, PublishConfirmed)] == ["custom.note"]
    assert [
        type(one) for one in heard if not isinstance(one, HandlerSignal | PublishConfirmed)
    ] == [Connected]


async def test_a_run_is_told_twice_and_once_where_only_its_end_is_wanted() -> None:
    shop, _ = two_apps()
    started: list[RunStarted] = []
    finished: list[RunFinished] = []
    shop.listen(started.append, RunStarted)
    shop.listen(finished.append, RunFinished)

    async with TestWorker(shop) as t:
        sent = await t.publish("custom.order", "fails once")
        await t.settle()

    assert [(one.event.id, one.attempt) for one in started] == [(sent.id, 1), (sent.id, 2)]
    assert [isinstance(one.outcome, Done) for one in finished] == [False, True]


async def test_an_event_that_cannot_be_read_is_dead_lettered_without_an_event() -> None:
    shop, _ = two_apps()
    heard: list[DeadLettered] = []
    shop.listen(heard.append, DeadLettered)

    async with TestWorker(shop) as t:
        t.server.store("custom.order", b"unreadable")
        await t.settle()

    [one] = heard
    assert (one.event, one.subject, one.attempts) == (None, "custom.order", 0)
    assert (one.stream, one.error_type) == ("CUSTOM", "omni_worker.wire.Unreadable")


async def test_a_link_that_breaks_and_comes_back_is_heard() -> None:
    shop, _ = two_apps()
    heard: list[Signal] = []
    shop.listen(heard.append, Connected, Disconnected)

    async with TestWorker(shop) as t:
        t.disconnect(seconds=1)
        await t.settle()

    assert [type(one) for one in heard] == [Connected, Disconnected, Connected]


async def test_each_event_of_a_publish_many_is_heard_and_a_refused_one_as_well() -> None:
    app = App("shop")
    heard: Counter[type[Signal]] = Counter()

    @app.listen
    def count(signal: Signal) -> None:
        heard[type(signal)] += 1

    @app.on("custom.order", durable="orders")
    async def order(event: Event[Any]) -> None:
        drafts = [app_draft(number) for number in range(3)]
        await app.publish_many(drafts)
        await app.publish_many(one for one in drafts)
        with pytest.raises(Exception, match="unknown"):
            await app.publish("system.unknown", {})

    async with TestWorker(app) as t:
        await t.publish("custom.order", {})
        await t.settle()

    assert (heard[PublishConfirmed], heard[PublishFailed]) == (6, 1)


def app_draft(number: int) -> Any:
    """Listener like many others."""
    from omni_worker import Draft

    return Draft(type="custom.note", payload={"number": number})


@pytest.mark.parametrize("wrong", ["RunFinished", int])
def test_what_is_no_kind_of_signal_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"no kind of signal .*test_signals\.py"):
        App("shop").listen(print, wrong)


def test_a_coroutine_function_is_no_listener() -> None:
    async def hear(signal: Signal) -> None: ...

    with pytest.raises(ConfigError, match="expected a plain def"):
        App("shop").listen(hear)


def test_listen_keeps_the_function() -> None:
    app = App("shop")

    @app.listen
    def hear(signal: Signal) -> None: ...

    assert app.listeners == [Listener(hear, (Signal,))]


async def test_a_run_that_was_too_long_ends_as_timed_out() -> None:
    app, ended = App("slow"), []

    @app.on("custom.go", durable="go", timeout=5, max_retries=0)
    async def go(event: Event[Any]) -> None:
        await asyncio.sleep(3600)

    app.listen(ended.append, RunFinished)

    async with TestWorker(app) as t:
        await t.publish("custom.go")
        await t.settle()

    assert [str(one.outcome.error) for one in ended] == ["the handler ran longer than timeout=5 s"]

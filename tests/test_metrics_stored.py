"""Metrics of what the server keeps: open dead letters, scheduled events, what waits for a limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker import App, Event, Reject
from omni_worker.errors import PermissionDenied
from omni_worker.metrics import Metrics, stored
from omni_worker.metrics.looks import Looks
from omni_worker.operations.dead_letters import DeadLetters
from omni_worker.publisher import Publisher
from omni_worker.testing import TestWorker

from .test_metrics import Series, scrape, value


def make_app() -> tuple[App, Metrics]:
    app = App("shop")
    metrics = app.use(Metrics())

    @app.on("custom.order.placed", durable="orders")
    async def place(event: Event[Any]) -> None:
        raise Reject("no")

    @app.on("custom.order.paid", durable="payments")
    async def pay(event: Event[Any]) -> None:
        await app.publish("custom.mail.queued", {}, after=3600)

    return app, metrics


def looks_of(metrics: Metrics) -> Looks:
    [looks] = metrics.buses.values()
    return looks


def letters_by_handler(found: Series) -> dict[str, float]:
    return {
        dict(labels)["handler"]: value
        for (name, labels), value in found.items()
        if name == "omni_worker_dead_letters"
    }


async def counted(metrics: Metrics) -> dict[str, float]:
    await looks_of(metrics).letters.look()
    return letters_by_handler(scrape(metrics))


async def test_open_dead_letters_are_counted_as_they_come_and_go() -> None:
    app, metrics = make_app()

    async with TestWorker(app) as t:
        letters = DeadLetters(t._process.bus.transport)
        none = await counted(metrics)
        for _ in range(3):
            await t.publish("custom.order.placed", {})
        await t.settle()
        three = await counted(metrics)
        first, second, _ = [one async for one in letters.list()]
        await letters.discard(first)
        await letters.retry(second)
        one_left = await counted(metrics)
        await t.settle()  # the event that was sent back fails again
        two = await counted(metrics)

    assert none == {"orders": 0, "payments": 0}
    assert three == {"orders": 3, "payments": 0}
    assert one_left == {"orders": 1, "payments": 0}
    assert two == {"orders": 2, "payments": 0}


async def test_a_scrape_asks_and_the_next_one_has_the_answer() -> None:
    app, metrics = make_app()

    async with TestWorker(app) as t:
        await t.publish("custom.order.placed", {})
        await t.settle()
        first = letters_by_handler(scrape(metrics))
        await t.settle()
        second = letters_by_handler(scrape(metrics))

    assert first == {}
    assert second == {"orders": 1, "payments": 0}


async def test_dead_letters_of_handlers_that_do_not_run_here_share_a_label() -> None:
    app, metrics = make_app()
    mail = {
        "originalEventId": "a", "originalEventType": "custom.mail.sent", "error": "no",
        "retryCount": 0, "timestamp": 1, "handler": "mails",
    }  # fmt: skip

    async with TestWorker(app) as t:
        bus = t._process.bus
        for source in ("shop", "other-app"):
            publisher = Publisher(bus.transport, bus.registry, source)
            for number in range(2):
                await publisher.publish_letter(f"{source}{number}", mail, {})
        found = await counted(metrics)

    assert found == {"orders": 0, "payments": 0, "other": 2}


async def test_only_the_newest_dead_letters_are_kept_in_mind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "MOST", 5)
    app, metrics = make_app()

    async with TestWorker(app) as t:
        for _ in range(4):
            await t.publish("custom.order.placed", {})
        await t.settle()
        await counted(metrics)
        for _ in range(4):
            await t.publish("custom.order.placed", {})
        await t.settle()
        found = await counted(metrics)
        kept = len(looks_of(metrics).letters._letters)

    assert found["orders"] == kept == 5


async def test_scheduled_events_are_counted_until_they_are_due() -> None:
    app, metrics = make_app()

    async with TestWorker(app) as t:
        await looks_of(metrics).kept.look()
        before = scrape(metrics)
        for _ in range(2):
            await t.publish("custom.order.paid", {})
        await t.settle()
        await looks_of(metrics).kept.look()
        waiting = scrape(metrics)
        await t.advance(seconds=3700)
        await looks_of(metrics).kept.look()
        after = scrape(metrics)

    assert not [name for name, _ in before if name == "omni_worker_scheduled_events"]
    assert value(waiting, "scheduled_events") == 2
    assert value(waiting, "outbox_events") == 0
    assert value(after, "scheduled_events") == 0


async def test_without_the_right_it_is_asked_once_and_there_is_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, metrics = make_app()
    asked = 0

    async def streams() -> Any:
        nonlocal asked
        asked += 1
        raise PermissionDenied("no right")

    async with TestWorker(app) as t:
        letters = looks_of(metrics).letters
        await counted(metrics)
        monkeypatch.setattr(t._process.bus.transport.operators, "streams", streams)
        for _ in range(2):
            letters._looked_at = float("-inf")
            letters.look_if_due()
            await t.settle()
        found = letters_by_handler(scrape(metrics))

    assert asked == 1
    assert found == {}


@pytest.mark.parametrize(("option", "by"), [({"rate": "1/m"}, "rate"), ({"limit": 1}, "limit")])
async def test_events_that_wait_for_a_limit_are_counted_by_it(
    option: dict[str, Any], by: str
) -> None:
    app = App("shop")
    metrics, go = app.use(Metrics()), asyncio.Event()

    @app.on("custom.order.placed", durable="orders", **option)
    async def place(event: Event[Any]) -> None:
        if by == "limit":
            await go.wait()

    @app.on("custom.order.paid", durable="payments")
    async def pay(event: Event[Any]) -> None:
        pass

    async with TestWorker(app) as t:
        for _ in range(4):
            await t.publish("custom.order.placed", {})
        await t.advance(seconds=1)
        waiting = value(scrape(metrics), "limited_events", by=by)
        go.set()
        await t.advance(seconds=300)
        found = scrape(metrics)

    assert waiting == 3
    assert value(found, "limited_events") == 0  # one series: of the handler that has a limit

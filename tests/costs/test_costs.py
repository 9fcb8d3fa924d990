"""What an event costs: nothing per event that need not be.

These are counts of one run beside a real server, no times. Who raises a limit here says why.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import App, Batch, Context, Draft, Event, EventBus, Settings
from omni_worker.nats_server import NatsServer

from .meter import Meter

EVENTS = 4_000


class Content(BaseModel):
    text: str


class Received(BaseModel):
    chatId: str
    content: Content


def drafts(count: int = EVENTS) -> list[Draft]:
    return [
        Draft(
            type="custom.message.received",
            payload={"chatId": f"chat-{number}", "content": {"text": "olá"}},
            channel="whatsapp",
            instance=f"wa-{number % 50}",
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("options", [{}, {"timeout": 30.0}], ids=["plain", "timeout"])
async def test_handling_an_event(nats_server: NatsServer, options: dict[str, Any]) -> None:
    meter, done, handled = Meter(), asyncio.Event(), 0

    async def handle(event: Event[Received]) -> None:
        nonlocal handled
        handled += 1
        if handled == EVENTS:
            done.set()

    async with EventBus(nats_server.url, name="costs") as bus:
        await bus.publish_many(drafts())
        with meter.counting():
            await bus.subscribe(
                "custom.message.received",
                handle,
                durable="c",
                start_from="first",
                prefetch=2_000,
                **options,
            )
            await done.wait()

    shown = meter.most_called(EVENTS)
    assert meter.json["validate_json"] == EVENTS, meter.json
    assert meter.json.total() <= EVENTS * 1.02, meter.json  # the rest is talk with the server
    assert meter.counts["create_task"] <= 60, meter.counts  # ten workers, and the start
    assert meter.timers <= 60, meter.counts
    # Two consumers, each made and asked, and a pull for some 200 events; fewer on a busy machine.
    assert meter.counts["requests"] <= 60, meter.counts
    assert meter.counts["writes"] <= EVENTS * 0.05, meter.counts
    # Two consumers take turns: 1.7 calls an event more than one would need.
    assert meter.calls.total() <= EVENTS * 11.5, shown


async def test_handling_events_in_batches(nats_server: NatsServer) -> None:
    app, meter, done, handled = App("costs"), Meter(), asyncio.Event(), 0

    @app.on_batch("custom.message.received", durable="c", start_from="first", size=500, wait=0.2)
    async def handle(batch: Batch[Received]) -> None:
        nonlocal handled
        handled += len(batch)
        if handled == EVENTS:
            done.set()

    settings = Settings(urls=nats_server.url)
    async with EventBus(nats_server.url, name="costs") as bus:
        await bus.publish_many(drafts())
    with meter.counting():
        async with app.running(settings=settings):
            await done.wait()

    shown = meter.most_called(EVENTS)
    assert meter.json["validate_json"] == EVENTS, meter.json
    # A slot for each event of a batch, a task for each batch, and the start.
    assert meter.counts["create_task"] <= 600, meter.counts
    assert meter.timers <= 120, meter.counts  # one of each batch, and of what looks after it
    assert meter.counts["writes"] <= EVENTS * 0.05, meter.counts
    # A plain handler: 10. Here 30.5, and up to 33.6 where other processes take the processor: each
    # second's look at 500 slots counts as well.
    assert meter.calls.total() <= EVENTS * 36, shown


async def test_publishing_many(nats_server: NatsServer) -> None:
    meter = Meter()
    async with EventBus(nats_server.url, name="costs") as bus:
        waiting = drafts()
        with meter.counting():
            await bus.publish_many(waiting)

    shown = meter.most_called(EVENTS)
    assert meter.json["from_json"] <= 10, meter.json  # the usual confirmation needs none
    assert meter.json["to_json"] <= EVENTS, meter.json  # one for a body
    assert meter.counts["create_task"] <= 2, meter.counts
    assert meter.timers <= 60, meter.counts  # a sweep every quarter of a second
    assert meter.counts["requests"] == 0, meter.counts
    assert meter.counts["writes"] <= EVENTS * 0.05, meter.counts
    assert meter.calls.total() <= EVENTS * 24, shown


async def test_one_in_one_out(nats_server: NatsServer) -> None:
    meter, done, handled = Meter(), asyncio.Event(), 0

    async def relay(event: Event[Received], ctx: Context) -> None:
        nonlocal handled
        await ctx.publish("custom.reply", {"chat": event.payload.chatId})
        handled += 1
        if handled == EVENTS:
            done.set()

    async with EventBus(nats_server.url, name="costs") as bus:
        await bus.publish_many(drafts())
        with meter.counting():
            await bus.subscribe(
                "custom.message.received",
                relay,
                durable="c",
                start_from="first",
                prefetch=2_000,
                concurrency=100,
            )
            await done.wait()

    shown = meter.most_called(EVENTS)
    assert meter.json["to_json"] <= EVENTS * 4 + 10, meter.json  # its payload once, id or not
    assert meter.counts["create_task"] <= 160, meter.counts
    assert meter.timers <= 150, meter.counts
    # Of two consumers each has a request open, and large ones end soon: at most one in 40 events.
    assert meter.counts["requests"] <= EVENTS / 40, meter.counts
    assert meter.counts["writes"] <= EVENTS * 0.5, meter.counts
    assert meter.calls.total() <= EVENTS * 62.5, shown  # with one consumer 58

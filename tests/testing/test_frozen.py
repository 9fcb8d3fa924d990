"""TestWorker under freezegun: an app comes to rest, and its times are those of the frozen clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from freezegun import freeze_time

from omni_worker import App, Context, Event
from omni_worker.testing import TestWorker

NOON = datetime(2020, 2, 29, 12, tzinfo=UTC)


async def test_a_retry_a_sleep_and_a_dead_letter_pass_while_the_clock_stands() -> None:
    app = App("shop")
    times: list[datetime] = []

    @app.on("custom.order.placed", durable="orders", max_retries=1)
    async def place(event: Event[int], ctx: Context) -> None:
        await asyncio.sleep(3600)  # of virtual time
        times.extend([event.time, ctx.first_delivered, datetime.now(UTC)])
        if ctx.attempt < event.payload:
            raise ValueError
        await ctx.publish("custom.order.accepted", event.payload)

    with freeze_time(NOON):
        async with TestWorker(app) as t:
            await t.publish("custom.order.placed", 2)
            await t.publish("custom.order.placed", 3)
            await t.settle()

    accepted: list[Event[Any]] = t.published("custom.order.accepted")
    assert t.attempts(place) == 2 + 2
    assert [one.payload for one in accepted] == [2]
    assert len(t.dead_letters) == 1
    assert {*times, accepted[0].time, t.dead_letters[0].time} == {NOON}


async def test_a_test_moves_both_clocks() -> None:
    app = App("shop")

    @app.on("custom.order.placed", durable="orders")
    async def place(event: Event[Any]) -> None:
        await asyncio.sleep(60)  # of virtual time
        await app.publish("custom.order.accepted")

    with freeze_time(NOON) as frozen:
        async with TestWorker(app) as t:
            await t.publish("custom.order.placed")
            frozen.tick(60)
            await t.advance(minutes=1)

    assert [one.time.minute for one in t.published("custom.order.accepted")] == [1]

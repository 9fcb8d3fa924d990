"""Options that act together, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from omni_worker import App, Batch, CallNext, Context, Event, Reject
from omni_worker.notes import AttemptNotes
from omni_worker.outcomes import Done
from omni_worker.testing import TestWorker


async def test_a_limit_holds_for_runs_whose_token_was_too_old() -> None:
    """Runs that wait for a trial of the breaker are called too late for their tokens."""
    app, most, now = App("shop"), 0, 0
    is_down = True

    @app.on("custom.thing", durable="d", rate="20/s", limit=3, exactly_once=True, breaker=5)
    async def handle(event: Event[Any]) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0.2)
            if is_down:
                raise ValueError("down")
        finally:
            now -= 1

    async with TestWorker(app) as t:
        for number in range(100):
            await t.publish("custom.thing", number)
        await t.advance(seconds=6)
        is_down = False
        await t.settle()
        handled = [one for one in t.runs("d") if one.outcome is not None]

    assert most == 3
    assert len({one.event.payload for one in handled}) == 100
    assert not t.dead_letters


async def test_halves_of_a_batch_publish_nothing_twice() -> None:
    app = App("shop")

    @app.on_batch("custom.row", durable="rows", size=8, wait=1, max_retries=1)
    async def store(batch: Batch[int]) -> None:
        for event in batch:
            await batch.context(event).publish("custom.stored", event.payload)
        if 5 in batch.payloads:
            raise ValueError("no such row")

    async with TestWorker(app) as t:
        for number in range(8):
            await t.publish("custom.row", number)
        await t.settle()

    stored = Counter(event.payload for event in t.published("custom.stored"))
    assert stored == dict.fromkeys(range(8), 1)
    assert len(t.dead_letters) == 1


async def test_halves_of_a_batch_commit_a_block_once() -> None:
    app = App("shop")

    @app.on_batch("custom.row", durable="rows", size=4, wait=1, max_retries=0)
    async def store(batch: Batch[int]) -> None:
        for event in batch:
            async with batch.context(event).atomic() as tx:
                await tx.publish("custom.stored", event.payload)
                await tx.publish("custom.counted", event.payload)
        if 3 in batch.payloads:
            raise ValueError("no such row")

    async with TestWorker(app) as t:
        for number in range(4):
            await t.publish("custom.row", number)
        await t.settle()

    assert sorted(event.payload for event in t.published("custom.stored")) == [0, 1, 2, 3]
    assert sorted(event.payload for event in t.published("custom.counted")) == [0, 1, 2, 3]


async def test_what_a_middleware_publishes_before_a_batch_is_another_event() -> None:
    app = App("shop")

    @app.middleware
    async def announce(ctx: Context, event: Event[Any], call_next: CallNext) -> None:
        await ctx.publish("custom.stored", event.payload)
        await call_next(ctx, event)

    @app.on_batch("custom.row", durable="rows", size=2, wait=1, max_retries=0)
    async def store(batch: Batch[int]) -> None:
        for event in batch:
            await batch.context(event).publish("custom.stored", event.payload)
        if 1 in batch.payloads:
            raise ValueError("no such row")

    async with TestWorker(app) as t:
        for number in range(2):
            await t.publish("custom.row", number)
        await t.settle()

    assert Counter(event.payload for event in t.published("custom.stored")) == {0: 2, 1: 2}


async def test_a_batch_that_a_middleware_asks_for_again_after_a_pause_is_handled() -> None:
    app, sizes = App("shop"), list[int]()

    @app.middleware
    async def twice(ctx: Context, event: Event[Any], call_next: CallNext) -> None:
        await call_next(ctx, event)
        await call_next(ctx, event)

    @app.on_batch("custom.row", durable="rows", size=10, wait=5)
    async def store(batch: Batch[int]) -> None:
        sizes.append(len(batch))

    async with TestWorker(app) as t:
        await t.publish("custom.row", 1)
        await t.advance(seconds=1)
        await app.pause("rows", for_=2)
        await t.settle()

    assert sizes == [1]
    assert t.attempts("rows") == 1


async def test_letters_that_are_sent_back_are_settled_at_the_rate_and_in_batches() -> None:
    app, is_down = App("shop"), True
    times, sizes = list[float](), list[int]()

    @app.on("custom.row", durable="paced", rate="1/s", limit=1, order_by=lambda event: 0)
    async def paced(event: Event[int]) -> None:
        if is_down:
            raise Reject("down")
        times.append(asyncio.get_running_loop().time())

    @app.on_batch("custom.row", durable="rows", size=10, wait=1, exactly_once=True)
    async def store(batch: Batch[int]) -> None:
        if is_down:
            for event in batch:
                batch.reject(event, "down")
        else:
            sizes.append(len(batch))

    async with TestWorker(app) as t:
        for number in range(5):
            await t.publish("custom.row", number)
        await t.settle()
        is_down = False
        assert await t.send_back() == 10
        await t.settle()

    assert [round(later - times[0]) for later in times] == [0, 1, 2, 3, 4]
    assert sum(sizes) == 5
    assert len(t.dead_letters) == 10


async def test_an_event_that_is_sent_back_leaves_what_a_newer_one_scheduled() -> None:
    app, failing, cancelled = App("shop"), 2, list[bool]()

    @app.on("custom.question", durable="d", max_retries=0)
    async def answer(event: Event[int], ctx: Context) -> None:
        nonlocal failing
        if event.payload == 2:
            await ctx.publish("custom.follow_up", after=3_600, key="follow-up")
        elif failing:
            failing -= 1
            raise ValueError("not yet")
        else:
            cancelled.append(await ctx.cancel("follow-up"))

    async with TestWorker(app) as t:
        await t.publish("custom.question", 1)
        await t.settle()
        await t.publish("custom.question", 2)
        await t.advance(seconds=1)
        for _ in range(2):  # it fails again: its age is kept in the second letter
            await t.send_back()
            await t.advance(seconds=60)
        await t.advance(hours=1)

    assert cancelled == [False]
    assert len(t.published("custom.follow_up")) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 1},
        {"limit": 1, "exactly_once": True},
        {"rate": "1/s"},
        {"rate": "1/s", "rate_by": lambda event: 0},
        {"order_by": lambda event: 0},
    ],
    ids=["limit", "limit and guard", "rate", "rate_by", "order_by"],
)
async def test_what_goes_back_at_a_pause_is_not_begun_by_a_gate(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the handback is noted a run ends, or a token comes: the gate would begin the next."""
    keep_all, app, runs = AttemptNotes.keep_all, App("shop"), list[int]()

    async def slowly(notes: AttemptNotes, kept: Any) -> None:
        await asyncio.sleep(1.5)
        await keep_all(notes, kept)

    monkeypatch.setattr(AttemptNotes, "keep_all", slowly)

    @app.on("custom.thing", durable="d", concurrency=2, prefetch=10, **options)
    async def handle(event: Event[int]) -> None:
        runs.append(event.payload)
        await asyncio.sleep(1)

    async with TestWorker(app) as t:
        for number in range(8):
            await t.publish("custom.thing", number)
        await t.advance(seconds=0.5)
        await app.pause("d", for_=10)
        await t.advance(seconds=9)
        paused = list(runs)
        await t.settle()  # nothing counts as held any more

    assert paused == [0]
    assert sorted(runs) == list(range(8))
    assert [type(one) for one in t.outcomes("d")] == [Done] * 8

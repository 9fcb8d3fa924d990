"""Batches in virtual time: when they begin, how each event ends, and who fails with whom."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import App, Batch, ConfigError, Context, Event, Reject, Retry
from omni_worker.outcomes import Done, Failed, Rejected
from omni_worker.testing import MemoryServer, TestWorker


class Row(BaseModel):
    n: int


class Table:
    """An app whose batches are recorded; ``fails`` decides by the numbers of a batch."""

    def __init__(self, **options: Any) -> None:
        self.app = App("rows")
        self.batches: list[list[int]] = []
        self.poison: dict[int, type[Exception]] = {}

        @self.app.on_batch("custom.row", durable="rows", **options)
        async def store(batch: Batch[Row]) -> None:
            self.batches.append([row.n for row in batch.payloads])
            for row in batch.payloads:
                if row.n in self.poison:
                    raise self.poison[row.n](f"row {row.n}")

        self.store = store

    def containing(self, number: int) -> list[int]:
        """The sizes of the batches that held a number."""
        return [len(one) for one in self.batches if number in one]


async def publish(t: TestWorker, *numbers: Any) -> list[str]:
    return [(await t.publish("custom.row", {"n": number})).id for number in numbers]


# --- when a batch begins ------------------------------------------------------------------


async def test_a_full_batch_begins_at_once_and_the_rest_after_its_time() -> None:
    table = Table(size=10, wait=1.0)

    async with TestWorker(table.app) as t:
        await publish(t, *range(25))
        await t.advance(seconds=0.9)
        before = [len(one) for one in table.batches]
        await t.advance(seconds=0.2)

    assert before == [10, 10]
    assert table.batches == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]


async def test_the_time_counts_from_the_first_event() -> None:
    table = Table(size=10, wait=1.0)

    async with TestWorker(table.app) as t:
        for number in range(4):
            await publish(t, number)
            await t.advance(seconds=0.4)

    assert table.batches == [[0, 1, 2]]


async def test_one_batch_at_a_time_and_what_comes_meanwhile_is_one_batch() -> None:
    app, begun, most, now = App("rows"), [], 0, 0

    @app.on_batch("custom.row", durable="rows", size=100, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        begun.append(len(batch))
        await asyncio.sleep(5)
        now -= 1

    async with TestWorker(app) as t:
        for number in range(10):
            await publish(t, number)
            await t.advance(seconds=0.4)
        await t.settle()

    assert most == 1
    assert begun == [1, 9]


async def test_several_batches_run_at_once_where_concurrency_says_so() -> None:
    app, most, now = App("rows"), 0, 0

    @app.on_batch("custom.row", durable="rows", size=5, wait=0.1, concurrency=3)
    async def store(batch: Batch[Row]) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1

    async with TestWorker(app) as t:
        await publish(t, *range(40))
        await t.settle()
        running = t.attempts(store)

    assert (most, running) == (3, 40)


# --- how its events end -------------------------------------------------------------------


async def test_each_event_ends_as_it_was_asked_to() -> None:
    app, attempts = App("rows"), []

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        attempts.append([batch.context(event).attempt for event in batch])
        for event in batch:
            if event.payload.n == 1 and batch.context(event).attempt == 1:
                batch.retry(event, after=60)
            if event.payload.n == 2:
                batch.reject(event, "no such row")

    async with TestWorker(app) as t:
        ids = await publish(t, 0, 1, 2)
        await t.advance(seconds=59)
        early = t.attempts(store, ids[1])
        await t.settle()
        outcomes = [t.outcomes(store, id) for id in ids]

    assert early == 1
    assert outcomes[0] == [Done()]
    assert [type(one) for one in outcomes[1]] == [Failed, Done]
    assert [type(one) for one in outcomes[2]] == [Rejected]
    assert [one.payload["error"] for one in t.dead_letters] == ["no such row"]
    assert attempts == [[1, 1, 1], [2]]


async def test_what_was_marked_before_an_exception_is_settled_so_and_the_rest_fails() -> None:
    app, seen = App("rows"), []

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.1, retry_delay=20.0)
    async def store(batch: Batch[Row]) -> None:
        seen.append([event.payload.n for event in batch])
        if len(seen) == 1:
            batch.reject(batch.events[0], "bad")
            batch.retry(batch.events[1], after=100)
            raise ValueError("the rest")

    async with TestWorker(app) as t:
        ids = await publish(t, 0, 1, 2, 3)
        await t.settle()
        ends = [[type(one).__name__ for one in t.outcomes(store, id)] for id in ids]

    assert ends == [["Rejected"], ["Failed", "Done"], ["Failed", "Done"], ["Failed", "Done"]]
    assert seen == [[0, 1, 2, 3], [2, 3], [1]]


async def test_unreadable_events_are_dead_letters_before_the_handler_sees_the_batch() -> None:
    table = Table(size=4, wait=0.1)

    async with TestWorker(table.app) as t:
        await publish(t, 0, "x", 2, None, 4, 5)
        await t.settle()

    assert table.batches == [[0, 2, 4, 5]]
    assert len(t.dead_letters) == 2
    assert {one.payload["retryCount"] for one in t.dead_letters} == {0}


async def test_an_event_of_another_batch_is_refused() -> None:
    app, refused = App("rows"), []

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        try:
            batch.retry(batch.events[0].model_copy())
        except ConfigError as error:
            refused.append(str(error))

    async with TestWorker(app) as t:
        await publish(t, 0)
        await t.settle()

    assert refused == ["this event is not of this batch: give one of batch.events, not a copy"]


# --- who fails with whom ------------------------------------------------------------------


async def test_a_poison_event_is_found_in_halves_and_costs_the_others_one_attempt() -> None:
    table = Table(size=500, wait=1.0)
    table.poison = {137: ValueError}

    async with TestWorker(table.app) as t:
        ids = await publish(t, *range(500))
        await t.settle()
        poisoned = t.attempts(table.store, ids[137])
        others = [t.attempts(table.store, id) for id in ids if id != ids[137]]

    [letter] = t.dead_letters
    assert letter.payload["originalEventId"] == ids[137]
    assert (letter.payload["retryCount"], poisoned) == (3, 4)
    assert max(others) == 2  # one failure in company, whatever the size
    # Once in company, once in halves down to itself, then alone.
    assert table.containing(137) == [500, 500, 250, 125, 62, 31, 15, 8, 4, 2, 1, 1, 1]
    assert len(table.batches) <= 2 + 2 * 9 + 2


async def test_several_poison_events_are_each_found() -> None:
    table = Table(size=64, wait=1.0)
    table.poison = {5: ValueError, 6: ValueError, 60: KeyError}

    async with TestWorker(table.app) as t:
        ids = await publish(t, *range(64))
        await t.settle()
        attempts = {number: t.attempts(table.store, id) for number, id in enumerate(ids)}

    letters = {one.payload["originalEventId"] for one in t.dead_letters}
    assert letters == {ids[number] for number in table.poison}
    assert {number: attempts.pop(number) for number in (5, 6, 60)} == {5: 4, 6: 4, 60: 4}
    assert set(attempts.values()) == {2}


async def test_events_that_never_failed_have_no_company_of_those_that_did() -> None:
    table = Table(size=10, wait=1.0, retry_delay=5.0)
    table.poison = {3: ValueError}

    async with TestWorker(table.app) as t:
        await publish(t, *range(5))
        await t.advance(seconds=5.9)
        fresh = await publish(t, *range(100, 105))
        await t.settle()
        attempts = [t.attempts(table.store, id) for id in fresh]

    assert attempts == [1] * 5
    assert all(len({number >= 100 for number in one}) == 1 for one in table.batches)


async def test_with_a_single_attempt_nobody_is_given_up_for_a_neighbour() -> None:
    table = Table(size=8, wait=1.0, max_retries=0)
    table.poison = {3: ValueError}

    async with TestWorker(table.app) as t:
        ids = await publish(t, *range(8))
        await t.settle()

    assert [one.payload["originalEventId"] for one in t.dead_letters] == [ids[3]]
    assert table.containing(3) == [8, 4, 2, 1]


async def test_a_rejection_in_company_is_of_one_event_only() -> None:
    table = Table(size=8, wait=1.0, reject_on=ValueError)
    table.poison = {2: ValueError, 7: Reject}

    async with TestWorker(table.app) as t:
        ids = await publish(t, *range(8))
        await t.settle()
        attempts = [t.attempts(table.store, id) for id in ids]

    assert {one.payload["originalEventId"] for one in t.dead_letters} == {ids[2], ids[7]}
    assert attempts == [1] * 8


async def test_a_retry_that_is_raised_is_meant_for_all() -> None:
    app, sizes = App("rows"), []

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        sizes.append(len(batch))
        if len(sizes) < 3:
            raise Retry(after=60)

    async with TestWorker(app) as t:
        await publish(t, *range(10))
        await t.settle()

    assert sizes == [10, 10, 10]
    assert not t.dead_letters


async def test_an_outage_is_no_reason_to_try_every_event_alone() -> None:
    app, calls, down = App("rows"), 0, True

    @app.on_batch("custom.row", durable="rows", size=200, wait=0.5)
    async def store(batch: Batch[Row]) -> None:
        nonlocal calls
        calls += 1
        if down:
            raise OSError("the database is away")

    async with TestWorker(app) as t:
        ids = await publish(t, *range(200))
        await t.advance(seconds=20)
        tried = calls
        down = False
        await t.settle()
        attempts = [t.attempts(store, id) for id in ids]

    assert tried < 40  # not 399 of one bisection
    assert not t.dead_letters
    assert sorted(attempts)[160] <= 4


async def test_a_failed_batch_is_one_line_and_not_one_for_each_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = Table(size=50, wait=0.5, max_retries=1)
    table.poison = {7: ValueError}

    async with TestWorker(table.app) as t:
        await publish(t, *range(50))
        await t.settle()

    records = [one for one in caplog.records if one.name == "omni_worker.worker"]
    lines = [one.getMessage() for one in records if one.levelno >= logging.WARNING]
    first, *halves, last, letter = lines
    assert first.startswith("[store] a batch of 50 failed, attempt 1 of 2: ValueError: row 7 (")
    assert "its events come again · store (rows) · CUSTOM #1 to #50" in first
    assert first.count("Traceback") == 1
    assert len([first, *halves, last]) == table.containing(7).index(1)  # each call in company
    assert all("runs in halves, to find the one to blame" in one for one in [*halves, last])
    assert "dead letter #1 after attempt 2 of 2" in letter


async def test_a_failure_by_itself_is_said_although_a_batch_failed_with_the_same_object(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, down = App("shop"), ValueError("down")  # as a constant of a module is

    @app.on_batch("custom.row", durable="rows", size=5, wait=0.5, max_retries=1)
    async def store(batch: Batch[Any]) -> None:
        raise down

    @app.on("custom.single", durable="single", max_retries=1)
    async def single(event: Event[Any]) -> None:
        raise down

    async with TestWorker(app) as t:
        await publish(t, *range(5))
        await t.advance(seconds=0.1)
        await t.publish("custom.single", {})
        await t.settle()

    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert [one for one in warnings if one.startswith("[single") and "attempt 1 of 2" in one]
    assert not [one for one in warnings if one.startswith("[store ") and "attempt 1 of 2" in one]


async def test_failed_batches_open_the_breaker_not_their_events() -> None:
    table = Table(size=50, wait=0.5)
    table.poison = {10: ValueError}

    async with TestWorker(table.app) as t:
        await publish(t, *range(50))
        await t.advance(seconds=0.6)
        [subscription] = t._process.bus.subscriptions  # type: ignore[union-attr]
        after_one = subscription.is_on_trial
        await t.settle()

    assert not after_one


async def test_a_batch_that_takes_too_long_has_failed() -> None:
    app, calls = App("rows"), 0

    @app.on_batch("custom.row", durable="rows", size=10, wait=5.0, timeout=2.0)
    async def store(batch: Batch[Row]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(3)

    async with TestWorker(app) as t:
        ids = await publish(t, 0, 1)
        await t.settle()
        [first, second] = t.outcomes(store, ids[0])

    assert isinstance(first, Failed)
    assert "longer than timeout=2 s" in str(first.error)
    assert (second, calls) == (Done(), 2)


# --- what is around it --------------------------------------------------------------------


async def test_a_plain_def_runs_in_a_thread() -> None:
    app, seen = App("rows"), []

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.1)
    def store(batch: Batch[Row]) -> None:
        time.sleep(0.01)
        seen.append(sorted(event.payload.n for event in batch))
        batch.reject(batch.events[0])

    async with TestWorker(app) as t:
        await publish(t, *range(10))
        await t.settle()

    assert seen == [[*range(10)]]
    assert len(t.dead_letters) == 1


async def test_middlewares_are_around_each_event() -> None:
    table, ends = Table(size=3, wait=0.1, max_retries=0), []
    table.poison = {1: ValueError}

    @table.app.middleware
    async def note(ctx: Context, event: Event[Any], call_next: Any) -> None:
        try:
            await call_next(ctx, event)
        except ValueError as error:
            ends.append((event.payload.n, str(error)))
            raise
        ends.append((event.payload.n, "well"))

    async with TestWorker(table.app) as t:
        await publish(t, 0, 1, 2)
        await t.settle()

    assert sorted(ends) == [(0, "well"), (1, "row 1"), (2, "well")]


async def test_what_an_event_s_context_publishes_is_caused_by_it_and_stored_once() -> None:
    app, calls = App("rows"), 0

    @app.on_batch("custom.row", durable="rows", size=3, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        nonlocal calls
        calls += 1
        for event in batch:
            await batch.context(event).publish("custom.stored", {"n": event.payload.n})
        if calls == 1:
            raise ValueError("after it published")

    async with TestWorker(app) as t:
        ids = await publish(t, 0, 1, 2)
        await t.settle()

    stored = t.published("custom.stored")
    assert [one.metadata.causation_id for one in stored] == ids
    assert calls == 2


async def test_a_batch_has_what_the_lifespan_yields_and_begins_with_a_clean_context() -> None:
    states, contexts = [], []
    from omni_worker.current import current_run

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[str]:
        yield "pool"

    app = App("rows", lifespan=lifespan)

    @app.on_batch("custom.row", durable="rows", size=3, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        states.append(batch.state)
        contexts.append(current_run())

    async with TestWorker(app) as t:
        await publish(t, 0, 1, 2)
        await t.settle()

    assert (states, contexts) == (["pool"], [None])


async def test_a_restart_hands_back_what_has_not_begun_and_costs_no_attempt() -> None:
    table = Table(size=10, wait=30.0)

    async with TestWorker(table.app) as t:
        ids = await publish(t, 0, 1, 2)
        await t.advance(seconds=10)
        stopped = asyncio.get_running_loop().time()
        await t.restart()
        took = asyncio.get_running_loop().time() - stopped
        begun = list(table.batches)
        await t.settle()
        last = [t.runs(table.store, id)[-1].attempt for id in ids]

    assert (begun, took < 1) == ([], True)  # it does not sit out its grace
    assert table.batches == [[0, 1, 2]]
    assert last == [1, 1, 1]


async def test_a_killed_process_loses_no_event_of_its_batch() -> None:
    app, killed = App("rows"), []

    @app.on_batch("custom.row", durable="rows", size=10, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        if not killed:
            killed.append(len(batch))
            await asyncio.sleep(3600)

    async with TestWorker(app) as t:
        await publish(t, *range(10))
        await t.advance(seconds=1)
        t._process.die()
        await t.settle()

    assert killed == [10]
    assert not t.dead_letters


async def test_a_row_that_kills_its_process_is_found_and_the_others_are_handled() -> None:
    server, app, handled, deaths = MemoryServer(), App("rows"), set(), []

    @app.on_batch("custom.row", durable="rows", size=50, wait=0.1)
    async def store(batch: Batch[Row]) -> None:
        numbers = [event.payload.n for event in batch]
        if 7 in numbers:
            deaths.append(len(numbers))
            t._process.die()
            await asyncio.sleep(3600)
        handled.update(numbers)

    async with TestWorker(app, server=server, patience=60) as t:
        began = asyncio.get_running_loop().time()
        await publish(t, *range(50))
        await t.settle()
        took = asyncio.get_running_loop().time() - began

    assert handled == {*range(50)} - {7}
    # Five times ack_wait; the others wait for their turn to be alone and not half a second each.
    assert took < 5 * 30 + 5
    assert len(deaths) <= 5  # attempts + 1
    assert deaths[2:] == [1] * len(deaths[2:])  # twice in company, then alone
    assert len(t.dead_letters) == 1


async def test_what_gathers_begins_early_when_an_event_has_to_run_alone() -> None:
    server, app, alone, deaths = MemoryServer(), App("rows"), list[float](), 0

    @app.on_batch("custom.row", durable="rows", size=10, wait=20.0, ack_wait=60)
    async def keep(batch: Batch[Row]) -> None:
        nonlocal deaths
        if batch.payloads[0].n == 0 and deaths < 2:
            deaths += 1
            t._process.die()
            await asyncio.sleep(3600)
        if batch.payloads[0].n == 0:
            alone.append(asyncio.get_running_loop().time())

    async with TestWorker(app, server=server, patience=60) as t:
        began = asyncio.get_running_loop().time()
        await publish(t, 0)
        await t.advance(seconds=119)  # it came at 0 and at 60, and comes at 120
        await publish(t, 1)
        await t.settle()

    assert deaths == 2
    assert alone[0] - began < 125  # not when what was published at 119 has waited its 20 s


async def test_what_was_given_away_while_it_gathered_is_dropped_and_comes_again() -> None:
    table = Table(size=10, wait=5.0, ack_wait=2.0)

    async with TestWorker(table.app) as t:
        [id] = await publish(t, 0)
        [subscription] = t._process.bus.subscriptions  # type: ignore[union-attr]
        await t.advance(seconds=4.5)
        for state in subscription._states.values():
            for delivery in state.held.values():
                delivery.lapsed = True  # as in a process that stood still for longer than ack_wait
        await t.advance(seconds=1)
        dropped, lapsed = list(table.batches), subscription.counts.lapsed
        await t.settle()
        attempts = [run.attempt for run in t.runs(table.store, id)]

    assert (dropped, lapsed) == ([], 1)
    assert table.batches == [[0]]
    assert attempts == [1, 1]


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_small_batches(size: int) -> None:
    table = Table(size=size, wait=0.0)
    table.poison = {2: ValueError}

    async with TestWorker(table.app) as t:
        ids = await publish(t, *range(5))
        await t.settle()

    assert [one.payload["originalEventId"] for one in t.dead_letters] == [ids[2]]
    assert max(map(len, table.batches)) <= size

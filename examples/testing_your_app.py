"""How to test an app: without a server, in milliseconds, retries and dead letters included.

Run it with `python -m pytest examples/testing_your_app.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import BaseModel

from omni_worker import App, Context, Event, Reject
from omni_worker.testing import TestWorker, event_of

# --- the app ----------------------------------------------------------------------------------


class Order(BaseModel):
    customer: str
    amount: int


class Bank:
    """Outside of the app: slow at times, down at times."""

    def __init__(self) -> None:
        self.charged: list[str] = []
        self.failures = 0

    async def charge(self, customer: str) -> None:
        await asyncio.sleep(2)  # a test does not wait for it
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the bank is down")
        self.charged.append(customer)


bank = Bank()


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[Bank]:
    yield bank


app = App("shop", lifespan=lifespan)


@app.on("custom.order.placed", durable="orders", reject_on=(KeyError,))
async def place(event: Event[Order], ctx: Context) -> None:
    if event.payload.amount <= 0:
        raise Reject("nothing was ordered")
    await ctx.state.charge(event.payload.customer)
    await ctx.publish("custom.order.accepted", {"customer": event.payload.customer})


@app.on("custom.order.accepted", durable="greeter")
async def thank(event: Event[dict[str, str]]) -> None:
    await app.publish("custom.mail.queued", {"to": event.payload["customer"], "text": "Thanks!"})


# --- its tests --------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _new_bank() -> None:
    bank.charged, bank.failures = [], 0


async def test_an_order_is_accepted_and_thanked_for() -> None:
    async with TestWorker(app) as t:
        await t.publish("custom.order.placed", {"customer": "ana", "amount": 1})
        await t.settle()

        [mail] = t.published("custom.mail.queued")
        assert mail.payload == {"to": "ana", "text": "Thanks!"}
        assert (t.attempts(place), t.dead_letters) == (1, [])


async def test_an_order_is_tried_again_while_the_bank_is_down() -> None:
    bank.failures = 2

    async with TestWorker(app) as t:
        sent = await t.publish("custom.order.placed", {"customer": "ana", "amount": 1})
        await t.settle()  # 1 s and 2 s later, by a clock of its own

        assert [run.attempt for run in t.runs(place, sent)] == [1, 2, 3]
        assert bank.charged == ["ana"]


async def test_an_empty_order_is_a_dead_letter() -> None:
    async with TestWorker(app) as t:
        await t.publish("custom.order.placed", {"customer": "ana", "amount": 0})
        await t.settle()

        assert t.dead_letters[0].payload["error"] == "nothing was ordered"


async def test_a_process_that_dies_thanks_only_once() -> None:
    async with TestWorker(app) as t:
        t.crash(place)  # its work is done, nothing is acknowledged yet
        await t.publish("custom.order.placed", {"customer": "ana", "amount": 1})
        await t.settle()

        assert bank.charged == ["ana", "ana"]  # what happens outside can happen twice
        assert len(t.published("custom.mail.queued")) == 1


async def test_the_bank_is_given_up_in_its_own_time() -> None:
    bank.failures = 100

    async with TestWorker(app) as t:
        await t.publish("custom.order.placed", {"customer": "ana", "amount": 1})
        await t.advance(seconds=5)
        assert t.pending[0].state == "retry"
        await t.advance(minutes=1)

        assert t.dead_letters[0].payload["error"] == "the bank is down"


@pytest.mark.omni_worker(app)
async def test_with_the_plugins_fixture(worker: TestWorker) -> None:
    await worker.publish("custom.order.placed", {"customer": "bo", "amount": 1})
    await worker.settle()

    assert bank.charged == ["bo"]


async def test_a_handler_is_a_plain_function() -> None:
    accepted = event_of("custom.order.placed", Order(customer="ana", amount=0))

    with pytest.raises(Reject):
        await place(accepted, None)  # type: ignore[arg-type]  # it ends before it needs one

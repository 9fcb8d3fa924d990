"""Events that wait for their rate or limit: said once for each phase, and shown while it lasts."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from omni_worker import App, Event, EventBus, Extension
from omni_worker.listeners.sentences import sentence_of
from omni_worker.service import activity
from omni_worker.signals import Limited, LimitEnded, Signal
from omni_worker.testing import TestWorker


class Heard(Extension):
    """Signals of limits, from a bus that can be looked at."""

    kinds = (Limited, LimitEnded)

    def __init__(self) -> None:
        self.lines: list[str] = []

    def running(self, bus: EventBus) -> AbstractAsyncContextManager[Any]:
        self.bus = bus
        return nullcontext()

    def signal(self, fact: Signal) -> None:
        sentence = sentence_of(fact)
        assert sentence is not None
        self.lines.append(sentence.text)

    @property
    def shown(self) -> tuple[str, ...]:
        """Return what the process answers about its handler."""
        return activity(self.bus.subscriptions[0]).waits

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(one.waiting for one in self.bus.subscriptions[0].flow.waits)


async def test_a_rate_that_holds_events_up_is_said_once_and_shown_while_it_lasts() -> None:
    app, heard = App("shop"), Heard()
    app.use(heard)

    @app.on("custom.text", durable="send", rate="1/s")
    async def send(event: Event[Any]) -> None:
        pass

    async with TestWorker(app) as t:
        for number in range(15):
            await t.publish("custom.text", number)
        await t.advance(seconds=10)
        early = heard.lines.copy()
        for number in range(45):
            await t.publish("custom.text", number)
        await t.advance(seconds=10)
        during, shown, waiting = heard.lines.copy(), heard.shown, heard.waiting
        await t.advance(seconds=60)
        after, none = heard.lines.copy(), heard.shown

    assert early == []
    assert during == ["send has events that wait for rate='1/s', as intended"]
    assert shown == (f"waits for rate='1/s': {waiting} events here",)
    assert waiting > 0
    assert after == [*during, "send has no events any longer that wait for rate='1/s'"]
    assert none == ()


async def test_a_limit_that_holds_events_up_is_said_with_its_handler() -> None:
    app, heard = App("shop"), Heard()
    app.use(heard)

    @app.on("custom.text", durable="d1", limit=1)
    async def query(event: Event[Any]) -> None:
        await asyncio.sleep(5)

    async with TestWorker(app) as t:
        for number in range(8):
            await t.publish("custom.text", number)
        await t.advance(seconds=22)
        during, shown = heard.lines.copy(), heard.shown
        await t.advance(seconds=60)

    assert during == ["query (d1) has events that wait for limit=1, as intended"]
    assert shown[0].startswith("waits for limit=1: ")
    assert heard.lines[1:] == ["query (d1) has no events any longer that wait for limit=1"]


async def test_a_short_wait_is_not_worth_a_line() -> None:
    app, heard = App("shop"), Heard()
    app.use(heard)

    @app.on("custom.text", durable="send", rate="1/s")
    async def send(event: Event[Any]) -> None:
        pass

    async with TestWorker(app) as t:
        for _ in range(6):
            for number in range(4):
                await t.publish("custom.text", number)
            await t.advance(seconds=20)

    assert heard.lines == []

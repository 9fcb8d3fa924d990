"""Steering from the dashboard: pause, resume and scale, after a question, by whom and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from omni_worker import App, Event, EventBus
from omni_worker.dashboard import Access
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.waiting import until

from .support import EVIL, Browser, opened
from .test_pages import ACTIONS

HERE = {"app": "shop", "name": "r1"}


@asynccontextmanager
async def steered(access: Access = ACTIONS) -> AsyncIterator[tuple[Browser, EventBus]]:
    """Run a handler `r1` on memory, with a browser on its dashboard."""
    server, app = MemoryServer(), App("shop")

    @app.on("custom.order.placed", durable="r1", concurrency=2)
    async def handle(event: Event[Any]) -> None:
        pass

    viewer = MemoryTransport(server)
    await viewer.open("dashboard")
    async with (
        app.running(transport=MemoryTransport(server)) as bus,
        opened(viewer, access) as browser,
    ):
        yield browser, bus
    await viewer.close()


async def token(browser: Browser) -> str:
    """Return the token of the question's form."""
    text = (await browser.get("/handler/steer?verb=pause&app=shop&name=r1")).text
    return text.partition('name="token" value="')[2].partition('"')[0]


async def send(browser: Browser, **form: str) -> Any:
    return await browser.post("/handler/steer", {"token": await token(browser), **HERE, **form})


async def test_a_handler_is_paused_and_resumed_by_a_form() -> None:
    async with steered() as (browser, bus):
        asked = (await browser.get("/handler/steer?verb=pause&app=shop&name=r1&for=10m")).text
        paused = await send(browser, verb="pause", reason="night", **{"for": "10m"})
        await until(lambda: bus.subscriptions[0].warnings)
        [warning] = bus.subscriptions[0].warnings
        await until(lambda: says(browser, "(night); to resume: omni-worker resume r1"))
        resumed = await send(browser, verb="resume")
        await until(lambda: not bus.subscriptions[0].warnings)

    assert "Pause r1?" in asked
    assert "for <b>10m</b>" in asked
    assert paused.status_code == resumed.status_code == 303
    assert paused.headers["location"] == "/handler?app=shop&name=r1&done=pause"
    assert "by dashboard@" in warning


async def says(browser: Browser, text: str) -> bool:
    return text in (await browser.get("/handler?name=r1")).text


async def test_a_handler_is_scaled_and_reset_by_a_form_and_names_who() -> None:
    access = Access(allow_actions=True, users={"ana": "a-long-password"})
    async with steered(access) as (browser, bus):
        browser.client.auth = ("ana", "a-long-password")
        await send(browser, verb="scale", concurrency="7", reason="sale")
        await until(lambda: bus.subscriptions[0].scaling.concurrency == 7)
        order = bus.subscriptions[0].scaling.order
        await until(lambda: says(browser, "scaled to 7 events at once by ana (dashboard) (sale)"))
        offers_reset = await says(browser, "Reset the scale")
        await send(browser, verb="reset")
        await until(lambda: bus.subscriptions[0].scaling.concurrency == 2)

    assert order is not None
    assert order.startswith("scaled to 7 events at once by ana (dashboard) (sale)")
    assert offers_reset


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"verb": "pause", "for": "soon"}, "For: expected 30s, 10m"),
        ({"verb": "pause", "for": "0s"}, "For: expected 30s, 10m"),
        ({"verb": "scale", "concurrency": "0"}, "expected a number from 1 to"),
        ({"verb": "scale", "concurrency": "many"}, "expected a number from 1 to"),
        ({"verb": "burn"}, "nothing that can be done"),
        ({"verb": "pause", "name": ""}, "names no handler"),
        ({"verb": "pause", "name": "r9"}, "no consumer of the app shop belongs to"),
    ],
)
async def test_a_form_that_cannot_be_read_changes_nothing(form: dict[str, str], said: str) -> None:
    async with steered() as (browser, bus):
        answer = await browser.post(
            "/handler/steer", {"token": await token(browser), **HERE, **form}
        )
        stands = bus.subscriptions[0].scaling.concurrency

    assert answer.status_code in (400, 409)
    assert said in answer.text
    assert stands == 2


async def test_a_form_without_the_browser_s_token_changes_nothing() -> None:
    async with steered() as (browser, bus):
        await token(browser)
        answer = await browser.post("/handler/steer", {**HERE, "verb": "pause"})
        info = await bus.transport.operators.consumer_info("CUSTOM", "r1")

    assert answer.status_code == 403
    assert info is not None
    assert not info.is_paused


async def test_a_read_only_dashboard_has_no_buttons_and_no_question_to_confirm() -> None:
    async with steered(Access()) as (browser, _):
        page = (await browser.get("/handler?name=r1")).text
        asked = (await browser.get("/handler/steer?verb=pause&app=shop&name=r1")).text

    assert "Steer <small>" not in page
    assert "This dashboard is read-only." in asked
    assert "<form" not in asked.partition("<main")[2]


async def test_what_a_person_types_is_shown_as_text() -> None:
    async with steered() as (browser, _):
        await send(browser, verb="scale", concurrency="3", reason=EVIL)
        await until(lambda: says(browser, "scaled to 3 events at once"))
        text = (await browser.get("/handler?name=r1")).text

    assert "<script>alert" not in text
    assert "<img src=x" not in text

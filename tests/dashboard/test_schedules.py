"""Schedules on the dashboard: what is due next, however many wait, and what a person may do."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from omni_worker import App, Event, EventBus, RetryPolicy
from omni_worker.cron import Cron
from omni_worker.dashboard import Access
from omni_worker.nats_server import NatsServer
from omni_worker.operations.upcoming import Wanted, upcoming
from omni_worker.schedules.messages import schedule_message
from omni_worker.settings import Settings
from omni_worker.transports.base import Message
from omni_worker.transports.jetstream import JetStreamTransport
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.waiting import until

from .support import EVIL, Browser, opened
from .test_pages import ACTIONS

HOUR = 3600
MANY = 20_000


@asynccontextmanager
async def scheduling(access: Access = ACTIONS) -> AsyncIterator[tuple[Browser, EventBus]]:
    """Run an app `bot` on memory, with a browser on its dashboard."""
    server = MemoryServer()
    viewer = MemoryTransport(server)
    await viewer.open("dashboard")
    async with (
        EventBus(transport=MemoryTransport(server), name="bot") as bus,
        opened(viewer, access) as browser,
    ):
        yield browser, bus
    await viewer.close()


async def asked(browser: Browser, verb: str, name: str, *, cron: bool = False) -> str:
    """The question about one of what is scheduled, as it is now."""
    text = (await browser.get("/schedules")).text
    kind = "&amp;cron=1" if cron else ""
    begin = f"/schedules/steer?verb={verb}&amp;app=bot&amp;name={name}{kind}&amp;sequence="
    number = text.partition(begin)[2].partition('"')[0]
    return (begin + number).replace("&amp;", "&") if number else ""


async def order(
    browser: Browser, verb: str, name: str, /, *, is_cron: bool = False, **more: str
) -> Any:
    """Answer a question with yes."""
    address = await asked(browser, verb, name, cron=is_cron)
    assert address
    text = (await browser.get(address)).text
    form = {
        "token": text.partition('name="token" value="')[2].partition('"')[0],
        "verb": verb, "app": "bot", "name": name, "cron": "1" if is_cron else "",
        "sequence": address.rpartition("=")[2], **more,
    }  # fmt: skip
    return await browser.post("/schedules/steer", form)


async def names(browser: Browser, query: str = "") -> list[str]:
    found = await browser.json(f"/schedules{query}")
    return [one["key"] or one["id"] for one in found["events"]]


async def test_what_is_due_next_comes_first_and_crons_have_their_next_time() -> None:
    async with scheduling() as (browser, bus):
        await bus.publish("custom.late", 1, after=3 * HOUR, key="c")
        await bus.publish("custom.late", 2, after=HOUR, key="a")
        await bus.publish("custom.other", 3, after=2 * HOUR, key="b")
        await bus.schedules.crons.declare("report", Cron("0 8 29 2 *", "America/Sao_Paulo"))
        found = await browser.json("/schedules")
        text = (await browser.get("/schedules")).text
        chosen = [await names(browser, q) for q in ("?text=OTHER", "?text=c", "?app=x", "?app=bot")]

    assert [one["key"] for one in found["events"]] == ["a", "b", "c"]
    assert [(one["cron"], one["tz"]) for one in found["crons"]] == [
        ("0 8 29 2 *", "America/Sao_Paulo")
    ]
    assert (found["matching"], found["after"]) == (3, None)
    assert "0 8 29 2 * America/Sao_Paulo" in text
    assert ">120 min</time>" in text
    assert chosen == [["b"], ["a", "b", "c"], [], ["a", "b", "c"]]


async def test_an_event_is_cancelled_after_a_question() -> None:
    async with scheduling() as (browser, bus):
        await bus.publish("custom.late", 1, after=HOUR, key="a")
        question = (await browser.get(await asked(browser, "cancel", "a"))).text
        answer = await order(browser, "cancel", "a")
        left = await names(browser)

    assert "Cancel a?" in question
    assert "It is not published." in question
    assert (answer.status_code, answer.headers["location"]) == (303, "/schedules?done=cancel")
    assert left == []


async def test_an_event_is_paused_with_a_reason_and_resumed() -> None:
    access = Access(allow_actions=True, users={"ana": "a-long-password"})
    async with scheduling(access) as (browser, bus):
        browser.client.auth = ("ana", "a-long-password")
        await bus.publish("custom.late", 1, after=HOUR, key="a")
        await order(browser, "pause", "a", reason="closed")
        [paused] = (await browser.json("/schedules"))["events"]
        text = (await browser.get("/schedules")).text
        resumed = await order(browser, "resume", "a")
        [after] = (await browser.json("/schedules"))["events"]

    assert (paused["by"], paused["reason"]) == ("ana (dashboard)", "closed")
    assert "paused by ana (dashboard) (closed)" in text
    assert (resumed.status_code, after["paused"]) == (303, None)


async def test_an_event_and_a_cron_are_run_now() -> None:
    async with scheduling() as (browser, bus):
        await bus.publish("custom.late", 1, after=HOUR, key="a")
        await bus.schedules.crons.declare("report", Cron("0 8 29 2 *", "UTC"))
        answers = [
            await order(browser, "run", "a"),
            await order(browser, "run", "report", is_cron=True),
        ]

        async def stored() -> int:
            info = await bus.transport.operators.stream_info("CUSTOM")
            return 0 if info is None else info.state.messages

        await until(lambda: is_(stored, 2))
        left = await browser.json("/schedules")

    assert [one.status_code for one in answers] == [303, 303]
    assert (left["events"], len(left["crons"])) == ([], 1)


async def is_(ask: Any, wanted: object) -> bool:
    return bool(await ask() == wanted)


async def test_a_cron_is_paused_and_removed() -> None:
    async with scheduling() as (browser, bus):
        await bus.schedules.crons.declare("report", Cron("0 8 * * *", "UTC"))
        await order(browser, "pause", "report", is_cron=True)
        [paused] = (await browser.json("/schedules"))["crons"]
        await order(browser, "cancel", "report", is_cron=True)
        left = (await browser.json("/schedules"))["crons"]

    assert paused["by"].startswith("dashboard@")
    assert left == []


async def test_what_was_replaced_after_the_question_is_left_alone() -> None:
    async with scheduling() as (browser, bus):
        await bus.publish("custom.late", 1, after=HOUR, key="a")
        address = await asked(browser, "cancel", "a")
        token = (await browser.get(address)).text.partition('name="token" value="')[2][:64]
        token = token.partition('"')[0]
        await bus.publish("custom.late", 2, after=HOUR, key="a")
        question = await browser.get(address)
        form = {"token": token, "verb": "cancel", "app": "bot", "name": "a",
                "sequence": address.rpartition("=")[2]}  # fmt: skip
        answer = await browser.post("/schedules/steer", form)
        left = await names(browser)

    assert (question.status_code, answer.status_code) == (404, 409)
    assert "was replaced since it was shown" in answer.text
    assert left == ["a"]


@pytest.mark.parametrize(
    ("form", "status"),
    [({"verb": "burn"}, 400), ({"name": "b"}, 409), ({"app": "other"}, 409), ({"cron": "1"}, 409),
     ({"sequence": "x"}, 409), ({"verb": "pause", "reason": "a\tb"}, 409), ({"name": "*"}, 409),
     ({"app": "*"}, 409), ({"app": EVIL, "name": EVIL}, 409), ({"token": "x"}, 403)],
)  # fmt: skip
async def test_a_form_that_cannot_be_read_changes_nothing(
    form: dict[str, str], status: int
) -> None:
    async with scheduling() as (browser, bus):
        await bus.publish("custom.late", 1, after=HOUR, key="a")
        before = await browser.json("/schedules")
        answer = await order(browser, "cancel", "a", **{"reason": "", **form})
        after = await browser.json("/schedules")

    assert answer.status_code == status
    assert before == after
    assert "<script>alert" not in answer.text


async def test_a_read_only_dashboard_has_no_buttons_and_refuses_a_hand_made_post() -> None:
    async with scheduling(Access()) as (browser, bus):
        await bus.publish("custom.late", 1, after=HOUR, key="a")
        [event] = (await browser.json("/schedules"))["events"]
        page = (await browser.get("/schedules")).text
        asked = f"/schedules/steer?verb=cancel&app=bot&name=a&sequence={event_sequence(page)}"
        question = (await browser.get(asked)).text
        answer = await browser.post("/schedules/steer", {"verb": "cancel", "app": "bot"})

    assert event["key"] == "a"
    assert "Run now" not in page
    assert "<form" not in question.partition("<main")[2]
    assert answer.status_code in (403, 404, 405)


def event_sequence(page: str) -> str:
    return page.partition("sequence=")[2].partition('"')[0] or "1"


async def test_hostile_names_and_reasons_are_shown_as_text() -> None:
    async with scheduling() as (browser, bus):
        evil = EVIL.replace("\x1b", "").replace("\u202e", "")
        await bus.publish("custom.late", 1, after=HOUR, key=evil)
        await bus.publish("custom.late", 2, after=HOUR, key="a")
        await order(browser, "pause", "a", reason=evil)
        text = (await browser.get("/schedules")).text
        at = text.partition("verb=cancel&amp;app=bot&amp;name=%3Cscript")[2].partition('"')[0]
        address = f"/schedules/steer?verb=cancel&app=bot&name=%3Cscript{at}".replace("&amp;", "&")
        question = await browser.get(address)

    assert question.status_code == 200
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;script&gt;alert(1)" in question.text
    for page in (text, question.text):
        assert "<script>alert" not in page
        assert "<img src=x" not in page


async def test_later_ones_are_on_the_next_page() -> None:
    async with scheduling() as (browser, bus):
        for number in range(120):
            await bus.publish("custom.late", 1, after=HOUR + number // 2, key=f"k{number:03}")
        pages, query = [], ""
        for _ in range(3):
            found = await browser.json(f"/schedules{query}")
            pages.append([one["key"] for one in found["events"]])
            query = f"?after={found['after']}"
        wrong = await names(browser, "?after=soon")

    assert [len(one) for one in pages] == [50, 50, 20]
    assert [key for page in pages for key in page] == [f"k{number:03}" for number in range(120)]
    assert found["after"] is None
    assert wrong == pages[0]


async def test_long_retries_and_the_outbox_are_counted_by_handler_and_app(
    nats_server: NatsServer,
) -> None:
    app = App("shop")

    @app.on("custom.order", durable="orders", retry=RetryPolicy(retries=3, delay=600, cap=600))
    async def handle(event: Event[Any]) -> None:
        raise ValueError("closed")

    settings = Settings(urls=(nats_server.url,))
    viewer = JetStreamTransport(settings)
    await viewer.open("dashboard")
    async with app.running(settings=settings) as bus:
        for _ in range(3):
            await bus.publish("custom.order", {})
        async with bus.atomic() as tx:
            await tx.publish("custom.other", {})
        async with opened(viewer) as browser:
            seen: list[Any] = []

            async def is_seen() -> bool:
                found = await browser.json("/schedules")
                empty = [(one["app"], one["waiting"]) for one in found["outboxes"]]
                seen[:] = [found]
                waiting = [{"app": "shop", "handler": "orders", "waiting": 3}]
                return empty == [("shop", 0)] and found["longRetries"] == waiting

            await until(is_seen, seen=lambda: seen)
            text = (await browser.get("/schedules")).text
    await viewer.close()

    assert "/handler?app=shop&amp;name=orders" in text


@pytest.mark.alone
async def test_however_many_wait_they_are_read_in_bounded_memory(
    nats_server: NatsServer,
) -> None:
    settings = Settings(urls=(nats_server.url,))
    viewer = JetStreamTransport(settings)
    await viewer.open("dashboard")
    async with EventBus(nats_server.url, name="bot") as bus:
        await bus.publish("custom.late", 0, after=HOUR, key="first")
        now = time.time_ns()
        for first in range(0, MANY, 5_000):
            batch = [_scheduled(number, now) for number in range(first, first + 5_000)]
            await bus.transport.publish_many(batch, timeout=60)
    async with opened(viewer) as browser:
        # The quickest of three: another program may have the processor meanwhile.
        took = min([await _opening(browser) for _ in range(3)])
    tracemalloc.start()
    steps = [step async for step in upcoming(viewer, Wanted(), limit=50)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await viewer.close()

    assert took < 1
    assert steps[-1].matching == MANY + 1
    assert [one.name for one in steps[-1].events[:3]] == ["first", f"k{MANY - 1}", f"k{MANY - 2}"]
    assert peak < 20_000_000


async def _opening(browser: Browser) -> float:
    """Open the page and return the seconds it took."""
    began = time.monotonic()
    page = await browser.get("/schedules")
    assert page.status_code == 200
    return time.monotonic() - began


def _scheduled(number: int, now: int) -> Message:
    due = now + (2 * HOUR + MANY - number) * 1_000_000_000
    message = Message("custom.late", b'{"id": "e"}' * 20, f"e{number}")
    return schedule_message(message, "bot", f"k{number}", due=due, key=f"k{number}", cause=None)

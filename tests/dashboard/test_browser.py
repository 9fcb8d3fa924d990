"""Browser: the dashboard as a person sees it, in a real chromium, over real servers."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, expect

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer
from tests.dashboard.browsing import Watched, chromium, fill, fill_with_evil, run
from tests.dashboard.test_command import served
from tests.processes.support import Stage
from tests.processor import Stopwatch

MOST = 1.0  # seconds of the server's time for a page
SOON = 2.0  # seconds until a failure is seen
PAGES = {
    "overview": "/",
    "handler": "/handler?name=handler-1",
    "letters": "/letters",
    "chosen letters": "/letters?handler=handler-1&error=chat+77",
    "letter": "/letter?number=7&body=1",
    "question": "/letters/bulk?verb=retry&handler=handler-1",
    "events": "/events?payloads=1",
    "chosen events": "/events?type=message.received&channel=whatsapp&instance=wa-7",
    "event": "/event?id=event-49000&at=MESSAGE:49001&body=1",
    "workers": "/workers",
    "streams": "/streams",
    "schedules": "/schedules",
}
APP = """
app = App("shop")

@app.on("custom.order.placed", durable="orders", retry=RetryPolicy(retries=9, delay=30))
async def order(event: Event) -> None:
    raise ConnectionError("the warehouse does not answer")

@app.on("custom.image.uploaded", durable="images")
async def image(event: Event) -> None:
    if not os.path.exists("repaired"):
        raise Reject("a broken image")
    effect("handled", id=event.id)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context()
    yield Watched(context.new_page())
    context.close()


@pytest.fixture(scope="module")
def large(browser: Browser) -> Iterator[str]:
    """The dashboard of a server with 50 000 events and 1 000 dead letters."""
    with NatsServer() as server:
        run(fill(server.url))
        with served(server.url, "--allow-actions") as (address, _):
            yield address


@pytest.mark.alone
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_within_a_second(large: str, name: str) -> None:
    # The quickest of three, and without the browser: how long it draws is not the server's time.
    took = min(_opening(large + PAGES[name]) for _ in range(3))

    assert took < MOST


def _opening(address: str) -> float:
    """Return the seconds of the server's time until all of a page has come."""
    watch = Stopwatch()
    with urlopen(address, timeout=10) as answer:
        answer.read()
    return watch.seconds()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_breaks_no_rule(browser: Browser, large: str, name: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    watched = Watched(context.new_page())
    watched.page.goto(large + PAGES[name])
    expect(watched.page.locator("#live-state")).to_have_text(re.compile("live|complete"))

    widths = watched.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    context.close()

    assert widths[0] <= widths[1]
    assert watched.complaints == []


@pytest.mark.alone
def test_a_failing_handler_is_seen_within_two_seconds_without_a_reload(
    watched: Watched, nats_server: NatsServer, tmp_path: Path
) -> None:
    with Stage(tmp_path, nats_server.url) as stage, served(nats_server.url) as (address, _):
        run(stage.run(stage.app(APP)))
        page = watched.page
        page.goto(address)
        expect(page.locator("h1")).to_have_text("All handlers are well")
        run(publish(nats_server.url, "custom.order.placed"))
        failed = time.monotonic()

        expect(page.locator("tr", has_text="orders")).to_contain_text("does not answer")
        expect(page.locator("h1")).to_have_text("1 handler is struggling")

        assert time.monotonic() - failed < SOON
        assert watched.complaints == []


def test_a_letter_is_retried_by_a_click_and_vanishes(
    watched: Watched, nats_server: NatsServer, tmp_path: Path
) -> None:
    with (
        Stage(tmp_path, nats_server.url) as stage,
        served(nats_server.url, "--allow-actions") as (address, _),
    ):
        run(stage.run(stage.app(APP)))
        run(publish(nats_server.url, "custom.image.uploaded", 2))
        page = watched.page
        page.goto(f"{address}/letters")
        expect(page.locator("tbody tr")).to_have_count(2)
        (tmp_path / "repaired").touch()

        page.locator("#letter-1").get_by_role("button", name="Retry").click()

        expect(page.locator(".notice")).to_contain_text("#1 is on its way back")
        expect(page.locator("tbody tr")).to_have_count(1)
        run(stage.until_effects(1, "handled"))
        assert watched.complaints == []


def test_chosen_letters_are_discarded_after_a_counted_question(
    watched: Watched, nats_server: NatsServer
) -> None:
    run(fill(nats_server.url, events=10, letters=4))
    with served(nats_server.url, "--allow-actions") as (address, _):
        page = watched.page
        page.goto(f"{address}/letters")
        page.get_by_label("Choose #2").check()
        page.get_by_label("Choose #3").check()
        expect(page.get_by_text("2 chosen")).to_be_visible()

        page.get_by_role("button", name="Discard chosen").click()
        expect(page.locator("h1")).to_have_text("Discard 2 dead letters?")
        page.get_by_role("button", name="Discard 2").click()

        expect(page.locator("h1")).to_have_text("2 of 2 discarded")
        page.goto(f"{address}/letters")
        expect(page.locator("tbody tr")).to_have_count(2)
        assert watched.complaints == []


def test_a_handler_is_paused_scaled_and_resumed_by_clicks(
    watched: Watched, nats_server: NatsServer, tmp_path: Path
) -> None:
    with (
        Stage(tmp_path, nats_server.url) as stage,
        served(nats_server.url, "--allow-actions") as (address, _),
    ):
        (tmp_path / "repaired").touch()
        run(stage.run(stage.app(APP)))
        page = watched.page
        page.goto(f"{address}/handler?app=shop&name=images")

        page.get_by_label("Why").first.fill("a night's rest")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("h1")).to_have_text("Pause images?")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("h1 + *")).to_contain_text("paused", ignore_case=True)
        expect(page.locator("#main")).to_contain_text("a night's rest")
        run(publish(nats_server.url, "custom.image.uploaded", 2))
        expect(page.locator("dl div", has_text="Waiting").locator("dd")).to_have_text("2")
        assert stage.effects("handled") == []

        page.get_by_label("At once").fill("3")
        page.get_by_role("button", name="Scale", exact=True).click()
        expect(page.locator("h1")).to_have_text("Scale images to 3 at once?")
        page.get_by_role("button", name="Scale").click()
        expect(page.locator("td", has_text="0 / 3")).to_be_visible()

        page.get_by_role("button", name="Resume").click()
        page.get_by_role("button", name="Resume").click()
        run(stage.until_effects(2, "handled"))
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        assert watched.complaints == []


def test_without_leave_to_act_there_are_no_buttons_and_a_pause_made_by_hand_is_refused(
    watched: Watched, nats_server: NatsServer, tmp_path: Path
) -> None:
    with Stage(tmp_path, nats_server.url) as stage, served(nats_server.url) as (address, _):
        run(stage.run(stage.app(APP)))
        page = watched.page
        page.goto(f"{address}/handler?app=shop&name=images")
        expect(page.locator("h1")).to_have_text("images")
        assert page.get_by_role("button", name=re.compile("Pause|Scale")).count() == 0

        status = page.evaluate(
            "fetch('/handler/steer', {method: 'POST', body: new URLSearchParams("
            "{verb: 'pause', app: 'shop', name: 'images'})}).then((answer) => answer.status)"
        )

        assert status == 403
        page.reload()
        expect(page.locator("h1 + *")).not_to_contain_text("paused", ignore_case=True)


def test_another_program_s_change_is_seen_without_a_reload(
    watched: Watched, nats_server: NatsServer
) -> None:
    run(fill(nats_server.url, events=1, letters=1))
    with served(nats_server.url) as (address, _):
        page = watched.page
        page.goto(f"{address}/letters")
        expect(page.locator("tbody tr")).to_have_count(1)

        run(fill(nats_server.url, events=0, letters=3))

        expect(page.locator("tbody tr")).to_have_count(3)


def test_hostile_strings_do_nothing(watched: Watched, nats_server: NatsServer) -> None:
    run(fill_with_evil(nats_server.url))
    with served(nats_server.url, "--allow-actions") as (address, _):
        page = watched.page
        seen = []
        for path in ("/", "/letters", "/letter?number=1&body=1", "/events?payloads=1",
                     "/event?id=CUSTOM:1&body=1", "/workers", "/streams"):  # fmt: skip
            page.goto(address + path)
            expect(page.locator("#live-state")).to_have_text(re.compile("live|complete"))
            seen.append(page.locator("#main").inner_text())
            for link in page.locator("#main a").all():
                assert (link.get_attribute("href") or "").startswith(("/", "#"))
        page.goto(f"{address}/")
        page.locator("tbody .name").first.click()
        expect(page.locator("#live-state")).to_have_text("live")

        assert all("<script>alert(1)" in text for text in seen[:5])
        assert page.locator("#main script, #main img").count() == 0
        assert watched.complaints == []


def test_read_only_refuses_a_request_made_by_hand(
    watched: Watched, nats_server: NatsServer
) -> None:
    run(fill(nats_server.url, events=1, letters=1))
    with served(nats_server.url) as (address, _):
        page = watched.page
        page.goto(f"{address}/letters")
        assert page.get_by_role("button", name="Retry").count() == 0

        status = page.evaluate(
            "fetch('/letters/discard', {method: 'POST', body: new URLSearchParams({number: 1})})"
            ".then((answer) => answer.status)"
        )

        assert status == 403
        page.reload()
        expect(page.locator("tbody tr")).to_have_count(1)


def test_it_is_used_by_keyboard_and_its_colours_are_chosen(watched: Watched, large: str) -> None:
    page = watched.page
    page.goto(f"{large}/letters")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)

    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tbody tr:nth-child(2) .name")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".path")).to_contain_text("#999")
    page.keyboard.press("t")
    assert page.evaluate(ground) != before
    page.keyboard.press("g")
    page.keyboard.press("w")
    expect(page.locator("h1")).to_have_text("No worker answers")
    assert page.evaluate(ground) != before
    page.keyboard.press("g")
    page.keyboard.press("e")
    expect(page.locator("h1")).to_have_text("Events")
    page.keyboard.press("/")
    expect(page.get_by_label("Type")).to_be_focused()


def test_it_says_so_when_it_is_gone_and_goes_on_when_it_is_back(
    watched: Watched, nats_server: NatsServer
) -> None:
    page = watched.page
    with served(nats_server.url) as (address, process):
        page.goto(address)
        expect(page.locator("#live-state")).to_have_text("live")
        os.kill(process.pid, signal.SIGTERM)
        process.wait(10)

        expect(page.locator("#live-state")).to_have_text("reconnecting")

    with served(nats_server.url, "--port", address.rpartition(":")[2]):
        expect(page.locator("#live-state")).to_have_text("live")


async def publish(url: str, type: str, count: int = 1) -> None:
    """Publish events as another program."""
    async with EventBus(url, name="other") as bus:
        for _ in range(count):
            await bus.publish(type, {})

"""Pages: what they show of a server on memory, and what they refuse."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from omni_worker import App, Event, RetryPolicy
from omni_worker.dashboard import Access, dashboard
from omni_worker.errors import ConfigError
from omni_worker.operations.letter_search import OpenLetters, count_open
from omni_worker.transports.base import Transport
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.waiting import until

from .browsing import letter
from .support import EVIL, Browser, failing, opened

ACTIONS = Access(allow_actions=True)
PAGES = [
    "/", "/handler?name=r1", "/letters", "/letter?number=1&body=1", "/letters/bulk?verb=retry",
    "/job?id=x", "/events?payloads=1", "/event?id=order-0&body=1", "/workers", "/streams",
    "/handler/steer?verb=pause&app=shop&name=r1&reason=x", "/schedules",
    "/schedules/steer?verb=pause&app=shop&name=x&sequence=1",
]  # fmt: skip


async def test_the_overview_shows_a_failing_handler_with_its_error() -> None:
    async with failing() as server, opened(server) as browser:
        text = (await browser.get("/")).text
        [handler] = (await browser.json("/"))["handlers"]

    assert "1 handler needs you" in text
    assert "no such chat" in text
    assert (handler["handler"], handler["state"]) == ("r1", "failing")
    assert handler["lastFiveMinutes"]["dead"] == 1


async def test_dead_letters_are_listed_the_newest_first() -> None:
    async with failing(count=3) as server, opened(server) as browser:
        found = (await browser.json("/letters"))["letters"]

    assert [one["number"] for one in found] == [3, 2, 1]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("handler=r1", 3),
        ("handler=other", 0),
        ("type=custom.order.placed", 3),
        ("type=custom.order", 0),
        ("error=SUCH+chat", 3),
        ("error=timeout", 0),
        ("since=1h", 3),
        ("until=1h", 0),
        ("before=3", 2),
        ("before=1", 0),
    ],
)
async def test_filters_choose_dead_letters(query: str, count: int) -> None:
    async with failing(count=3) as server, opened(server) as browser:
        found = (await browser.json(f"/letters?{query}"))["letters"]

    assert len(found) == count


async def test_a_filter_that_cannot_be_read_is_named() -> None:
    async with failing() as server, opened(server) as browser:
        text = (await browser.get("/letters?since=yesterday")).text

    assert "since: expected 30s, 15m, 2h" in text


async def test_a_payload_is_hidden_until_it_is_asked_for() -> None:
    async with failing() as server, opened(server) as browser:
        closed = (await browser.get("/letter?number=1")).text
        open_ = (await browser.get("/letter?number=1&body=1")).text

    assert "pin 0" not in closed
    assert "pin 0" in open_


async def test_a_dashboard_without_payloads_never_shows_one() -> None:
    async with failing() as server, opened(server, Access(payloads=False)) as browser:
        text = (await browser.get("/letter?number=1&body=1")).text

    assert "pin 0" not in text


async def test_a_letter_is_retried_by_a_form_and_leaves_the_list() -> None:
    async with failing() as server, opened(server, ACTIONS) as browser:
        form = {"token": await browser.token(), "number": "1", "from": "list", "handler": "r1"}
        answer = await browser.post("/letters/retry", form)
        [letter] = (await browser.json("/letters?all=1&before=2"))["letters"]

    assert answer.status_code == 303
    assert answer.headers["location"] == "/letters?handler=r1&done=retry&number=1"
    assert letter["state"] == "retried"


async def test_a_letter_is_discarded_and_can_still_be_read() -> None:
    async with failing() as server, opened(server, ACTIONS) as browser:
        await browser.post("/letters/discard", {"token": await browser.token(), "number": "1"})
        left = (await browser.json("/letters"))["letters"]
        shown = await browser.json("/letter?number=1")

    assert left == []
    assert shown["state"] == "discarded"


@pytest.mark.parametrize(
    "path",
    ["/letters/retry", "/letters/discard", "/letters/bulk", "/handler/steer", "/schedules/steer"],
)
async def test_read_only_refuses_a_hand_made_post(path: str) -> None:
    async with failing() as server:
        async with opened(server, ACTIONS) as allowed:
            token = await allowed.token()
            cookies = allowed.client.cookies
        async with opened(server) as browser:
            browser.client.cookies = cookies
            form = {"token": token, "number": "1", "verb": "discard", "count": "1"}
            answer = await browser.post(path, form, headers={"sec-fetch-site": "same-origin"})
            left = (await browser.json("/letters"))["letters"]

    assert answer.status_code == 403
    assert "read-only" in answer.text
    assert len(left) == 1


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({}, {}),
        ({"token": "x" * 64}, {}),
        ({"token": "right"}, {"origin": "http://evil.example"}),
        ({"token": "right"}, {"sec-fetch-site": "cross-site"}),
        ({"token": "right"}, {"cookie": "omni-worker-dashboard=other"}),
        ({"token": "right"}, {"content-type": "text/plain"}),
        ({"token": "right"}, {"content-type": "multipart/form-data; boundary=x"}),
        ({"token": "right", "more": "x" * 300_000}, {}),
    ],
)
async def test_a_form_of_another_page_does_nothing(
    form: dict[str, str], headers: dict[str, str]
) -> None:
    async with failing() as server, opened(server, ACTIONS) as browser:
        token = await browser.token()
        if form.get("token") == "right":
            form = form | {"token": token}
        if "cookie" in headers:
            browser.client.cookies.clear()
        answer = await browser.post("/letters/discard", form | {"number": "1"}, headers=headers)
        left = (await browser.json("/letters"))["letters"]

    assert answer.status_code in (400, 403, 413, 415)
    assert len(left) == 1


async def test_many_are_retried_after_a_counted_question() -> None:
    async with failing(count=7) as server, opened(server, ACTIONS) as browser:
        asked = (await browser.get("/letters/bulk?verb=discard&handler=r1")).text
        form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked))
        answer = await browser.post("/letters/bulk", form)
        job = answer.headers["location"]
        await until(lambda: _is_over(browser, job))
        done = await browser.json(job)
        left = (await browser.json("/letters"))["letters"]

    assert "Discard 7 dead letters?" in asked
    assert (done["total"], done["done"], done["notDone"]) == (7, 7, {})
    assert left == []


async def _is_over(browser: Browser, job: str) -> bool:
    return bool((await browser.json(job))["over"])


async def test_letters_that_come_after_the_question_are_not_meant() -> None:
    async with failing(count=3) as server, opened(server, ACTIONS) as browser:
        form = {"token": await browser.token(), "verb": "discard", "count": "2",
                "until": "2100-01-01"}  # fmt: skip
        answer = await browser.post("/letters/bulk", form)
        job = answer.headers["location"]
        await until(lambda: _is_over(browser, job))
        left = (await browser.json("/letters"))["letters"]

    assert len(left) == 1


@pytest.mark.parametrize(
    "form",
    [
        {"verb": "delete", "count": "1", "until": "2100-01-01"},
        {"verb": "discard", "count": "0", "until": "2100-01-01"},
        {"verb": "discard", "count": "9"},
        {"verb": "discard", "count": "9", "until": "later"},
        {"verb": "discard", "count": "9", "until": "2100-01-01", "since": "later"},
    ],
)
async def test_a_question_that_was_not_asked_does_nothing(form: dict[str, str]) -> None:
    async with failing() as server, opened(server, ACTIONS) as browser:
        answer = await browser.post("/letters/bulk", form | {"token": await browser.token()})
        left = (await browser.json("/letters"))["letters"]

    assert answer.status_code == 400
    assert len(left) == 1


@pytest.mark.parametrize("path", PAGES)
async def test_every_answer_forbids_foreign_scripts_frames_and_caches(path: str) -> None:
    async with failing() as server, opened(server) as browser:
        answer = await browser.get(path)

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?! src)|\sstyle=|\son\w+=|javascript:", answer.text)


async def test_hostile_names_errors_and_filters_are_text() -> None:
    async with failing(error=EVIL, name="shop") as server, opened(server, ACTIONS) as browser:
        texts = [(await browser.get(path)).text for path in PAGES]
        for name in ("handler", "type", "error", "since", "until", "before", "number", "done"):
            answer = await browser.client.get("/letters", params={name: EVIL})
            texts.append(answer.text)
        texts.append((await browser.client.get("/letter", params={"number": EVIL})).text)
        texts.append((await browser.client.get("/letters/bulk", params={"verb": EVIL})).text)
        texts.append((await browser.client.get("/job", params={"id": EVIL})).text)

    assert any("&lt;script&gt;alert(1)" in text for text in texts)
    for text in texts:
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "49\\x1b" not in text


async def test_a_login_is_asked_for_on_every_path() -> None:
    async with failing() as server, opened(server, Access(users={"me": "right-horse"})) as browser:
        for path in [*PAGES, "/static/dashboard.css", "/nothing"]:
            assert (await browser.get(path)).status_code == 401
        browser.client.auth = ("me", "right-horse")
        assert (await browser.get("/")).status_code == 200


async def test_another_host_name_is_refused_on_every_path() -> None:
    async with failing() as server, opened(server) as browser:
        for path in [*PAGES, "/static/dashboard.css"]:
            assert (await browser.get(path, host="evil.example")).status_code == 421


async def test_it_works_mounted_in_another_app() -> None:
    async with failing() as server:
        outer = Starlette(routes=[Mount("/ops", dashboard(server, ACTIONS))])
        browser = Browser(outer, base="/ops")
        text = (await browser.get("/letters")).text
        form = {"token": await browser.token(), "number": "1", "from": "list"}
        answer = await browser.post("/letters/retry", form)
        style = re.search(r'href="(/ops/static/dashboard\.css[^"]*)"', text)
        assert style is not None
        sheet = await browser.client.get(style[1])

    assert answer.headers["location"].startswith("/ops/letters?")
    assert sheet.headers["content-type"].startswith("text/css")
    assert "immutable" in sheet.headers["cache-control"]
    assert 'href="/letter' not in text


async def test_an_outage_of_the_server_is_shown_and_not_a_traceback() -> None:
    async with failing() as server, opened(server) as browser:
        await server.close()
        answer = await browser.get("/letters")

    assert answer.status_code == 503
    assert "did not answer" in answer.text


async def test_live_changes_are_sent_as_they_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with failing() as server:
        app = dashboard(server)
        sent: asyncio.Queue[bytes] = asyncio.Queue()
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            await sent.put(message.get("body", b""))

        scope = {
            "type": "http", "method": "GET", "path": "/letters", "query_string": b"live=1",
            "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "root_path": "",
            "scheme": "http", "http_version": "1.1", "server": ("localhost", 80),
        }  # fmt: skip
        stream = asyncio.create_task(app(scope, receive, send))
        try:
            await until(lambda: _holds(sent, b'id="letter-1"'))
            viewer = MemoryTransport(server.server)
            await viewer.open("another")
            from omni_worker.operations.dead_letters import DeadLetters

            letters = DeadLetters(viewer)
            await letters.discard(await letters.get(1))
            await until(lambda: _holds(sent, b"No dead letters"))
        finally:
            gone.set()
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)


async def _holds(sent: asyncio.Queue[bytes], text: bytes) -> bool:
    found = False
    while not sent.empty():
        found = text in sent.get_nowait() or found
    return found


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import builtins

    original = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "starlette":
            raise ModuleNotFoundError("No module named 'starlette'", name="starlette")
        return original(name, *rest)

    import sys

    for module in [one for one in sys.modules if one.startswith("omni_worker.dashboard.app")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(ConfigError, match=r"pip install 'omni-worker\[dashboard\]'"):
        dashboard(MemoryTransport())


async def test_a_handler_is_shown_with_its_processes_failures_and_letters() -> None:
    async with failing(count=2) as server, opened(server) as browser:
        await until(lambda: _knows_processes(browser))
        text = (await browser.get("/handler?app=shop&name=r1")).text
        found = await browser.json("/handler?app=shop&name=r1")

    assert "no such chat" in text
    assert 'href="/letter?number=2"' in text
    assert "concurrency <b>10</b>" in text
    assert [one["app"] for one in found["processes"]] == ["shop"]
    assert len(found["lastFailures"]) == 2


async def _knows_processes(browser: Browser) -> bool:
    return bool((await browser.json("/workers"))["processes"])


async def test_an_unknown_handler_is_not_found() -> None:
    async with failing() as server, opened(server) as browser:
        assert (await browser.get("/handler?name=other")).status_code == 404


async def test_a_handler_known_by_its_letters_only_is_found_by_the_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def counted_slowly(transport: Transport) -> OpenLetters:
        await asyncio.sleep(0.3)  # of a server with many
        return await count_open(transport)

    monkeypatch.setattr("omni_worker.dashboard.watch.count_open", counted_slowly)
    async with failing() as server:
        await server.publish(letter(1), timeout=1)
        async with opened(server) as browser:
            answer = await browser.get("/handler?name=handler-1")

    assert answer.status_code == 200


@pytest.mark.parametrize("error", ["gateway closed", "half a character \ud83d"])
async def test_an_attempt_that_is_repeated_shows_its_error_before_it_is_a_letter(
    error: str,
) -> None:
    server = MemoryServer()
    app = App("shop")

    @app.on("custom.order.placed", durable="r1", retry=RetryPolicy(retries=3, delay=30))
    async def handle(event: Event[Any]) -> None:
        raise ConnectionError(error)

    viewer = MemoryTransport(server)
    await viewer.open("dashboard")
    async with app.running(transport=MemoryTransport(server)) as bus, opened(viewer) as browser:
        await bus.publish("custom.order.placed", {})
        await until(lambda: _is_retrying(browser))
        [failure] = (await browser.json("/handler?name=r1"))["lastFailures"]
        text = (await browser.get("/handler?name=r1")).text

    assert error.split()[0] in text
    assert (failure["handler"], failure["attempt"]) == ("r1", 1)
    assert failure["subject"] == "custom.order.placed"


async def _is_retrying(browser: Browser) -> bool:
    [handler] = (await browser.json("/"))["handlers"]
    return bool(handler["state"] == "retrying" and handler["lastError"])


async def test_events_are_listed_the_newest_first_without_their_payloads() -> None:
    async with failing(count=3) as server, opened(server) as browser:
        found = (await browser.json("/events?type=custom.>"))["events"]
        closed = (await browser.get("/events")).text
        opened_ = (await browser.get("/events?payloads=1")).text

    assert [one["id"] for one in found] == ["order-2", "order-1", "order-0"]
    assert "pin 0" not in closed
    assert "pin 0" in opened_


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("type=custom.order.placed", 3),
        ("type=custom.*", 0),
        ("type=message.received", 0),
        ("type=custom.>&channel=whatsapp", 0),
    ],
)
async def test_events_are_chosen_by_type_and_channel(query: str, count: int) -> None:
    async with failing(count=3) as server, opened(server) as browser:
        assert len((await browser.json(f"/events?{query}"))["events"]) == count


@pytest.mark.parametrize("type", ["Order", "a b.c", "custom", "$SYS.>", "x" * 400])
async def test_a_type_that_cannot_be_is_explained(type: str) -> None:
    async with failing() as server, opened(server) as browser:
        answer = await browser.client.get("/events", params={"type": type})

    assert answer.status_code == 200
    assert 'role="alert"' in answer.text


async def test_an_event_is_shown_with_its_fate_and_its_dead_letter() -> None:
    async with failing() as server, opened(server) as browser:
        text = (await browser.get("/event?id=order-0")).text
        by_place = (await browser.get("/event?id=CUSTOM:1")).text
        found = await browser.json("/event?id=order-0")

    assert "dead letter #1" in text
    assert "dead letter #1" in by_place
    assert "settled, failed 1 time</span>" in text
    assert "in r1: Reject: no such chat</span>" in text
    assert [one["handler"] for one in found["consumers"]] == ["r1"]
    assert "pin 0" not in text


async def test_an_event_that_no_stream_holds_is_not_found() -> None:
    async with failing() as server, opened(server) as browser:
        answer = await browser.get("/event?id=other")

    assert answer.status_code == 404
    assert "Look through seven days" in answer.text


async def test_streams_and_workers_are_listed() -> None:
    async with failing() as server, opened(server) as browser:
        streams = (await browser.json("/streams"))["streams"]
        await until(lambda: _knows_processes(browser))
        [process] = (await browser.json("/workers"))["processes"]

    kinds = {one["name"]: one["kind"] for one in streams}
    assert kinds["CUSTOM"] == "events"
    assert kinds["KV_omni-worker-notes"] == "own"
    assert process["slots"] == 10


async def test_letters_are_counted_by_handler_and_by_the_class_of_their_error() -> None:
    async with failing(count=3) as server, opened(server) as browser:
        await until(lambda: _counts(browser))
        text = (await browser.get("/letters")).text

    assert re.search(r'href="/letters\?handler=r1">r1 <b>3</b>', text)
    assert re.search(r'href="/letters\?error=Reject">Reject <b>3</b>', text)


async def _counts(browser: Browser) -> bool:
    return (await browser.json("/"))["openDeadLetters"] == 3


@pytest.mark.parametrize(("text", "count"), [("R1", 1), ("such chat", 1), ("fail", 1), ("x9", 0)])
async def test_handlers_are_chosen_by_a_part_of_what_is_said_of_them(text: str, count: int) -> None:
    async with failing() as server, opened(server) as browser:
        found = (await browser.json(f"/?q={text}"))["handlers"]

    assert len(found) == count

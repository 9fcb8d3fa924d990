"""Replays: a dry run through a handler's code, in a process that the dashboard starts."""

from __future__ import annotations

import json
import re
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from omni_worker import EventBus
from omni_worker.dashboard.replays import Replay, _take
from omni_worker.nats_server import NatsServer
from tests.processes.support import Stage
from tests.waiting import until

from .support import failing, opened
from .test_command import served
from .test_pages import ACTIONS
from .test_rates import NOW

APP = """
app = App("shop")

@app.on("custom.order.placed", durable="orders")
async def order(event: Event) -> None:
    print("a line of the handler")
    if event.payload["number"] == 2:
        raise ValueError("the second cannot be shipped")
    await app.publish("custom.parcel.packed", {})
"""


async def test_a_dry_run_shows_what_would_be_published_and_publishes_nothing(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        target = stage.app(APP)
        async with EventBus(nats_server.url, name="other") as bus:
            for number in range(3):
                await bus.publish("custom.order.placed", {"number": number})
            await stage.run(target)
            await bus.publish("custom.order.placed", {"number": 3})
            await until(lambda: count(bus, 5))
            more = {"EFFECTS": str(tmp_path / "effects.jsonl"), "WORKER": "replay"}
            command = (target, "--allow-actions")
            with served(nats_server.url, *command, folder=tmp_path, **more) as (url, _):
                visit = Visit(url)
                token = visit.token("/handler?name=orders")
                shown = visit.post("/replay", token=token, name="orders", since="1h")
                await until(lambda: visit.json(shown)["over"], 60)
                found = visit.json(shown)
            stored = await count(bus, 5)

    assert found["summary"]["handled"] == 3
    assert found["summary"]["failed"] == 1
    assert "the second cannot be shipped" in found["summary"]["failures"][0]
    assert found["wouldPublish"] == {"custom.parcel.packed": 3}
    assert "a line of the handler" in found["said"]
    assert stored


async def count(bus: EventBus, wanted: int) -> bool:
    """Return True if so many events are in CUSTOM."""
    info = await bus.transport.operators.stream_info("CUSTOM")
    return info is not None and info.state.messages == wanted


class Visit:
    """A browser of the standard library: it keeps cookies and follows redirects."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))

    def token(self, path: str) -> str:
        """Return the token of a page's form."""
        with self._opener.open(self._url + path) as answer:
            found = re.search(r'name="token" value="(\w+)"', answer.read().decode())
        assert found
        return found[1]

    def post(self, path: str, **form: str) -> str:
        """Send a form; return the address it leads to."""
        with self._opener.open(self._url + path, urlencode(form).encode()) as answer:
            return str(answer.url).removeprefix(self._url)

    def json(self, path: str) -> Any:
        """Read a page as a program."""
        with self._opener.open(f"{self._url}{path}&format=json") as answer:
            return json.load(answer)


@pytest.mark.parametrize("form", [{"name": "r1", "since": "1h"}, {"name": "r1", "since": "soon"}])
async def test_without_an_app_nothing_is_run(form: dict[str, str]) -> None:
    async with failing() as server, opened(server, ACTIONS) as browser:
        text = (await browser.get("/handler?name=r1")).text
        answer = await browser.post("/replay", form | {"token": await browser.token()})

    assert "Run dry" not in text
    assert answer.status_code == 409


@pytest.mark.parametrize(
    "line",
    [
        "", "[1]", "null", '{"a": 1}', "{", '{"dryRun": "yes"}', "\ud800", "1" * 5000,
    ],
)  # fmt: skip
def test_what_a_handler_prints_is_no_answer(line: str) -> None:
    assert not _take(line, Replay("id", "r1", NOW, NOW, "me"))


def test_an_answer_that_a_handler_forged_breaks_no_page() -> None:
    replay = Replay("id", "r1", NOW, NOW, "me")

    assert _take('{"dryRun": true, "handled": "<b>", "failures": "x"}', replay)
    assert replay.summary is not None
    assert (replay.summary.handled, replay.summary.failures) == (0, ())


def test_subjects_that_would_be_published_on_are_counted_up_to_a_bound() -> None:
    replay = Replay("id", "r1", NOW, NOW, "me")
    for number in range(1000):
        _take(json.dumps({"wouldPublish": f"custom.a.{number}"}), replay)

    assert len(replay.would) == 51
    assert replay.would.total() == 1000

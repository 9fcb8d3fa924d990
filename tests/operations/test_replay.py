"""`omni-worker replay`: past events through one handler, on a real server."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer
from tests.processes.support import (
    PROGRAM,
    api,
    clean_environment,
    make_stream,
    plain_client,
    stored,
)

from .conftest import MANY
from .support import Said, least, measure, operate

APP = """
import asyncio, json, os, time
from contextlib import asynccontextmanager

from omni_worker import App, Event


@asynccontextmanager
async def lifespan(app):
    yield "the state"


app = App("shop", lifespan=lifespan)
file = os.open("runs.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def ran(who, **facts):
    os.write(file, json.dumps({"who": who, **facts}).encode() + b"\\n")


@app.middleware
async def around(ctx, event, call_next):
    ran("middleware", id=event.id)
    await call_next(ctx, event)


@app.on("custom.order", durable="orders", start_from="first")
async def order(event: Event, ctx) -> None:
    ran("orders", id=event.id, replay=ctx.replay, state=ctx.state, attempt=ctx.attempt)
    if event.payload.get("bad"):
        raise ValueError("no such article")
    await app.publish("custom.accepted", {"secret": event.id})


@app.on("custom.chat", durable="chats", start_from="first")
async def chat(event: Event) -> None:
    if event.payload == "bye":
        await app.cancel("follow-up:7")
        return
    await app.publish("custom.follow_up", {"n": 1}, after=86_400, key="follow-up:7")
    await app.publish("custom.reminder", {"n": 2}, after=60)
    async with app.atomic() as tx:
        await tx.publish("custom.one", 1)


@app.on("custom.order", durable="others", start_from="first")
async def other(event: Event) -> None:
    ran("others", id=event.id)


@app.on("custom.order", durable="threads", start_from="first", concurrency=2)
def in_a_thread(event: Event, ctx) -> None:
    ctx.wait(ctx.publish("custom.accepted", {}))
    ran("threads", id=event.id, replay=ctx.replay)


running = 0


@app.on("custom.order", durable="sparing", rate="4/s", rate_by=lambda e: e.instance, limit=2)
async def spare(event: Event) -> None:
    global running
    running += 1
    ran("sparing", at=time.monotonic(), running=running)
    await asyncio.sleep(0.05)
    running -= 1


@app.on("message.received", durable="counter")
async def count(event: Event) -> None:
    pass


@app.on("custom.slow", durable="slow")
async def slow(event: Event) -> None:
    ran("slow", id=event.id)
    await asyncio.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def runs(folder: Path, who: str) -> list[dict[str, Any]]:
    """What the handlers wrote down."""
    file = folder / "runs.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [one for one in map(json.loads, lines) if one["who"] == who]


async def orders(url: str, *payloads: dict[str, Any], channel: str | None = None) -> None:
    """Publish `custom.order`s with the ids o-0, o-1 …"""
    instance = None if channel is None else "one"
    async with EventBus(url, name="t") as bus:
        for number, payload in enumerate(payloads):
            id = f"o-{channel or ''}{number}"
            await bus.publish("custom.order", payload, channel=channel, instance=instance, id=id)


def replay(url: str, folder: Path, *arguments: str, handler: str = "orders") -> Said:
    return operate(url, "replay", "shop:app", "--handler", handler, *arguments, folder=folder)


async def types(url: str, stream: str) -> list[str]:
    client = await plain_client(url)
    found = [json.loads(one.data)["type"] for one in await stored(client, stream)]
    await client.close()
    return found


async def test_a_rate_and_a_limit_hold_for_a_replay(nats_server: NatsServer, folder: Path) -> None:
    url = nats_server.url
    await orders(url, *[{}] * 9, channel="whatsapp")

    said = replay(url, folder, "--since", "1h", "--yes", handler="sparing")

    assert said.code == 0, said
    ran = runs(folder, "sparing")
    assert len(ran) == 9
    assert max(one["running"] for one in ran) <= 2
    assert ran[-1]["at"] - ran[0]["at"] >= 1.2  # four at once, five more at their rate


async def test_past_events_run_once_more_in_one_handler_only(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    await orders(url, {}, {}, {})

    said = replay(url, folder, "--since", "1h", "--yes")

    assert said.code == 0
    assert "Replay into order (orders): 3 handled" in said.out
    assert [(one["id"], one["replay"], one["attempt"]) for one in runs(folder, "orders")] == [
        ("o-0", True, 1), ("o-1", True, 1), ("o-2", True, 1),
    ]  # fmt: skip
    assert {one["state"] for one in runs(folder, "orders")} == {"the state"}
    assert len(runs(folder, "middleware")) == 3
    assert runs(folder, "others") == []
    assert (await types(url, "CUSTOM")).count("custom.accepted") == 3
    assert await types(url, "SYSTEM") == ["system.replay.started", "system.replay.completed"]
    client = await plain_client(url)
    listed = await api(client, "CONSUMER.LIST.CUSTOM")
    assert not listed["consumers"]
    completed = json.loads((await stored(client, "SYSTEM"))[1].data)["payload"]
    assert (completed["handler"], completed["handled"], completed["complete"]) == (
        "orders", 3, True,
    )  # fmt: skip
    await client.close()


async def test_the_ids_of_what_it_publishes_are_those_of_the_first_time(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    await orders(url, {}, {})

    first = replay(url, folder, "--since", "100s")  # within the window nobody is asked
    second = replay(url, folder, "--since", "100s")

    assert (first.code, second.code) == (0, 0)
    assert len(runs(folder, "orders")) == 4
    assert (await types(url, "CUSTOM")).count("custom.accepted") == 2


async def test_beyond_the_window_it_asks(nats_server: NatsServer, folder: Path) -> None:
    await orders(nats_server.url, {})

    said = replay(nats_server.url, folder, "--since", "1h")

    assert said.code == 2
    assert "will be stored twice" in said.line
    assert "add --yes" in said.line
    assert runs(folder, "orders") == []


async def test_it_asks_earlier_where_a_stream_forgets_ids_earlier(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    await make_stream(client, "CUSTOM", "custom.>", duplicate_window=5_000_000_000)
    await client.close()
    await orders(url, {})

    said = replay(url, folder, "--since", "100s")

    assert said.code == 2
    assert "more than 5 s ago will be stored twice" in said.line
    assert runs(folder, "orders") == []


async def test_a_dry_run_shows_what_it_would_publish_and_stores_nothing(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    await orders(url, {}, {})
    client = await plain_client(url)
    before = (await api(client, "STREAM.LIST"))["streams"]

    said = replay(url, folder, "--since", "1h", "--dry-run")
    told = replay(url, folder, "--since", "1h", "--dry-run", "--json", "--payloads")
    after = (await api(client, "STREAM.LIST"))["streams"]
    await client.close()

    assert said.code == 0
    assert said.out.count("would publish custom.accepted") == 2
    assert "Dry run into order (orders): 2 handled" in said.out
    assert "secret" not in said.out
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert [one.get("from") for one in lines] == ["o-0", "o-1", None]
    assert lines[0]["payload"] == {"secret": "o-0"}
    assert lines[-1]["handled"] == 2
    assert [one["state"]["messages"] for one in after] == [
        one["state"]["messages"] for one in before
    ]


async def test_a_dry_run_shows_what_it_would_schedule_cancel_and_commit_as_the_events_they_are(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    words = ("replay", "shop:app", "--handler", "chat", "--since", "1h", "--dry-run")
    async with EventBus(url, name="shop") as bus:
        await bus.publish("custom.chat", "hello", id="c-0")
        first = await asyncio.to_thread(operate, url, *words, folder=folder)
        scheduled = await bus.publish("custom.follow_up", {}, after=86_400, key="follow-up:7")
        assert await bus.cancel(scheduled)  # its mark has no body
        await bus.publish("custom.chat", "hello", id="c-1")
        await bus.publish("custom.chat", "bye", id="c-2")

        said = await asyncio.to_thread(operate, url, *words, folder=folder)
        told = await asyncio.to_thread(operate, url, *words, "--json", "--payloads", folder=folder)

    assert (first.code, said.code) == (0, 0)
    text = " ".join(said.out.split())
    for subject in ("custom.follow_up", "custom.reminder"):
        assert re.search(rf"would publish {re.escape(subject)} at 20\d\d-", text)
    assert "key follow-up:7" in text
    assert "would publish custom.one id" in text
    assert "would cancel what is scheduled as follow-up:7 for c-2" in text
    assert "omni-worker.schedule" not in said.out + said.err
    lines = [json.loads(line) for line in told.out.splitlines()]
    later, soon, block = (
        next(one for one in lines if (one.get("wouldPublish"), one["from"]) == (subject, "c-1"))
        for subject in ("custom.follow_up", "custom.reminder", "custom.one")
    )
    assert (later["key"], later["from"], later["payload"]) == ("follow-up:7", "c-1", {"n": 1})
    assert (soon["key"], soon["at"] < later["at"]) == (None, True)
    assert len({later["id"], soon["id"], block["id"]}) == 3
    assert ("at" in block, block["payload"]) == (False, 1)
    assert {"wouldCancel": "follow-up:7", "from": "c-2"} in lines
    assert lines[-1]["handled"] == 3


async def test_what_fails_is_told_and_neither_retried_nor_dead_lettered(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    await orders(url, {}, {"bad": True}, {})

    said = replay(url, folder, "--since", "1h", "--yes")

    assert said.code == 1
    assert "2 handled, 1 failed" in said.out
    assert "CUSTOM #2 o-1: ValueError: no such article" in said.out
    assert len(runs(folder, "orders")) == 3
    assert "system.dead_letter" not in await types(url, "SYSTEM")


async def test_only_the_events_that_are_asked_for_run(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    await orders(url, {}, channel="whatsapp")
    await orders(url, {}, channel="discord")

    by_channel = replay(url, folder, "--since", "1h", "--yes", "--where", "channel=discord")
    early = replay(url, folder, "--since", "1h", "--until", "10m", "--yes")
    wrong = replay(url, folder, "--since", "1h", "--where", "colour=red")

    assert [one["id"] for one in runs(folder, "orders")] == ["o-discord0"]
    assert "1 handled, 1 skipped" in by_channel.out
    assert "0 handled" in early.out
    assert wrong.code == 2
    assert "expected KEY=VALUE" in wrong.line


async def test_a_plain_def_handler_is_replayed_in_its_threads(
    nats_server: NatsServer, folder: Path
) -> None:
    await orders(nats_server.url, {}, {})

    said = replay(nats_server.url, folder, "--since", "1h", "--yes", handler="in_a_thread")

    assert said.code == 0
    assert {(one["id"], one["replay"]) for one in runs(folder, "threads")} == {
        ("o-0", True), ("o-1", True),
    }  # fmt: skip


async def test_a_rate_is_kept(nats_server: NatsServer, folder: Path) -> None:
    await orders(nats_server.url, *[{}] * 6)

    began = time.monotonic()
    said = replay(nats_server.url, folder, "--since", "1h", "--yes", "--rate", "4/s")

    assert said.code == 0
    assert time.monotonic() - began >= 1.25  # five gaps


async def test_an_unknown_handler_is_called_wrongly(nats_server: NatsServer, folder: Path) -> None:
    said = replay(nats_server.url, folder, "--since", "1h", handler="countr")

    assert said.code == 2
    assert (
        "--handler countr: no handler is called countr; did you mean count (counter)?" in said.line
    )


async def test_interrupted_it_says_how_far_it_came(nats_server: NatsServer, folder: Path) -> None:
    url = nats_server.url
    async with EventBus(url, name="t") as bus:
        await bus.publish("custom.slow", {}, id="s-1")
    replaying = subprocess.Popen(
        [PROGRAM, "replay", "shop:app", "--handler", "slow", "--since", "1h", "--yes"],
        stdout=subprocess.PIPE, text=True, cwd=folder,
        env=clean_environment() | {"NATS_URL": url},
    )  # fmt: skip
    async with asyncio.timeout(20):
        while not runs(folder, "slow"):
            await asyncio.sleep(0.02)
    replaying.send_signal(signal.SIGINT)

    out, _ = await asyncio.to_thread(replaying.communicate, timeout=20)

    assert replaying.returncode == 130
    assert "Interrupted" in out
    assert await types(url, "SYSTEM") == ["system.replay.started", "system.replay.completed"]


def test_many_events_are_replayed_in_little_memory(large_server: NatsServer, folder: Path) -> None:
    command = "replay", "shop:app", "--handler", "counter", "--since", "1d", "--dry-run", "--json"
    measured = measure(large_server.url, *command, folder=folder)

    assert json.loads(measured.said.out)["handled"] == MANY
    assert measured.peak < least(folder, *command) + 8

"""`show`, `status`, `tail` and `trace`: each answer, in a terminal, on a real server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus
from omni_worker.cli.commands.tail import Page
from omni_worker.nats_server import NatsServer
from omni_worker.transports.base import StoredMessage
from tests.processes.support import (
    PROGRAM,
    api,
    clean_environment,
    consumer,
    foreign_event,
    make_stream,
    plain_client,
    until_letters,
)
from tests.waiting import until

from .conftest import MANY
from .support import least, measure, operate, table_of

APP = """
from datetime import datetime

from pydantic import BaseModel

from omni_worker import App, Event

app = App("router")


class Push(BaseModel):
    branch: str


app.registry.register("custom.push", Push, description="somebody pushed")


@app.on("custom.push", channel="github", durable="r1", max_retries=2, timeout=5)
async def route(event: Event[Push]) -> None: ...


@app.on("message.*", queue="audit")
async def audit(event: Event) -> None: ...


@app.on("instance.connected", "access.denied")
async def everyone(event: Event) -> None: ...
"""

CRON = """
from omni_worker import App, Event

app = App("clock")


@app.cron("0 8 * * mon-fri", tz="America/Sao_Paulo", durable="report")
async def report(event: Event) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


# --- show ---------------------------------------------------------------------------------------


def test_show_needs_no_server_and_tells_what_is_declared(folder: Path) -> None:
    said = operate("nats://127.0.0.1:9", "show", "shop", folder=folder)
    told = operate("nats://127.0.0.1:9", "show", "shop:app", "--json", folder=folder)

    found = json.loads(told.out)
    assert said.code == 0
    assert "r1 on CUSTOM" in said.out
    assert "custom.push.github.>" in said.out
    assert "retries 2" in said.out
    assert "each gets every event" in " ".join(said.out.split())
    assert "custom.push  Push: somebody pushed" in said.out
    assert found["handlers"][0]["consumers"] == [{"stream": "CUSTOM", "name": "r1"}]
    assert [one["payload"] for one in found["handlers"]] == ["Push", None, None]
    assert {one["stream"] for one in found["handlers"][2]["consumers"]} == {"INSTANCE", "ACCESS"}


def test_show_names_the_times_of_a_cron(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(CRON)

    said = operate("nats://127.0.0.1:9", "show", "clock", folder=tmp_path)

    assert "    cron      0 8 * * mon-fri, America/Sao_Paulo\n" in said.out


def test_show_of_a_module_that_is_not_there_is_called_wrongly(folder: Path) -> None:
    said = operate("nats://127.0.0.1:9", "show", "shopp:app", folder=folder)

    assert said.code == 2
    assert "no such module: 'shopp'" in said.line


def test_show_tells_of_a_type_that_is_nearly_one_that_exists(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from omni_worker import App, Event\napp = App('shop')\n\n"
        "@app.on('message.recieved', 'message.edited', durable='r1')\n"
        "async def route(event: Event): ...\n"
    )

    said = operate("nats://127.0.0.1:9", "show", "shop:app", folder=tmp_path)
    told = operate("nats://127.0.0.1:9", "show", "shop:app", "--json", folder=tmp_path)

    doubt = "message.recieved is not a known event type; did you mean message.received?"
    assert said.code == 0
    assert doubt in " ".join(said.out.split())
    assert json.loads(told.out)["handlers"][0]["doubtful"] == [doubt]


def test_show_names_options_as_they_are_given_a_zero_as_well(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from omni_worker import App, Event\napp = App('shop')\n\n"
        "@app.on('custom.x', durable='r1', breaker=0, max_retries=0, timeout=5)\n"
        "async def route(event: Event): ...\n"
    )

    said = operate("nats://127.0.0.1:9", "show", "shop:app", folder=tmp_path)

    options = " ".join(said.out.partition("\n    options")[2].partition("\n\n")[0].split())
    assert options == (
        "concurrency 10, prefetch adaptive, timeout 5 s, ack_wait 30 s, max_retries 0,"
        " retry_delay 1 s, start_from new, breaker 0"
    )


def test_show_names_a_queue_and_says_where_it_has_no_effect(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from omni_worker import App, Event\napp = App('shop')\n\n"
        "@app.on('custom.x', durable='r1', queue='routers')\n"
        "@app.on('custom.y', queue='routers')\n"
        "async def route(event: Event): ...\n"
    )

    said = operate("nats://127.0.0.1:9", "show", "shop:app", folder=tmp_path)
    told = operate("nats://127.0.0.1:9", "show", "shop:app", "--json", folder=tmp_path)

    queues = [line for line in said.out.splitlines() if line.startswith("    queue")]
    assert queues == [
        "    queue     routers",
        "    queue     routers (no effect: processes share by the durable)",
    ]
    found = json.loads(told.out)["handlers"]
    assert [(one["durable"], one["queue"]) for one in found] == [
        (None, "routers"), ("r1", "routers"),
    ]  # fmt: skip


def test_show_lists_schemas_of_its_own_and_the_streams_it_reads(folder: Path) -> None:
    said = operate("nats://127.0.0.1:9", "show", "shop:app", folder=folder)

    schemas = said.out.partition("\nschemas\n")[2].partition("\n\n")[0].splitlines()
    streams = said.out.partition("\nstreams\n")[2].splitlines()
    assert schemas == ["  custom.push  Push: somebody pushed"]
    assert [line.split() for line in streams] == [
        ["STREAM", "SUBJECTS", "KEPT"], ["MESSAGE", "message.>", "30", "d"],
        ["INSTANCE", "instance.>", "7", "d"], ["ACCESS", "access.>", "30", "d"],
        ["CUSTOM", "custom.>", "7", "d"],
    ]  # fmt: skip


# --- status -------------------------------------------------------------------------------------


async def test_status_counts_what_waits_is_held_and_comes_again(nats_server: NatsServer) -> None:
    url = nats_server.url
    gate = asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        await gate.wait()

    async with EventBus(url, name="t") as bus:
        await bus.subscribe("custom.n", handle, durable="slow", concurrency=2, prefetch=1)
        for number in range(10):
            await bus.publish("custom.n", number)
        await until(lambda: _holds(bus, 3))

        said = operate(url, "status")
        told = json.loads(operate(url, "status", "--json").out)
        before = await bus.transport.operators.consumer_info("CUSTOM", "slow-bare")
        gate.set()

    [row] = table_of(said)
    assert [one["handler"] for one in told["consumers"]] == ["slow", "slow"]
    [one] = [one for one in told["consumers"] if one["consumer"] == "slow-bare"]
    assert [cell.strip() for cell in row[:5]] == ["CUSTOM", "handle (slow)", "7", "3", "0"]
    assert (one["waiting"], one["unacked"], one["app"]) == (7, 3, "t")
    assert 0 < one["lagSeconds"] < 60
    assert before is not None
    assert before.num_ack_pending == 3


async def _holds(bus: EventBus, count: int) -> bool:
    return bus.subscriptions[0].held == count


async def test_status_of_an_app_shows_what_is_missing(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with EventBus(url, name="other") as bus:
        await bus.subscribe("custom.other", _pass, durable="not-of-this-app")

        said = operate(url, "status", "shop:app", folder=folder)
        everything = operate(url, "status", folder=folder)

    # A name that is too long for its column goes on in a second line.
    names = [row[1].strip() for row in table_of(said) if len(row) > 1]
    assert "route (r1)" in names
    assert "not-of-this-app" not in names
    assert said.out.count("missing") == 4
    assert "not-of-this-app" in everything.out


async def _pass(event: Event[Any]) -> None:
    pass


async def test_status_names_a_bucket_that_takes_no_writes(nats_server: NatsServer) -> None:
    url = nats_server.url
    async with EventBus(url, name="t") as bus:
        await bus.transport.operators.create_stream(
            {"name": "KV_omni-worker-guards", "subjects": ["$KV.omni-worker-guards.>"]}
        )
        before = operate(url, "status")
        info = await bus.transport.operators.stream_info("KV_omni-worker-guards")
        assert info is not None
        await bus.transport.operators.update_stream({**info.config.raw, "sealed": True})

        said = operate(url, "status")
        told = json.loads(operate(url, "status", "--json").out)

    assert "Bucket" not in before.out
    assert "Bucket omni-worker-guards: sealed: handlers with exactly_once take no" in said.out
    assert [one["what"] for one in told["buckets"]] == ["omni-worker-guards"]


async def test_status_tells_who_is_paused_and_who_holds_all_it_can(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    async with EventBus(url, name="t") as bus:
        for number in range(3):
            await bus.publish("custom.n", number)
        await make_consumer(client, "paused", pause_until="2099-01-01T00:00:00Z")
        await make_consumer(client, "unread")
        await make_consumer(client, "busy")
        pulled = await client.jetstream().pull_subscribe_bind("busy", "CUSTOM")
        await pulled.fetch(1)
        await make_consumer(client, "held")
        await (await client.jetstream().pull_subscribe_bind("held", "CUSTOM")).fetch(3)
        tailing = subprocess.Popen(
            [PROGRAM, "tail", "custom.n"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=clean_environment() | {"NATS_URL": url},
        )  # fmt: skip
        await until(lambda: _is_watched(client, 5))

        said = operate(url, "status")
        told = json.loads(operate(url, "status", "--json").out)
        tailing.kill()
        tailing.wait()
        await client.close()

    notes = " ".join(said.out.partition("\n\n")[2].split())
    assert "No worker reads paused, unread: is one running?" in notes
    assert "No worker asks for more of busy: it is at its limit, or gone." in notes
    assert (
        "No worker asks for more of held: what is unacked runs in one at its limit,"
        " or waits until a worker reads it."
    ) in notes
    assert "Paused on the server, so nothing is delivered: paused." in notes
    paused = {one["consumer"]: one["paused"] for one in told["consumers"]}
    assert paused == {
        "busy": False,
        "held": False,
        "paused": True,
        "unread": False,
    }  # and no scan of ours


async def test_status_watch_looks_again_until_it_is_interrupted(nats_server: NatsServer) -> None:
    async with EventBus(nats_server.url, name="t") as bus:
        await bus.subscribe("custom.n", _pass, durable="d")
        watching = subprocess.Popen(
            [PROGRAM, "status", "--watch", "--json"], stdout=subprocess.PIPE, text=True,
            env=clean_environment() | {"NATS_URL": nats_server.url},
        )  # fmt: skip
        assert watching.stdout is not None
        looks = [json.loads(await asyncio.to_thread(watching.stdout.readline)) for _ in range(2)]
        watching.send_signal(signal.SIGINT)

        assert await asyncio.to_thread(watching.wait, 10) == 130
        assert [one["consumers"][0]["consumer"] for one in looks] == ["d", "d"]
        watching.stdout.close()


# --- tail ---------------------------------------------------------------------------------------


async def test_tail_shows_past_events_of_several_streams_in_order_of_time(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url
    async with EventBus(url, name="t") as bus:
        for number in range(3):
            await bus.publish("custom.n", {"secret": number}, id=f"c-{number}")
            await bus.publish("system.replay.started", {}, id=f"s-{number}")

        said = operate(url, "tail", "--since", "1h")
        told = operate(url, "tail", "custom.n", "--since", "1h", "--json", "--payloads")
        later = operate(url, "tail", "--since", "2099-01-01")
        newest = operate(url, "tail", "-n", "3")
        of_type = operate(url, "tail", "custom.n", "-n", "2", "--since", "1h")
        none = operate(url, "tail", "custom.other", "-n", "2")
        consumers = await bus.transport.operators.consumers("CUSTOM")

    ids = [line.strip() for line in said.out.splitlines()[1::2]]
    assert ids == ["c-0", "s-0", "c-1", "s-1", "c-2", "s-2"]
    assert "secret" not in said.out
    assert [json.loads(line)["payload"] for line in told.out.splitlines()] == [
        {"secret": number} for number in range(3)
    ]
    assert (later.out, later.code) == ("", 0)
    assert "Nothing since" in later.err
    assert [line.strip() for line in newest.out.splitlines()[1::2]] == ["s-1", "c-2", "s-2"]
    assert [line.strip() for line in of_type.out.splitlines()[1::2]] == ["c-1", "c-2"]
    assert (none.code, none.err) == (0, "Nothing is stored.\n")
    assert consumers == []


@pytest.mark.parametrize("words", [(), ("-n", "1", "--follow")])
async def test_tail_shows_events_as_they_come(
    nats_server: NatsServer, words: tuple[str, ...]
) -> None:
    async with EventBus(nats_server.url, name="t") as bus:
        await bus.publish("custom.n", 0, id="before")
        tailing = subprocess.Popen(
            [PROGRAM, "tail", "custom.n", "--json", *words], stdout=subprocess.PIPE, text=True,
            env=clean_environment() | {"NATS_URL": nats_server.url},
        )  # fmt: skip
        assert tailing.stdout is not None
        client = await plain_client(nats_server.url)
        await until(lambda: _is_watched(client))
        await bus.publish("custom.n", 1, id="after", channel="a", instance="b")
        if words:
            past = json.loads(await asyncio.to_thread(tailing.stdout.readline))
            assert past["id"] == "before"

        line = json.loads(await asyncio.to_thread(tailing.stdout.readline))
        tailing.send_signal(signal.SIGINT)
        code = await asyncio.to_thread(tailing.wait, 10)
        tailing.stdout.close()

        assert (line["id"], line["subject"], code) == ("after", "custom.n.a.b", 130)
        assert "payload" not in line
        await client.close()


async def _is_watched(client: Any, consumers: int = 1) -> bool:
    listed = await api(client, "CONSUMER.LIST.CUSTOM")
    return len(listed["consumers"] or ()) >= consumers


async def test_tail_asks_back_when_a_type_looks_misspelt(nats_server: NatsServer) -> None:
    async with EventBus(nats_server.url, name="t"):
        said = operate(nats_server.url, "tail", "message.recieved", "--since", "1h")

    assert said.code == 0
    assert "Did you mean message.received?" in said.line


def test_tail_gives_each_day_a_line() -> None:
    page = Page(payloads=False)
    noon = datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0)
    days = [noon - timedelta(days=2), noon - timedelta(days=2), noon]

    lines = [line for day in days for line in page.lines(_seen(day))]

    shown = f"{days[0]:%Y-%m-%d}", f"{days[2]:%Y-%m-%d}"
    assert [line for line in lines if not line.startswith((" ", "12:"))] == list(shown)
    assert lines[1] == "12:00:00  CUSTOM #1     custom.n"


def _seen(when: datetime) -> StoredMessage:
    body = b'{"id": "e-1", "type": "custom.n", "payload": {}}'
    stored_at = int(when.timestamp()) * 1_000_000_000
    return StoredMessage("CUSTOM", "custom.n", 1, body, {}, stored_at)


def test_tail_of_what_no_stream_holds_says_so(nats_server: NatsServer) -> None:
    said = operate(nats_server.url, "tail", "custom.n", "--since", "1h")
    wrongly = operate(nats_server.url, "tail", "Custom..n")

    assert (said.code, wrongly.code) == (1, 2)
    assert "no stream on the server stores custom.n" in said.line
    assert "for example message.received" in wrongly.line


# --- trace --------------------------------------------------------------------------------------


async def test_trace_tells_where_an_event_is_and_who_has_had_it(nats_server: NatsServer) -> None:
    url = nats_server.url
    gate = asyncio.Event()
    begun = asyncio.Event()

    async def fail(event: Event[Any], ctx: Any) -> None:
        await ctx.publish("custom.caused", {})
        raise ValueError("no such chat")

    async def slow(event: Event[Any]) -> None:
        begun.set()
        await gate.wait()

    async with EventBus(url, name="t") as bus:
        await bus.subscribe("custom.n", fail, durable="failing", max_retries=0)
        await bus.subscribe("custom.n", _pass, durable="quick")
        await bus.subscribe("custom.n", slow, durable="slow")
        client = await plain_client(url)
        await make_consumer(client, "idle")
        await bus.publish("custom.n", {"secret": 1}, id="e-1")
        await begun.wait()
        await until(lambda: _is_settled(client, "failing-bare", "quick-bare"))

        said = operate(url, "trace", "e-1")
        told = json.loads(operate(url, "trace", "e-1", "--json").out)
        gate.set()
        await client.close()

    words = {one["handler"]: one["state"] for one in told["consumers"]}
    assert words == {
        "failing": "settled", "quick": "settled", "slow": "in flight or settled",
        "idle": "not yet delivered",
    }  # fmt: skip
    assert [one["id"] for one in told["places"]] == ["e-1"]
    assert [one["error"] for one in told["deadLetters"]] == ["no such chat"]
    assert {one["type"] for one in told["sameCorrelation"]} == {"custom.caused"}
    assert "CUSTOM #1" in said.out
    assert "dead letter #1" in said.out
    assert {one["handler"]: one["failures"] for one in told["consumers"]}["failing"] == 1
    assert "settled 1 time" in " ".join(said.out.split())
    assert "secret" not in said.out


async def make_consumer(client: Any, name: str, **options: Any) -> None:
    config = {"name": name, "durable_name": name, "ack_policy": "explicit",
              "filter_subject": "custom.n", "deliver_policy": "all", **options}  # fmt: skip
    said = await api(
        client, f"CONSUMER.CREATE.CUSTOM.{name}", {"stream_name": "CUSTOM", "config": config}
    )
    assert "error" not in said


async def _is_settled(client: Any, *names: str) -> bool:
    infos = [await consumer(client, name, "CUSTOM") for name in names]
    return all(one["ack_floor"]["stream_seq"] >= 1 for one in infos)


async def test_trace_follows_an_event_that_is_published_later_from_its_schedule_to_its_stream(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url

    async def trace(id: str) -> tuple[str, dict[str, Any]]:
        said = await asyncio.to_thread(operate, url, "trace", id)
        told = await asyncio.to_thread(operate, url, "trace", id, "--json")
        assert said.code == 0, said.err
        return " ".join(said.out.split()), json.loads(told.out)

    async with EventBus(url, name="bot") as bus:
        cause = await bus.publish("custom.question", {}, id="q-0000001")
        later = await bus.publish(
            "custom.follow_up", {}, after=3600, id="f-0000001", correlation_id=cause.id
        )
        of_cause, as_json_of_cause = await trace(cause.id)
        scheduled, as_json_scheduled = await trace("f-000000")
        soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        await bus.transport.operators.pause_consumer("OMNI_WORKER", "bot-due", soon)
        await asyncio.to_thread(operate, url, "schedules", "run-now", later.id)
        due, as_json_due = await until_found(lambda: trace(later.id), "forwarding")
        await asyncio.to_thread(operate, url, "resume", "bot-due")
        there, as_json_there = await until_found(lambda: trace(later.id), "places")
        async with bus.atomic() as tx:
            await tx.publish("custom.in_block", {}, id="b-0000001")
        committed, _ = await until_found(lambda: trace("b-0000001"), "places")

    assert "SAME CORRELATION, PUBLISHED LATER" in of_cause
    assert "bot custom.follow_up f-0000001" in of_cause
    assert [one["id"] for one in as_json_of_cause["sameCorrelationLater"]] == [later.id]
    assert "published not yet: 20" in scheduled
    assert "waits as OMNI_WORKER #1" in scheduled
    assert "q-0000001" in scheduled  # what it has the correlation of
    assert as_json_scheduled["scheduled"][0]["id"] == later.id
    assert "f-0000001 was published later, due at 20" in due
    assert "waits as OMNI_WORKER #" in due
    assert "for bot-due of bot (not yet delivered), which is paused; to resume:" in due
    [forwarding] = as_json_due["forwarding"]
    assert (forwarding["state"], forwarding["paused"]) == ("not yet delivered", True)
    assert "stored as CUSTOM #2" in there
    assert "published later, due at 20" in there
    assert "forwarded from OMNI_WORKER #" in there
    assert as_json_there["forwarding"][0]["state"] == "settled"
    assert "committed by atomic() at 20" in committed


async def until_found(
    trace: Callable[[], Awaitable[tuple[str, dict[str, Any]]]], key: str
) -> tuple[str, dict[str, Any]]:
    """Trace until something is found there."""
    found = await trace()
    while not found[1][key]:
        found = await trace()
    return found


async def test_trace_finds_what_cannot_be_read_by_its_place(nats_server: NatsServer) -> None:
    url = nats_server.url
    async with EventBus(url, name="t") as bus:
        await bus.subscribe("custom.n", _pass, durable="r1")
        client = await plain_client(url)
        await client.jetstream().publish("custom.n", b"no event")
        await until_letters(client, 1)
        await client.close()
        await bus.publish("custom.n", {}, id="e-2")

        by_letter = json.loads(operate(url, "trace", "CUSTOM:1", "--json").out)
        said = operate(url, "trace", "CUSTOM #1")
        readable = json.loads(operate(url, "trace", "CUSTOM #2", "--json").out)
        missing = operate(url, "trace", "CUSTOM #9")

    assert [one["sequence"] for one in by_letter["places"]] == [1]
    assert [one["eventId"] for one in by_letter["deadLetters"]] == ["CUSTOM:1"]
    assert "cannot be read" in said.out
    assert "dead letter #1" in said.out
    assert readable["id"] == "e-2"
    assert (missing.code, "No event CUSTOM #9" in missing.out) == (1, True)


async def test_the_eight_characters_of_an_id_that_a_log_shows_are_enough_everywhere(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url
    id = "a25d9362-7506-4d4a-a056-3b424c2bd8a9"

    async def fail(event: Event[Any]) -> None:
        raise ValueError("no such chat")

    async with EventBus(url, name="t") as bus:
        await bus.subscribe("custom.n", fail, durable="r1", max_retries=0)
        client = await plain_client(url)
        await bus.publish("custom.n", {}, id=id)
        await bus.publish("custom.other", {}, correlation_id=id)
        await until_letters(client, 1)
        await client.close()

        told = json.loads(operate(url, "trace", "a25d9362", "--json").out)
        letter = told["deadLetters"][0]["id"]
        by_letter = json.loads(operate(url, "trace", letter[:8], "--json").out)
        shown = operate(url, "dead-letters", "show", letter[:8])
        by_event = operate(url, "dead-letters", "show", "a25d9362")
        discarded = operate(url, "dead-letters", "discard", "a25d9362")
        too_short = operate(url, "trace", "a25d936")

    assert (told["id"], [one["sequence"] for one in told["places"]]) == (id, [1])
    assert [one["type"] for one in told["sameCorrelation"] if one["source"]]
    assert "custom.other" in {one["type"] for one in told["sameCorrelation"]}
    assert by_letter["id"] == letter
    assert f"dead letter  #1 in SYSTEM\nid           {letter}" in shown.out
    assert f"id           {letter}" in by_event.out
    assert "#1  discarded" in discarded.out
    assert too_short.code == 1
    assert "an id needs its first 8 characters" in " ".join(too_short.out.split())


async def test_the_events_whose_ids_begin_alike_are_listed(nats_server: NatsServer) -> None:
    url = nats_server.url

    async def fail(event: Event[Any]) -> None:
        raise ValueError("no such chat")

    async with EventBus(url, name="t") as bus:
        await bus.subscribe("custom.n", fail, durable="r1", max_retries=0)
        client = await plain_client(url)
        for number in (1, 12, 13):
            await bus.publish("custom.n", {}, id=f"order-00{number}")
        await until_letters(client, 3)
        await client.close()

        said = operate(url, "trace", "order-00")
        told = json.loads(operate(url, "trace", "order-00", "--json").out)
        whole = json.loads(operate(url, "trace", "order-001", "--json").out)
        letters = operate(url, "dead-letters", "show", "order-00")

    assert said.code == 2
    assert "3 ids begin with order-00: give more characters, or the place." in said.out
    assert "CUSTOM #2  custom.n order-0012" in said.out
    assert [one["id"] for one in told["candidates"]] == ["order-001", "order-0012", "order-0013"]
    assert (whole["id"], whole["candidates"]) == ("order-001", [])
    assert letters.code == 2
    assert "#1 (of r1), #2 (of r1), #3 (of r1): give the number" in " ".join(letters.err.split())


async def test_trace_finds_an_id_however_its_writer_escaped_it(nats_server: NatsServer) -> None:
    client = await plain_client(nats_server.url)
    async with EventBus(nats_server.url, name="t"):
        body = b'{"id": "ol\\u00e1 \\"1\\"", "type": "custom.n", "payload": {}}'
        await client.jetstream().publish("custom.n", body)
        await client.close()

    told = json.loads(operate(nats_server.url, "trace", 'olá "1"', "--json").out)

    assert [one["sequence"] for one in told["places"]] == [1]


async def test_trace_tells_of_failed_attempts_while_a_retry_waits(nats_server: NatsServer) -> None:
    async with EventBus(nats_server.url, name="t") as bus:

        async def fail(event: Event[Any]) -> None:
            raise ValueError("not yet")

        await bus.subscribe("custom.n", fail, durable="r1", retry_delay=50)
        await bus.publish("custom.n", 1, id="e-1")
        await until(lambda: _has_retried(bus))

        told = json.loads(operate(nats_server.url, "trace", "e-1", "--json").out)

    [one] = told["consumers"]
    assert (one["failures"], one["error"]) == (1, "ValueError: not yet")


async def _has_retried(bus: EventBus) -> bool:
    return bus.subscriptions[0].counts.retried == 1


def test_trace_looks_through_much_in_little_memory(
    large_server: NatsServer, tmp_path: Path
) -> None:
    last = f"event-{MANY - 1}"
    measured = measure(large_server.url, "trace", last, "--json", folder=tmp_path)
    nothing = measure(large_server.url, "trace", "no-such-event", folder=tmp_path)

    told = json.loads(measured.said.out)
    assert [(one["stream"], one["sequence"]) for one in told["places"]] == [("MESSAGE", MANY)]
    assert [one["eventId"] for one in told["deadLetters"]] == [last]
    assert told["scanned"] >= 2 * MANY
    assert nothing.said.code == 1
    assert "Look further back with --since 7d" in " ".join(nothing.said.out.split())
    assert measured.peak < least(tmp_path, "trace", last) + 8
    assert nothing.peak < least(tmp_path, "trace", last) + 8


async def test_a_work_queue_is_read_without_taking_from_it(nats_server: NatsServer) -> None:
    client = await plain_client(nats_server.url)
    await make_stream(client, "MESSAGE", "message.>", retention="workqueue")
    for number in range(40):
        subject, body = foreign_event(
            "message.received", channel="a", instance="b", id=f"e-{number:02}"
        )
        await client.jetstream().publish(subject, body)

    told = operate(nats_server.url, "tail", "message.received", "--since", "1h", "--json")
    traced = operate(nats_server.url, "trace", "e-39")
    state = (await api(client, "STREAM.INFO.MESSAGE"))["state"]
    await client.close()

    assert [json.loads(line)["id"] for line in told.out.splitlines()] == [
        f"e-{number:02}" for number in range(40)
    ]
    assert "MESSAGE #40" in traced.out
    assert state["messages"] == 40

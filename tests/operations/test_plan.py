"""`omni-worker plan`: drift is shown, mended where it is said, and never by taking from others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker import App, Event, EventBus, Settings
from omni_worker.nats_server import NatsServer
from tests.processes.support import api, consumer, make_stream, plain_client, stream_config
from tests.waiting import until

from .support import operate, table_of

HEAD = """
from omni_worker import App, Event

app = App("router")
"""

ROUTER = (
    HEAD
    + """

@app.on("message.received", "message.sent", durable="r1", ack_wait=60)
async def route(event: Event) -> None: ...


@app.on("custom.push", queue="pushers")
async def push(event: Event) -> None: ...
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(ROUTER)
    return tmp_path


def plan(url: str, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What would be done to what, as `--json` says it."""
    said = operate(url, "plan", "shop:app", "--json", *arguments, folder=folder)
    found: list[dict[str, Any]] = json.loads(said.out)
    return found


def to_do(steps: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Action, kind and name of what is not fine."""
    return {(s["action"], s["kind"], s["name"]) for s in steps if s["action"] != "fine"}


async def names(client: Client) -> list[str]:
    return list((await api(client, "STREAM.NAMES"))["streams"] or [])


async def test_on_an_empty_server_everything_is_to_be_made_and_looking_makes_nothing(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)

    said = operate(url, "plan", "shop:app", folder=folder)
    checked = operate(url, "plan", "shop:app", "--check", folder=folder)
    made = await names(client)

    assert (said.code, checked.code, made) == (0, 3, [])
    rows = [" ".join(cell.strip() for cell in row[:3]) for row in table_of(said)]
    assert "create stream MESSAGE" in rows
    assert "create consumer route (r1) on MESSAGE" in rows
    assert "later stream OMNI_WORKER" in rows
    assert "omni-worker plan shop:app --apply" in said.out
    await client.close()


async def test_applied_there_is_no_drift_and_a_worker_changes_nothing_more(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url

    applied = operate(url, "plan", "shop:app", "--apply", folder=folder)
    checked = operate(url, "plan", "shop:app", "--check", folder=folder)
    client = await plain_client(url)
    before = (await consumer(client, "r1"))["config"]
    app = App("router")

    @app.on("message.received", "message.sent", durable="r1", ack_wait=60)
    async def route(event: Event[Any]) -> None: ...

    async with app.running(transport=EventBus(url).transport):
        after = (await consumer(client, "r1"))["config"]

    assert (applied.code, checked.code) == (0, 0)
    assert "The server is as the app needs it." in applied.out
    assert "No drift" in checked.out
    assert {"OMNI_WORKER", "KV_omni-worker-notes", "KV_omni-worker-letters"} <= set(
        await names(client)
    )
    assert (await consumer(client, "router-retry", "OMNI_WORKER"))["name"] == "router-retry"
    assert after == before
    await client.close()


async def _pass(event: Event[Any]) -> None:
    pass


async def test_with_provisioning_off_apply_makes_all_that_workers_may_not(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    off = {"OMNI_WORKER_PROVISION": "off"}

    checked = operate(url, "plan", "shop:app", "--check", "--json", folder=folder, **off)
    applied = operate(url, "plan", "shop:app", "--apply", folder=folder, **off)
    again = operate(url, "plan", "shop:app", "--check", folder=folder, **off)

    drift = {one["name"] for one in json.loads(checked.out) if one["drift"]}
    assert {"OMNI_WORKER", "omni-worker-notes", "r1", "router-retry"} <= drift
    assert (checked.code, applied.code, again.code) == (3, 0, 0)


async def test_an_app_without_handlers_may_publish_later_and_all_or_none(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(HEAD)

    missing = plan(nats_server.url, tmp_path)
    applied = operate(nats_server.url, "plan", "shop:app", "--apply", folder=tmp_path)
    left = plan(nats_server.url, tmp_path, "--check")
    settings = Settings(urls=nats_server.url, provision="off")
    async with EventBus(nats_server.url, name="router", settings=settings) as bus:
        async with bus.atomic() as tx:
            await tx.publish("custom.now", {})
        scheduled = await bus.publish("custom.later", {}, after=3600)

    due = ("later", "consumer", "router-due")
    assert {due, ("later", "stream", "OMNI_WORKER")} <= to_do(missing)
    assert not any(one["drift"] for one in left), left
    assert to_do(left) == set()
    assert (applied.code, scheduled.id != "") == (0, True)


LATER = """

class Reminders:
    async def remind(self):
        await app.publish("custom.reminder", {}, after=60, key="r")

@app.on("custom.a", durable="a")
async def a(event):
    await Reminders().remind()
"""
BLOCKS = """

@app.on("custom.a", durable="a")
async def a(event):
    async with app.atomic() as tx:
        await tx.publish("custom.b", {})
"""
NEITHER = """

@app.on("custom.a", durable="a")
async def a(event, at=None):
    at = dict(after=1)
    await app.publish("custom.b", {}, channel="wa", instance="wa-1")
"""


@pytest.mark.parametrize(
    ("code", "flags"),
    [(LATER, ["allow_msg_schedules", "allow_msg_ttl"]), (BLOCKS, ["allow_atomic"]), (NEITHER, [])],
)
async def test_what_handlers_publish_later_or_in_blocks_is_planned_as_their_code_shows_it(
    nats_server: NatsServer, tmp_path: Path, code: str, flags: list[str]
) -> None:
    (tmp_path / "shop.py").write_text(HEAD + code)

    missing = plan(nats_server.url, tmp_path)
    operate(nats_server.url, "plan", "shop:app", "--apply", folder=tmp_path)
    left = plan(nats_server.url, tmp_path)
    client = await plain_client(nats_server.url)
    config = (await api(client, "STREAM.INFO.OMNI_WORKER"))["config"]
    await client.close()

    assert (("later", "consumer", "router-due") in to_do(missing)) is bool(flags)
    assert to_do(left) == set()
    every = ("allow_msg_schedules", "allow_msg_ttl", "allow_atomic")
    assert [name for name in every if config.get(name)] == flags


async def test_own_stream_of_an_older_version_is_to_keep_schedules_and_blocks(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(ROUTER)
    operate(nats_server.url, "plan", "shop:app", "--apply", folder=tmp_path)
    (tmp_path / "shop.py").write_text(HEAD)

    [own] = [one for one in plan(nats_server.url, tmp_path) if one["name"] == "OMNI_WORKER"]

    assert own["says"] == "to keep schedules, and to take several events all or none"


async def test_foreign_streams_that_cover_what_is_needed_are_no_drift(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    wide = await make_stream(client, "MESSAGE", "message.>", "chat.>", max_msgs=1_000)
    await make_stream(client, "THEIRS", "custom.>")
    operate(url, "plan", "shop:app", "--apply", folder=folder)

    steps = plan(url, folder)
    checked = operate(url, "plan", "shop:app", "--check", folder=folder)

    assert ("foreign", "stream", "MESSAGE") in to_do(steps)
    assert ("foreign", "stream", "CUSTOM") in to_do(steps)
    assert checked.code == 0
    assert await stream_config(client, "MESSAGE") == wide
    assert "CUSTOM" not in await names(client)
    await client.close()


async def test_a_subject_that_lacks_is_added_to_the_server_s_own_configuration(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    standing = await make_stream(
        client, "MESSAGE", "message.received.>", "chat.>", max_msgs=1_000, description="theirs"
    )

    shown = plan(url, folder)
    applied = operate(url, "plan", "shop:app", "--apply", folder=folder)
    updated = await stream_config(client, "MESSAGE")

    assert ("update", "stream", "MESSAGE") in to_do(shown)
    assert applied.code == 0
    assert sorted(updated.pop("subjects")) == ["chat.>", "message.>"]
    standing.pop("subjects")
    assert updated == standing
    await client.close()


async def test_what_is_in_the_way_is_a_conflict_and_stays(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    await make_stream(client, "THEIRS", "message.received.>")
    await make_stream(client, "OTHERS", "media.processed.>")
    config = {"name": "r1", "durable_name": "r1", "ack_policy": "none"}
    steps = plan(url, folder)

    applied = operate(url, "plan", "shop:app", "--apply", folder=folder)
    await api(client, "CONSUMER.CREATE.THEIRS.r1", {"stream_name": "THEIRS", "config": config})
    foreign = operate(url, "plan", "shop:app", "--check", folder=folder)

    assert ("conflict", "stream", "MESSAGE") in to_do(steps)
    assert ("note", "stream", "MEDIA") in to_do(steps)  # no handler needs it
    assert applied.code == 1
    assert "To be resolved by hand" in applied.out
    assert "THEIRS holds message.received.>" in " ".join(applied.out.split())
    assert foreign.code == 3
    assert "MESSAGE" not in await names(client)
    await client.close()


async def test_another_app_s_durable_is_a_conflict(nats_server: NatsServer, folder: Path) -> None:
    url = nats_server.url
    async with EventBus(url, name="somebody") as bus:
        await bus.subscribe("message.sent", _pass, durable="r1")

        steps = plan(url, folder)
        applied = operate(url, "plan", "shop:app", "--apply", folder=folder)
        info = await bus.transport.operators.consumer_info("MESSAGE", "r1")

    assert ("conflict", "consumer", "r1") in to_do(steps)
    assert applied.code == 1
    assert info is not None
    assert info.config.filters == ("message.sent.>",)


async def test_options_are_updated_and_filters_narrowed_though_somebody_reads(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with EventBus(url, name="router") as bus:
        await bus.subscribe("message.*", _pass, durable="r1")
        await bus.subscribe("custom.old", _pass, durable="left")
        await until(lambda: _is_read(bus))

        steps = plan(url, folder)
        shown = operate(url, "plan", "shop:app", folder=folder)
        applied = operate(url, "plan", "shop:app", "--apply", folder=folder)
        info = await bus.transport.operators.consumer_info("MESSAGE", "r1")

    updates = {one["name"]: one["says"] for one in steps if one["action"] == "update"}
    assert set(updates) == {"r1", "r1-bare"}
    assert all("ack_wait 30 s, wanted 60 s" in says for says in updates.values())
    assert "filter_subjects message.*.>, wanted message.received.>" in updates["r1"]
    assert "filter_subjects message.*, wanted message.received" in updates["r1-bare"]
    assert ("left", "consumer", "left") in to_do(steps)
    rows = [" ".join(cell.strip() for cell in row[:3]) for row in table_of(shown)]
    assert [row for row in rows if "orphaned" in row] == [
        "orphaned consumer _pass (left) on CUSTOM"
    ]
    assert "omni-worker consumers rm left" in " ".join(shown.out.split())
    assert "rm left-bare" not in shown.out
    assert {name for action, _, name in to_do(steps) if action == "left"} == {"left", "left-bare"}
    assert applied.code == 0
    assert info is not None
    assert info.config.ack_wait == 60
    assert "message.*.>" not in info.config.filters


async def _is_read(bus: EventBus) -> bool:
    info = await bus.transport.operators.consumer_info("MESSAGE", "r1")
    return info is not None and info.num_waiting > 0


async def test_recreate_tells_what_comes_again_and_starts_at_the_ack_floor(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with EventBus(url, name="router") as bus:

        async def fail_the_third(event: Event[Any]) -> None:
            if event.payload == 3:
                raise ValueError("not yet")

        (folder / "shop.py").write_text(
            HEAD + '\n\n@app.on("custom.push", durable="p")\nasync def push(event: Event): ...\n'
        )
        await bus.subscribe("custom.push", fail_the_third, durable="p", retry_delay=50)
        for number in range(1, 11):
            await bus.publish("custom.push", number)
        await until(lambda: _handled(bus, 9))

        read = operate(url, "plan", "shop:app", "--recreate", "p", "--yes", folder=folder)
        await bus.drain()
        asked = operate(url, "plan", "shop:app", "--recreate", "push", folder=folder)
        before = await bus.transport.operators.consumer_info("CUSTOM", "p-bare")
        done = operate(url, "plan", "shop:app", "--recreate", "p", "--yes", folder=folder)
        seen: list[int] = []
        await bus.subscribe("custom.push", lambda event: seen.append(event.payload), durable="p")
        await until(lambda: _enough(seen))

    assert (read.code, asked.code, done.code) == (1, 2, 0)
    assert "is read right now" in read.line
    assert "stop its workers first" in read.line
    assert "Recreate push (p) on CUSTOM?" in asked.line
    assert "add --yes" in asked.line
    assert before is not None
    assert before.ack_floor == 2
    assert "would start at #3" in done.out
    assert "7 events acknowledged above its ack floor: they would come again" in done.out
    assert "0 events not delivered yet, and 1 event not acknowledged yet" in done.out
    assert "make sure that none runs" in done.out
    assert sorted(seen) == list(range(3, 11))


async def _handled(bus: EventBus, count: int) -> bool:
    counts = bus.subscriptions[0].counts
    info = await bus.transport.operators.consumer_info("CUSTOM", "p-bare")
    assert info is not None
    return counts.handled == count and info.num_ack_pending == 1


async def _enough(seen: list[int]) -> bool:
    return len(seen) >= 8


async def test_recreate_refuses_what_is_not_this_app_s(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with EventBus(url, name="somebody") as bus:
        await bus.subscribe("message.sent", _pass, durable="r1")

    foreign = operate(url, "plan", "shop:app", "--recreate", "r1", "--yes", folder=folder)
    unknown = operate(url, "plan", "shop:app", "--recreate", "r2", "--yes", folder=folder)

    assert (foreign.code, unknown.code) == (1, 2)
    assert "belongs to the app 'somebody'" in foreign.line
    assert "no handler is called r2; the handlers are route (r1)" in unknown.line


def test_a_type_that_looks_misspelt_is_a_note_and_no_drift(
    nats_server: NatsServer, folder: Path
) -> None:
    (folder / "shop.py").write_text(ROUTER.replace("message.sent", "message.recieved"))
    operate(nats_server.url, "plan", "shop:app", "--apply", folder=folder)

    said = operate(nats_server.url, "plan", "shop:app", "--check", folder=folder)

    assert said.code == 0
    assert "did you mean message.received?" in " ".join(said.out.split())


async def test_applied_as_json_each_step_says_whether_it_was_done(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    client = await plain_client(url)
    await make_stream(client, "THEIRS", "custom.mine.>")
    await client.close()

    applied = operate(url, "plan", "shop:app", "--apply", "--json", folder=folder)

    told = json.loads(applied.out)
    done = {one["name"]: one["done"] for one in told["steps"]}
    assert applied.code == 1
    assert done["MESSAGE"] is True
    assert done["r1"] is True
    assert {one["name"] for one in told["left"]} >= {"CUSTOM"}
    assert all(one["error"] is None for one in told["steps"])


async def test_a_new_consumer_is_recreated_where_it_began_and_runs_no_history(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with EventBus(url, name="router") as bus:
        for number in range(5):
            await bus.publish("message.sent", _sent(number))
        operate(url, "plan", "shop:app", "--apply", folder=folder)  # r1 starts from new
        for number in range(2):
            await bus.publish("message.sent", _sent(number))

        done = operate(url, "plan", "shop:app", "--recreate", "r1", "--yes", "--json",
                       folder=folder)  # fmt: skip
        info = await bus.transport.operators.consumer_info("MESSAGE", "r1-bare")

    assert [json.loads(line) for line in done.out.splitlines()] == [
        {
            "stream": "MESSAGE", "consumer": name, "start": 6, "waiting": waiting, "unacked": 0,
            "repeated": 0, "takesOver": None,
        }
        for name, waiting in (("r1-bare", 2), ("r1", 0))
    ]  # fmt: skip
    assert info is not None
    assert info.num_pending == 2


def _sent(number: int) -> dict[str, Any]:
    return {
        "externalId": str(number), "chatId": "c", "to": "ana",
        "content": {"type": "text", "text": "hello"},
    }  # fmt: skip


def test_called_wrongly_is_told(nats_server: NatsServer, folder: Path) -> None:
    both = operate(nats_server.url, "plan", "shop:app", "--check", "--apply", folder=folder)
    missing = operate(nats_server.url, "plan", "nowhere:app", folder=folder)

    assert (both.code, missing.code) == (2, 2)
    assert "give one of them" in both.line
    assert "no such module" in missing.line


async def test_a_stream_that_copies_is_planned_as_a_worker_makes_it(
    nats_server: NatsServer, folder: Path
) -> None:
    (folder / "shop.py").write_text(
        HEAD
        + """
app.registry.register("custom.order", stream="ORDERS")


@app.on("custom.order", durable="orders", start_from="first")
async def order(event: Event) -> None: ...
"""
    )
    url = nats_server.url

    steps = plan(url, folder)
    applied = operate(url, "plan", "shop:app", "--apply", folder=folder)
    checked = operate(url, "plan", "shop:app", "--check", folder=folder)
    client = await plain_client(url)
    copied = await stream_config(client, "ORDERS")
    await client.close()

    assert ("create", "stream", "ORDERS") in to_do(steps)
    assert ("create", "consumer", "orders") in to_do(steps)
    assert (applied.code, checked.code) == (0, 0)
    assert [one["filter_subject"] for one in copied["sources"]] == [
        "custom.order",
        "custom.order.>",
    ]


async def test_two_who_apply_at_once_both_end_well(nats_server: NatsServer, folder: Path) -> None:
    url = nats_server.url

    both = await asyncio.gather(
        *(
            asyncio.to_thread(operate, url, "plan", "shop:app", "--apply", folder=folder)
            for _ in range(2)
        )
    )

    assert [one.code for one in both] == [0, 0]

"""`omni-worker audit`: every event of a handler is accounted for, and what is not is reported."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from omni_worker import EventBus
from omni_worker.cli.tables import moment
from omni_worker.nats_server import NatsServer
from omni_worker.notes import attempts
from omni_worker.notes.ledger import account_key, read_account, write_account
from omni_worker.topology import origin_of
from omni_worker.transports.base import Operators
from tests.processes.support import Stage, plain_client
from tests.waiting import until

from .support import Said, operate, table_of

APP = """
app = App("shop")

@app.on("custom.order", "custom.refund", durable="orders", max_retries=0, ack_wait=2)
async def order(event):
    effect("began", id=event.id)
    while event.id == "stuck" and not os.path.exists("go"):
        await asyncio.sleep(0.01)
    effect("handled", id=event.id)
    if event.id.startswith("bad"):
        raise Reject("no")

@app.on("custom.>", durable="all")
async def everything(event):
    pass
"""


def audited(server: NatsServer, folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and the line of each handler."""
    said = operate(
        server.url, "audit", "play:app", "--json", *arguments, folder=folder,
        EFFECTS=str(folder / "more"), WORKER="audit",
    )  # fmt: skip
    return said.code, {one["handler"]: one for one in json.loads(said.out)}


def counts(line: dict[str, Any]) -> tuple[int, ...]:
    names = ("published", "handled", "deadLetters", "inHand", "waiting", "unaccounted")
    return tuple(line[name] for name in names)


def told(server: NatsServer, folder: Path) -> Said:
    """Return the text of the command."""
    return operate(server.url, "audit", "play:app", folder=folder, EFFECTS="e", WORKER="w")


async def settle_elsewhere(server: NatsServer, id: str) -> None:
    """Publish an event of `orders` that another program acknowledges."""
    await publish(server, id)
    client = await plain_client(server.url)
    stolen = await client.jetstream().pull_subscribe_bind("orders-bare", "CUSTOM")
    for message in await stolen.fetch(1, timeout=5):
        await message.ack_sync()
    await client.close()


async def publish(server: NatsServer, *ids: str, type: str = "custom.order", **to: str) -> None:
    async with EventBus(server.url, name="publisher") as bus:
        for id in ids:
            await bus.publish(type, id=id, **to)


async def test_every_event_is_accounted_for_right_after_the_last_one(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        target = stage.app(APP)
        await publish(nats_server, "before", "before-too")
        await stage.run(target, audit="on")
        await stage.run(target, audit="on")
        await publish(nats_server, *(f"ok-{n}" for n in range(40)))
        await publish(nats_server, *(f"wa-{n}" for n in range(20)), channel="wa", instance="wa-1")
        await publish(nats_server, "bad-1", "bad-2", "bad-3", "stuck")
        await publish(nats_server, "other", type="custom.other")
        await stage.until_effects(64, "began")

        code, lines = audited(nats_server, tmp_path)

    assert counts(lines["orders"]) == (64, 60, 3, 1, 0, 0)
    assert counts(lines["all"]) == (65, 65, 0, 0, 0, 0)
    assert (code, lines["orders"]["firstSequence"]) == (0, 3)


async def test_what_waits_while_no_worker_runs_is_counted_and_a_good_end_notes_everything(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP), audit="on")
        await publish(nats_server, *(f"ok-{n}" for n in range(10)))
        await stage.until_effects(10, "handled")
        await worker.stop()
        await publish(nats_server, *(f"later-{n}" for n in range(5)))

        code, lines = audited(nats_server, tmp_path)

    assert (code, counts(lines["orders"])) == (0, (15, 10, 0, 0, 5, 0))


async def test_what_is_published_later_waits_until_it_is_forwarded(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        await stage.run(stage.app(APP), audit="on")
        async with EventBus(nats_server.url, name="publisher") as bus:
            await bus.publish("custom.order", id="ok-1")
            await stage.until_effects(1, "handled")
            for number in range(3):
                await bus.publish("custom.order", after=3600, id=f"later-{number}")
            await bus.publish("custom.other", after=3600)
            await bus.cancel((await bus.publish("custom.order", after=60)).id)
            soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
            await bus.transport.operators.pause_consumer("OMNI_WORKER", "publisher-due", soon)
            await bus.publish("custom.order", after=0, id="due")
            operators = bus.transport.operators
            await until(lambda: is_due(operators))

            code, lines = await asyncio.to_thread(audited, nats_server, tmp_path)
            said = await asyncio.to_thread(
                operate, nats_server.url, "audit", "play:app", folder=tmp_path, EFFECTS="e",
                WORKER="w",
            )  # fmt: skip
            await asyncio.to_thread(operate, nats_server.url, "resume", "publisher-due")
            await stage.until_effects(2, "handled")

            _, after = await asyncio.to_thread(audited, nats_server, tmp_path)

    assert (code, counts(lines["orders"])) == (0, (5, 1, 0, 0, 4, 0))
    assert lines["orders"]["publishedLater"] == 4
    assert counts(lines["all"]) == (6, 1, 0, 0, 5, 0)
    assert "of those waiting 4 are published later" in " ".join(said.out.split())
    assert counts(after["orders"]) == (5, 2, 0, 0, 3, 0)


async def is_due(operators: Operators) -> bool:
    info = await operators.consumer_info("OMNI_WORKER", "publisher-due")
    return info is not None and info.num_pending == 1


async def test_an_event_that_another_program_acknowledged_does_not_balance(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP), audit="on")
        await publish(nats_server, "ok-1", "ok-2")
        await stage.until_effects(2, "handled")
        await worker.stop()
        await settle_elsewhere(nats_server, "stolen")

        said = told(nats_server, tmp_path)

    assert said.code == 1
    assert "order (orders) on CUSTOM: 1 unknown: settled on the server, and no" in said.out
    assert "everything" not in said.out.partition("1 unknown")[2]
    assert [row[-1] for row in table_of(said)][:2] == ["1", "0"]
    assert said.out.endswith("\n1 event is not accounted for.\n")


async def test_a_killed_worker_explains_what_it_did_not_note(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP), audit="on")
        await publish(nats_server, "ok-1", "ok-2", "ok-3")
        await stage.until_effects(3, "handled")
        async with EventBus(nats_server.url, name="looker") as bus:
            look = bus.transport.operators.consumer_info

            async def is_settled() -> bool:
                info = await look("CUSTOM", "orders-bare")
                return info is not None and info.ack_floor == 3

            await until(is_settled)
        worker.signal(signal.SIGKILL)
        await worker.exit()

        code, lines = audited(nats_server, tmp_path)

    line = lines["orders"]
    assert code == 0
    assert line["published"] == line["handled"] + line["unaccounted"] == 3
    assert line["unaccounted"] in range(4)
    assert not line["unaccounted"] or line["killed"][0].endswith(f"pid {worker.pid}")


async def test_unknown_events_of_a_killed_worker_are_in_the_table_and_the_last_line(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP), audit="on")
        await publish(nats_server, "ok-1")
        await stage.until_effects(1, "handled")
        await worker.stop()
        await settle_elsewhere(nats_server, "stolen")
        await enter(nats_server, {"long-ago pid 1": -3_600.0, "just pid 2": 0.0})

        code, lines = audited(nats_server, tmp_path)
        said = await asyncio.to_thread(told, nats_server, tmp_path)
        await enter(nats_server, {"long-ago pid 1": -3_600.0})
        without = await asyncio.to_thread(told, nats_server, tmp_path)

    unknown = lines["orders"]["unaccounted"]
    assert (code, said.code, unknown) == (0, 0, 1)
    assert lines["orders"]["killed"] == ["just pid 2"]
    assert table_of(said)[0][-1] == str(unknown)
    words = " ".join(said.out.split())
    assert f"up to {unknown} unknown: killed without a last note: just pid 2 1 event" in words
    last = "1 event is unknown, which last notes of killed workers may explain."
    assert said.out.splitlines()[-1] == last
    assert (without.code, without.out.splitlines()[-1]) == (1, "1 event is not accounted for.")


async def enter(server: NatsServer, writers: dict[str, float]) -> None:
    """Let the account of `orders` have these writers, alive so many seconds from now."""
    async with EventBus(server.url, name="enter") as bus:
        transport = bus.transport
        (stream,) = [one for one in await transport.operators.streams() if one.name == "CUSTOM"]
        info = await transport.operators.consumer_info("CUSTOM", "orders-bare")
        assert info is not None
        origin = f"{stream.created}.orders-bare.{origin_of(info)}"
        notes = await transport.bucket(attempts.BUCKET, ttl=attempts.TTL)
        key = account_key("orders", "CUSTOM", origin)
        entry = await notes.get(key)
        assert entry is not None
        account = read_account(entry.value)
        assert account is not None
        entered = {name: time.time() + ago for name, ago in writers.items()}
        value = write_account(replace(account, writers=entered))
        assert await notes.update(key, value, entry.revision) is not None


async def test_an_account_that_begins_later_says_when_and_what_is_older(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP))
        await publish(nats_server, "ok-1", "ok-2", "ok-3")
        await stage.until_effects(3, "handled")
        await worker.stop()
        await stage.run(stage.app(APP), audit="on")
        await publish(nats_server, "ok-4")
        await stage.until_effects(4, "handled")

        said = await asyncio.to_thread(told, nats_server, tmp_path)
        code, lines = audited(nats_server, tmp_path)

    assert (code, counts(lines["orders"])) == (0, (1, 1, 0, 0, 0, 0))
    assert lines["orders"]["olderThanAccount"] == 3
    began = datetime.fromisoformat(lines["orders"]["accountBegan"])
    assert datetime.now(UTC) - began < timedelta(minutes=5)
    words = " ".join(said.out.split())
    assert f"order (orders) on CUSTOM: its account begins at {moment(began)}, and" in words
    assert "3 older events are not in it" in words
    assert words.endswith("is accounted for, from where each account begins.")


async def test_without_an_account_it_names_the_setting(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        worker = await stage.run(stage.app(APP))
        await worker.stop()

        said = operate(
            nats_server.url, "audit", "play:app", folder=tmp_path, EFFECTS="e", WORKER="w"
        )

    assert said.code == 1
    assert "no account: its workers do not run with OMNI_WORKER_AUDIT=on" in " ".join(
        said.out.split()
    )


@pytest.mark.parametrize("since", ["1s", "7d"])
async def test_the_window_begins_where_it_is_asked_to_but_not_above_what_is_open(
    tmp_path: Path, nats_server: NatsServer, since: str
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        await stage.run(stage.app(APP), audit="on")
        await publish(nats_server, "stuck", "ok-1", "ok-2")
        await stage.until_effects(2, "handled")

        code, lines = audited(nats_server, tmp_path, "--since", since)

    assert (code, counts(lines["orders"])) == (0, (3, 2, 0, 1, 0, 0))


LATER = """
app = App("shop")

@app.on("custom.order", durable="orders", max_retries=1)
async def order(event, ctx):
    effect("began", id=event.id)
    if event.id.startswith("later"):
        raise Retry(after=3600)
    if event.id.startswith("soon") and ctx.attempt == 1:
        raise Retry(after=1)
    if event.id.startswith("bad"):
        raise Retry(after=1)
    effect("handled", id=event.id)
"""


async def test_events_that_wait_for_a_long_retry_are_in_hand_and_balance(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    with Stage(tmp_path, nats_server.url) as stage:
        await stage.run(stage.app(LATER), audit="on", long_retry=1)
        await publish(nats_server, "ok-1", "later-1", "later-2", "soon-1", "bad-1")
        await stage.until_effects(7, "began")
        await stage.until_effects(2, "handled")

        code, lines = audited(nats_server, tmp_path)
        said = operate(nats_server.url, "status", folder=tmp_path)

    assert (code, counts(lines["orders"])) == (0, (5, 2, 1, 2, 0, 0))
    assert lines["orders"]["longRetries"] == 2
    assert "2 events wait for a long retry of orders on CUSTOM, in schedules." in said.out

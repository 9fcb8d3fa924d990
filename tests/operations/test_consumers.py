"""`omni-worker consumers`: what is left behind is listed, and removed only after it is clear."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker import Event, EventBus
from omni_worker.errors import TopologyError
from omni_worker.nats_server import NatsServer
from omni_worker.operations.removal import look_at_removals, remove
from tests.processes.support import api, make_stream, plain_client
from tests.waiting import until

from .support import Terminal, lines_of, operate, table_of

NOW = """
from omni_worker import App, Event

app = App("router")


@app.on("message.received", durable="r1")
async def route(event: Event) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(NOW)
    return tmp_path


async def _pass(event: Event[Any]) -> None:
    pass


async def _leave_behind(url: str) -> None:
    """Leave the consumers of an older version: three events wait for the one of `old`."""
    async with EventBus(url, name="router") as bus:
        await bus.subscribe("message.received", _pass, durable="r1")
        await bus.subscribe("custom.old", _pass, durable="old")
    async with EventBus(url, name="other") as bus:
        await bus.subscribe("custom.else", _pass, durable="theirs")
        for number in range(3):
            await bus.publish("custom.old", number)


async def _names(client: Client) -> set[str]:
    found = [await api(client, f"CONSUMER.NAMES.{one}") for one in ("CUSTOM", "MESSAGE")]
    return {name for one in found for name in one["consumers"] or []}


async def test_an_app_s_orphaned_consumers_are_listed_and_removed_with_what_waits(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    await _leave_behind(url)

    every = await asyncio.to_thread(operate, url, "consumers", "list")
    listed = await asyncio.to_thread(operate, url, "consumers", "list", "shop:app", folder=folder)
    arguments = ("consumers", "rm", "--app", "shop:app", "--yes")
    removed = await asyncio.to_thread(operate, url, *arguments, folder=folder)
    again = await asyncio.to_thread(operate, url, *arguments, folder=folder)
    async with await plain_client(url) as client:
        names = await _names(client)

    assert {row[1].strip() for row in table_of(every)} == {
        "old", "old-bare", "r1", "r1-bare", "theirs", "theirs-bare",
    }  # fmt: skip
    rows = [[cell.strip() for cell in row] for row in table_of(listed)]
    assert rows == [
        ["CUSTOM", "old", "router", "0", "0", "-", "0"],
        ["CUSTOM", "old-bare", "router", "3", "0", "-", "0"],
    ]
    text = " ".join(removed.out.split())
    assert removed.code == 0
    lost = "3 events not delivered yet would not come to this handler any longer"
    assert f"Consumer old-bare on CUSTOM of router: {lost}; CUSTOM keeps them." in text
    assert "Consumer old on CUSTOM of router: no event waits for it." in text
    assert "Removed consumer old on CUSTOM." in text
    assert names == {"r1", "r1-bare", "theirs", "theirs-bare"}
    assert (again.code, again.out) == (0, "There is no orphaned consumer.\n")


async def test_a_consumer_that_a_process_reads_stays_unless_forced(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with EventBus(url, name="router") as bus:
        await bus.subscribe("message.received", _pass, durable="r1", channel="whatsapp")
        await until(lambda: _is_read(bus))

        refused = await asyncio.to_thread(operate, url, "consumers", "rm", "r1", "--yes")
        before = await bus.transport.operators.consumer_info("MESSAGE", "r1")
        forced = await asyncio.to_thread(
            operate, url, "consumers", "rm", "r1", "--yes", "--force", "--json"
        )
        assert before is not None
        await until(lambda: _is_another(bus, before.created))  # its worker recreates it

    assert refused.code == 1
    said = " ".join(refused.err.split())
    assert "consumer r1 on MESSAGE is read right now" in said
    assert "stop its worker first" in said
    assert forced.code == 0
    [line] = lines_of(forced)
    assert (line["consumer"], line["removed"]) == ("r1", True)
    assert line["readers"]


async def _is_read(bus: EventBus) -> bool:
    info = await bus.transport.operators.consumer_info("MESSAGE", "r1")
    return info is not None and info.num_waiting > 0


async def _is_another(bus: EventBus, created: int) -> bool:
    info = await bus.transport.operators.consumer_info("MESSAGE", "r1")
    return info is not None and info.created != created


async def test_nothing_is_removed_without_a_yes(nats_server: NatsServer, folder: Path) -> None:
    url = nats_server.url
    await _leave_behind(url)

    unasked = await asyncio.to_thread(operate, url, "consumers", "rm", "old")
    nameless = await asyncio.to_thread(operate, url, "consumers", "rm")
    async with await plain_client(url) as client:
        names = await _names(client)

    assert unasked.code == 2
    assert "Remove 2 consumers? There is no terminal to ask on: add --yes" in " ".join(
        unasked.err.split()
    )
    assert nameless.code == 2
    assert {"old", "old-bare"} <= names


async def test_another_program_s_consumer_and_a_declared_one_are_not_found(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    await _leave_behind(url)
    async with await plain_client(url) as client:
        config = {"durable_name": "foreign", "ack_policy": "explicit"}
        await api(
            client, "CONSUMER.DURABLE.CREATE.CUSTOM.foreign",
            {"stream_name": "CUSTOM", "config": config},
        )  # fmt: skip

        foreign = await asyncio.to_thread(operate, url, "consumers", "rm", "foreign", "--yes")
        declared = await asyncio.to_thread(
            operate, url, "consumers", "rm", "r1", "--app", "shop:app", "--yes", folder=folder
        )
        names = await _names(client)

    assert foreign.code == 1
    assert "no consumer of ours is named foreign" in " ".join(foreign.err.split())
    assert declared.code == 1
    assert "there is old" in " ".join(declared.err.split())
    assert {"foreign", "r1", "r1-bare"} <= names


async def test_a_stream_that_keeps_events_for_its_consumers_is_named(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with await plain_client(url) as client:
        await make_stream(client, "CUSTOM", "custom.>", retention="interest")
    await _leave_behind(url)

    arguments = ("consumers", "rm", "old", "--yes")
    removed = await asyncio.to_thread(operate, url, *arguments)

    assert removed.code == 0
    said = " ".join(removed.out.split())
    assert "CUSTOM deletes events that no other consumer waits for" in said


async def test_a_consumer_that_is_recreated_between_question_and_answer_stays(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url
    await _leave_behind(url)
    async with EventBus(url, name="looker") as bus:
        operators = bus.transport.operators
        info = await operators.consumer_info("CUSTOM", "old")
        assert info is not None
        [removal] = await look_at_removals(bus.transport, [info])
        await operators.delete_consumer("CUSTOM", "old")
        await operators.create_consumer("CUSTOM", info.config.raw)

        with pytest.raises(TopologyError, match="was recreated just now"):
            await remove(operators, removal)
        is_there = await operators.consumer_info("CUSTOM", "old") is not None

    assert is_there


async def test_what_an_app_reads_for_itself_is_explained_and_removed_only_by_force(
    nats_server: NatsServer, folder: Path
) -> None:
    url = nats_server.url
    async with EventBus(url, name="router") as bus:
        await bus.publish("custom.late", 1, after=3600)

    listed = await asyncio.to_thread(operate, url, "consumers", "list")
    orphaned = await asyncio.to_thread(operate, url, "consumers", "list", "shop:app", folder=folder)
    refused = await asyncio.to_thread(operate, url, "consumers", "rm", "router-due", "--yes")
    async with EventBus(url, name="looker") as bus:
        stays = await bus.transport.operators.consumer_info("OMNI_WORKER", "router-due")
    forced = await asyncio.to_thread(
        operate, url, "consumers", "rm", "router-due", "--yes", "--force"
    )

    why = (
        "router-due belongs to no handler: it publishes the events of router that are due (after=,"
        " at=, crons), and atomic() blocks"
    )
    assert f"{why}." in " ".join(listed.out.split())
    assert "No orphaned consumer of router" in " ".join(orphaned.out.split())
    assert (refused.code, stays is not None) == (1, True)
    assert (
        f"omni-worker: {why}; it stays as long as the app is used. If nothing uses router any"
        " longer, --force removes it"
    ) == " ".join(refused.err.split())
    assert (forced.code, "Removed consumer router-due" in forced.out) == (0, True)


def test_a_person_is_asked_and_may_say_no(nats_server: NatsServer, folder: Path) -> None:
    asyncio.run(_leave_behind(nats_server.url))
    with Terminal(nats_server.url, folder, "consumers", "rm", "old") as terminal:
        terminal.until("Remove 2 consumers? [y/N]")
        terminal.type("n\n")
        code = terminal.ended()

    assert code == 1
    assert "Nothing was removed." in terminal.shown

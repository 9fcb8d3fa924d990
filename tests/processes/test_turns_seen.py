"""Turns as people see them: `status` and the handler's page name the process that is active."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker.dashboard import dashboard
from omni_worker.nats_server import NatsServer
from omni_worker.operations.processes import HandlerActivity, WorkerProcess
from omni_worker.operations.turns import Turn, with_processes
from omni_worker.settings import Settings
from omni_worker.transports.jetstream import JetStreamTransport
from tests.cli.support import call
from tests.dashboard.support import Browser

from ..waiting import until
from .support import Stage
from .test_turns import app, publishing, turn_of


async def status(stage: Stage, *arguments: str) -> str:
    """Return what `status` prints now."""
    said = await asyncio.to_thread(
        call, "status", *arguments, folder=stage.folder, NATS_URL=stage.url
    )
    assert said.code == 0, said
    return said.out


async def turn(stage: Stage) -> dict[str, Any]:
    """The turn of the only consumer."""
    every = json.loads(await status(stage, "--json"))["consumers"]
    [found] = [one["turn"] for one in every if one["consumer"] == "r1"]
    assert isinstance(found, dict)
    return found


async def test_the_active_process_is_named_and_the_next_one_after_its_stop(
    stage: Stage, plain: Client
) -> None:
    module = app(stage)
    workers = [await stage.run(module) for _ in range(3)]
    before = await turn(stage)
    async with publishing(plain):
        active = await turn_of(stage, workers)
        first = await turn(stage)
        text = await status(stage)
        workers.remove(active)
        await active.stop()
        others = {one.pid for one in workers}

        async def is_next() -> bool:
            return {one["pid"] for one in (await turn(stage))["active"]} <= others

        await until(is_next)
        later = await turn(stage)

    assert (before["active"], before["taken"], before["standby"]) == ([], False, 3)
    assert ([one["pid"] for one in first["active"]], first["standby"]) == ([active.pid], 2)
    assert "r1 on CUSTOM is active in" in text
    assert f"pid {active.pid})" in text.replace("\n", " ")
    assert "2 others stand by" in text.replace("\n", " ")
    assert (len(later["active"]), later["standby"]) == (1, 1)


async def test_a_killed_process_does_not_answer_until_the_next_is_served(
    stage: Stage, plain: Client
) -> None:
    module = app(stage)
    workers = [await stage.run(module) for _ in range(2)]
    async with publishing(plain):
        active = await turn_of(stage, workers)
    active.kill()

    text = (await status(stage)).replace("\n", " ")

    assert "active in a process that does not answer; 1 other stands by." in text


async def test_the_handlers_page_marks_the_active_process(
    stage: Stage, plain: Client, nats_server: NatsServer
) -> None:
    module = app(stage)
    workers = [await stage.run(module) for _ in range(2)]
    transport = JetStreamTransport(Settings(urls=(nats_server.url,)))
    await transport.open("dashboard")
    site = dashboard(transport)
    async with publishing(plain), site.router.lifespan_context(site):
        active = await turn_of(stage, workers)
        browser = Browser(site)

        async def is_named() -> bool:
            turns = (await browser.json("/handler?name=r1")).get("turns", [])
            return [one["pid"] for each in turns for one in each["active"]] == [active.pid]

        await until(is_named)
        text = (await browser.get("/handler?name=r1")).text
        await browser.client.aclose()
    await transport.close()

    assert "1 other stands by" in text
    assert text.count('class="role on">active<') == 1
    assert text.count('class="role">stands by<') == 1


def process(id: str, *, standby: bool, app: str = "shop", consumer: str = "r1") -> WorkerProcess:
    key = ("CUSTOM", consumer)
    one = HandlerActivity(name="r1", function="f", consumers=(key,), standby=(key,) * standby)
    return WorkerProcess(
        id=id, app=app, host="a", pid=1, number=2, started=datetime.now(UTC),
        version="1", handlers=(one,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("is_taken", "processes", "said"),
    [
        (True, [process("1", standby=False)], "active in a (worker 2, pid 1)"),
        (
            True, [process("1", standby=False), process("2", standby=True)],
            "active in a (worker 2, pid 1); 1 other stands by",
        ),
        (
            True, [process("1", standby=False), process("2", standby=False)],
            "active in a (worker 2, pid 1) and in a (worker 2, pid 1)",
        ),
        (True, [process("1", standby=False, app="other")], "active in a process that does not"),
        (True, [process("1", standby=False, consumer="r2")], "active in a process that does not"),
        (False, [process("1", standby=False)], "active in no process yet, the next event"),
        (False, [], "active in no process: none that answers reads it"),
    ],
)  # fmt: skip
def test_a_turn_says_who_is_active(
    is_taken: bool, processes: list[WorkerProcess], said: str
) -> None:
    turn = with_processes(Turn(is_taken=is_taken), processes, "shop", "CUSTOM", "r1")

    assert turn.shown.startswith(said)


def test_without_the_right_to_ask_nobody_is_named() -> None:
    assert Turn(is_taken=True).shown == (
        "active in one process; which one is not known, it may not be asked"
    )

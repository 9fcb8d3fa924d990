"""PM2, the real one, with the example's ecosystem file: start, reload, crash, stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client

from ..processes.support import Stage, foreign_event, plain_client, publish_foreign, repeated
from ..waiting import NotInTime, until
from .support import PM2_MISSING, Pm2, find_pm2, in_ci, is_alive

if find_pm2() is None and not in_ci():
    pytest.skip(PM2_MISSING, allow_module_level=True)  # one line for all of them

APP = """
app = App("play")


@app.on("message.received", durable="r1", start_from="new")
async def route(event):
    await asyncio.sleep(0.002)
    effect("handled", id=event.id, pid=os.getpid())
"""

SLOW = """
app = App("play")


@app.on("message.received", durable="r1")
async def route(event):
    effect("begun", id=event.id)
    await asyncio.sleep(2.5)
    effect("handled", id=event.id)
"""


async def start(pm2: Pm2, *, instances: int = 1) -> None:
    """`pm2 start` with the example; it returns when the workers have said that they are ready."""
    await asyncio.to_thread(pm2.start, instances)


@asynccontextmanager
async def client_of(played: Stage) -> AsyncIterator[Client]:
    """A foreign program on the server that PM2 runs."""
    client = await plain_client(played.url)
    try:
        yield client
    finally:
        await client.close()


def at_work(played: Stage) -> set[int]:
    """The processes that have handled something."""
    return {one["pid"] for one in played.effects("handled")}


async def test_start_returns_when_the_worker_is_ready(pm2: Pm2, played: Stage) -> None:
    played.app(APP)
    pm2.change(played.folder, listen_timeout=300_000)  # PM2 gives up waiting long after we do

    await start(pm2)

    # At once, without any waiting: a consumer that starts at what is new must be bound by now.
    async with client_of(played) as client:
        ids = await publish_foreign(client, 1)
        await played.until_effects(1, "handled")
    assert ids == played.ids()
    [app] = pm2.apps()
    assert (app["pm2_env"]["status"], app["pm2_env"]["restart_time"]) == ("online", 0)
    assert pm2.messages("warning") == []  # above all none about kill_timeout


async def test_three_instances_share_a_durable(pm2: Pm2, played: Stage) -> None:
    played.app(APP)
    await start(pm2, instances=3)

    async with client_of(played) as client:
        ids = await publish_foreign(client, 600)
        await played.until_effects(600, "handled")

    assert sorted(played.ids()) == sorted(ids)
    assert at_work(played) == pm2.pids()
    assert len(pm2.pids()) == 3


async def test_a_reload_under_load_loses_and_doubles_nothing(pm2: Pm2, played: Stage) -> None:
    played.app(APP)
    await start(pm2, instances=2)
    before = pm2.pids()

    async with client_of(played) as client:
        reloading = pm2.spawn("reload", "worker", "--parallel", "1")
        ids: list[str] = []
        while reloading.poll() is None or len(at_work(played)) < 4:  # two old, two new
            ids.append(f"load-{len(ids):05}")
            subject, body = foreign_event(
                "message.received", channel="whatsapp", instance="wa-001", id=ids[-1]
            )
            await client.jetstream().publish(subject, body)
        await played.until_effects(len(ids), "handled")

    assert reloading.returncode == 0
    assert sorted(played.ids()) == ids
    assert not before & pm2.pids()
    assert at_work(played) == before | pm2.pids()


async def test_a_crashed_worker_is_started_again(pm2: Pm2, played: Stage) -> None:
    played.app(APP)
    await start(pm2)
    [first] = pm2.pids()

    os.kill(first, signal.SIGKILL)
    await until(lambda: pm2.messages().count("ready") == 2)

    async with client_of(played) as client:
        ids = await publish_foreign(client, 20)
        await played.until_effects(20, "handled")
    assert sorted(played.ids()) == ids
    assert pm2.pids() != {first}
    assert not is_alive(first)


async def test_stopping_lets_a_handler_finish(pm2: Pm2, played: Stage) -> None:
    played.app(SLOW)
    await start(pm2)
    async with client_of(played) as client:
        [id] = await publish_foreign(client, 1)
        await played.until_effects(1, "begun")

        await asyncio.to_thread(pm2.run, "stop", "worker")

    assert played.ids() == [id]  # it slept on for longer than PM2's own 1.6 s
    assert "stopped" in pm2.messages()
    assert repeated(played.ids("begun")) == {}


async def test_a_shutdown_message_stops_it_as_well(pm2: Pm2, played: Stage) -> None:
    played.app(SLOW)
    pm2.change(played.folder, shutdown_with_message=True, kill_timeout=20_000)
    await start(pm2)
    async with client_of(played) as client:
        [id] = await publish_foreign(client, 1)
        await played.until_effects(1, "begun")

        await asyncio.to_thread(pm2.run, "stop", "worker")

    assert played.ids() == [id]
    assert any("shutdown" in message for message in pm2.messages())


async def test_a_kill_timeout_shorter_than_the_grace_is_said(pm2: Pm2, played: Stage) -> None:
    played.app(APP)
    pm2.change(played.folder, kill_timeout=None)

    await start(pm2)

    [warning] = [message for message in pm2.messages("warning") if "kill_timeout" in message]
    assert "1.6 s" in warning
    assert "kill_timeout: 35000" in warning


async def test_several_workers_under_one_pm2_process_are_ready_together(
    pm2: Pm2, played: Stage
) -> None:
    played.app(APP)
    pm2.change(played.folder, args=["run", "play:app", "--workers", "2"])

    await start(pm2)

    assert "all 2 workers are ready" in pm2.messages()
    async with client_of(played) as client:
        ids = await publish_foreign(client, 50)
        await played.until_effects(50, "handled")
        await asyncio.to_thread(pm2.run, "stop", "worker")
    assert sorted(played.ids()) == ids
    assert pm2.messages().count("stopped") == 3  # PM2 signals the whole tree, we pass it on too
    assert not [one for one in pm2.messages() if "at once" in one]


async def test_one_that_is_called_wrongly_is_not_started_again(pm2: Pm2, played: Stage) -> None:
    pm2.change(played.folder, args=["run", "nowhere:app"], wait_ready=False)

    await start(pm2)
    await until(lambda: pm2.apps()[0]["pm2_env"].get("exit_code") == 2)

    # PM2 lists it as "waiting restart" all the same; the example's pause would be 0.2 s.
    with pytest.raises(NotInTime):
        await until(lambda: pm2.apps()[0]["pm2_env"]["restart_time"] > 0, timeout=2)
    assert pm2.said("worker").count("no such module: 'nowhere'") == 1

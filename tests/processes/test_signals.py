"""Signals and forks of the process: a hangup, a print, and the children that a handler forks."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from nats.aio.client import Client

from omni_worker.process.exit_codes import INTERRUPTED
from omni_worker.process.last_resort import LATE, PROBE
from omni_worker.process.worker import SAME_SIGNAL

from ..waiting import until
from .support import Stage, Worker, consumer, publish_foreign

PRINTS = """
app = App("prints")

@app.on("message.received", durable="r1")
async def show(event):
    print('{"level": "info", "message": "printed"}')
    effect("handled", id=event.id)
"""


POOL = """
import atexit, multiprocessing
from concurrent.futures import ProcessPoolExecutor

pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
atexit.register(lambda: effect("flushed"))
app = App("pools")

@app.on("message.received", durable="r1")
async def ask(event):
    pid = await asyncio.get_running_loop().run_in_executor(pool, os.getpid)
    effect("handled", id=event.id, pid=pid)
"""


BLOCKS = """
import time

app = App("blocks")

@app.on("message.received", durable="r1")
async def block(event):
    effect("begun", id=event.id)
    time.sleep(3600)
"""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _imports(worker: Worker) -> bool:
    """Return True if the program has begun to import the framework."""
    return "pydantic_core" in Path(f"/proc/{worker.pid}/maps").read_text()


async def test_a_clean_end_runs_atexit_and_ends_a_forked_pool(stage: Stage, plain: Client) -> None:
    worker = await stage.run(stage.app(POOL))
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "handled")
    child = stage.effects("handled")[0]["pid"]

    code = await worker.stop()

    assert code == 0
    assert len(stage.effects("flushed")) == 1
    await until(lambda: not _lives(child), what="the end of the pool's process")


async def test_sigterm_ends_a_process_that_a_handler_forked(stage: Stage, plain: Client) -> None:
    await stage.run(stage.app(POOL))
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "handled")
    child = stage.effects("handled")[0]["pid"]

    os.kill(child, signal.SIGTERM)

    await until(lambda: not _lives(child), what="the end of the pool's process")


async def test_a_forked_process_does_not_hold_a_dead_workers_link(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(POOL))
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "handled")
    child = stage.effects("handled")[0]["pid"]

    worker.kill()

    try:

        async def no_pull() -> bool:
            return (await consumer(plain, "r1"))["num_waiting"] == 0

        await until(no_pull, what="no pull of the dead worker")
        assert _lives(child)
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_hangup_ends_a_worker_like_sigterm(stage: Stage) -> None:
    worker = await stage.run(stage.app(PRINTS))

    worker.signal(signal.SIGHUP)

    assert await worker.exit() == 0
    assert any("stopping: SIGHUP" in line for line in worker.messages())


async def test_a_hangup_ignored_at_the_start_stays_ignored(stage: Stage, plain: Client) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        worker = stage.spawn(stage.app(PRINTS))
    finally:
        signal.signal(signal.SIGHUP, before)
    await worker.ready()

    worker.signal(signal.SIGHUP)
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "handled")

    assert worker.is_running
    assert not any("stopping" in line for line in worker.messages())
    assert await worker.stop() == 0


async def test_a_printed_line_is_seen_before_the_worker_ends(stage: Stage, plain: Client) -> None:
    worker = stage.spawn(stage.app(PRINTS), pythonunbuffered="")
    await worker.ready()

    await publish_foreign(plain, 1)

    await until(lambda: "printed" in worker.said(), what="the printed line")
    assert worker.is_running


async def test_a_blocked_loop_ends_its_worker_after_the_grace(stage: Stage, plain: Client) -> None:
    worker = await stage.run(stage.app(BLOCKS), grace=0.5)
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "begun")

    code = await worker.stop(0.5 + LATE + PROBE + 3.0)

    assert code == INTERRUPTED
    [said] = worker.messages("error")
    assert "ended at once, what it held runs again elsewhere: the event loop is blocked" in said
    assert "by handler r1 (play.py:" in said


async def test_a_second_signal_ends_a_worker_whose_loop_is_blocked(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(BLOCKS), grace=60)
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "begun")
    begun = time.monotonic()

    worker.signal(signal.SIGINT)
    await asyncio.sleep(SAME_SIGNAL + 0.1)  # what comes within a second is the same request
    worker.signal(signal.SIGINT)
    await until(lambda: not worker.is_running, PROBE + 5.0)

    assert time.monotonic() - begun < SAME_SIGNAL + PROBE + 3.0


async def test_a_blocked_worker_does_not_keep_its_parent(stage: Stage, plain: Client) -> None:
    parent = stage.spawn(stage.app(BLOCKS), "--workers", "2", grace=0.5)
    await until(lambda: sum("ready" in said for said in parent.messages()) == 2)
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "begun")

    code = await parent.stop(0.5 + LATE + PROBE + 5.0)

    assert code == INTERRUPTED
    assert sum("ended at once" in said for said in parent.messages("error")) == 1


@pytest.mark.parametrize("request_to_stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [(), ("--workers", "2")])
async def test_a_request_to_stop_ends_a_start_at_whatever_moment(
    stage: Stage, options: tuple[str, ...], request_to_stop: signal.Signals
) -> None:
    app = stage.app(PRINTS)
    codes: list[int] = []
    said = ""
    for number in range(10):
        worker = stage.spawn(app, *options)
        if request_to_stop is signal.SIGINT:  # Python has a traceback for one at its own start
            await until(partial(_imports, worker), 10.0)
        await asyncio.sleep(number * 0.08)  # the moment in question
        worker.signal(request_to_stop)
        codes.append(await worker.exit(10.0))
        said += worker.said()

    assert set(codes) <= {0, -request_to_stop}
    assert "Traceback" not in said

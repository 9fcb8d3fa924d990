"""The scenarios: each returns in a few words what became of its events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from nats.errors import TimeoutError as NothingCame
from nats.js.api import StreamConfig

from .stage import SUBJECT, Stage, terminate

Play = Callable[[Stage], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done, and with which WORK_ settings of the workers."""

    title: str
    play: Play
    settings: dict[str, object] = field(default_factory=dict)


async def raises_once(stage: Stage) -> str:
    await stage.publish(1)
    stage.spawn()
    if await stage.until(lambda: stage.noted("ended"), timeout=15):
        first, second = (when for when, _ in stage.noted("began"))
        return f"handled by a second run, {second - first:.1f} s later"
    info = await stage.consumer()
    assert info is not None
    return "lost" if not info["num_ack_pending"] else "still waits after 15 s"


async def unreadable(stage: Stage) -> str:
    await stage.stream.publish(SUBJECT, b"\xff no event")
    await stage.publish(1)
    stage.spawn()
    assert await stage.until(lambda: stage.noted("ended"))
    await asyncio.sleep(1.0)
    info = await stage.consumer()
    assert info is not None
    deliveries = info["delivered"]["consumer_seq"] - 1
    letters = await stage.letters()
    if letters:
        return f"{deliveries} delivery, {letters} dead letter"
    fate = "lost" if not info["num_ack_pending"] else "waits"
    return f"{deliveries} {'delivery' if deliveries == 1 else 'deliveries'} in 1 s, {fate}"


async def backlog(stage: Stage) -> str:
    await stage.publish(100)
    stage.spawn()
    assert await stage.until(lambda: len(stage.noted("began")) >= 2)
    most = 0
    for _ in range(20):
        info = await stage.consumer()
        most = max(most, info["num_ack_pending"] if info else 0)
        await asyncio.sleep(0.05)
    return f"{most} of 100"


async def longer_than_ack_wait(stage: Stage) -> str:
    await stage.publish(1)
    stage.spawn()
    await stage.until(lambda: stage.noted("ended"), timeout=20)
    await asyncio.sleep(4.0)
    runs = len(stage.noted("began"))
    return f"{runs} run" if runs == 1 else f"{runs} runs"


async def sigterm(stage: Stage) -> str:
    await stage.publish(20)
    worker = stage.spawn()
    assert await stage.until(lambda: len(stage.noted("began")) >= 2)
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    terminate(worker)
    exited = await stage.until(lambda: worker.poll() is not None, timeout=40)
    took = time.monotonic() - begun
    if not exited:
        return "still running after 40 s"
    # What the next worker would get at once; what it does not get is locked for ack_wait.
    consumer = await stage.stream.pull_subscribe_bind("r1", stream="MESSAGE")
    try:
        given = len(await consumer.fetch(20, timeout=2))
    except NothingCame:
        given = 0
    locked = 20 - len(stage.noted("ended")) - given
    return f"exit {worker.returncode} after {took:.1f} s, {locked} locked"


async def server_killed(stage: Stage) -> str:
    stage.spawn()
    await stage.publish(5)
    assert await stage.until(lambda: len(stage.noted("ended")) == 5)
    gaps = []
    for round in range(3):
        stage.server.kill()
        await asyncio.sleep(1.0)
        stage.server.start()
        await stage.publish(1, first=100 + round)
        stored = time.time()
        id = f"e-{100 + round}"
        found = await stage.until(partial(_has_ended, stage, id), timeout=60)
        if not found:
            return "nothing handled within 60 s"
        gaps.append(_when(stage, id) - stored)
    return f"next event {max(0.0, sorted(gaps)[1]):.1f} s after it was stored"


async def consumer_deleted(stage: Stage) -> str:
    stage.spawn()
    await stage.publish(5)
    assert await stage.until(lambda: len(stage.noted("ended")) == 5)
    await stage.stream.delete_consumer("MESSAGE", "r1")
    gone = time.time()
    await stage.publish(1, first=100)
    if await stage.until(partial(_has_ended, stage, "e-100"), timeout=10):
        return f"made again, next event after {_when(stage, 'e-100') - gone:.2f} s"
    return "nothing handled in 10 s, not made again"


async def other_ack_wait(stage: Stage) -> str:
    worker = stage.spawn()
    await stage.publish(1)
    assert await stage.until(lambda: stage.noted("ended"))
    terminate(worker)
    await stage.until(lambda: worker.poll() is not None, timeout=40)
    stage.settings["ack_wait"] = 60
    stage.spawn()
    await stage.publish(1, first=1)
    await stage.until(partial(_has_ended, stage, "e-1"), timeout=10)
    info = await stage.consumer()
    assert info is not None
    wait = info["config"]["ack_wait"] / 1e9
    return "updated" if wait == 60 else f"ignored: it is {wait:.0f} s still"


async def tuned_stream(stage: Stage) -> str:
    tuned = StreamConfig(name="MESSAGE", subjects=["message.>"], max_age=3600.0, max_msgs=1000)
    await stage.stream.update_stream(tuned)
    stage.spawn()
    await stage.publish(1)
    await stage.until(lambda: stage.noted("ended"), timeout=20)
    answer = await stage.nats.request("$JS.API.STREAM.INFO.MESSAGE", b"", timeout=5)
    config = json.loads(answer.data)["config"]
    kept = (config["max_age"] / 1e9, config["max_msgs"]) == (3600, 1000)
    return "kept" if kept else f"overwritten: max_msgs {config['max_msgs']}"


def _has_ended(stage: Stage, id: str) -> bool:
    return any(one == id for _, one in stage.noted("ended"))


def _when(stage: Stage, id: str) -> float:
    return next(at for at, one in stage.noted("ended") if one == id)


ALL = [
    Scenario("a handler raises once", raises_once, {"fails": 1}),
    Scenario("an unreadable message", unreadable),
    Scenario("the same, FastStream with NACK_ON_ERROR", unreadable, {"nack": 1}),
    Scenario("concurrency 2, 100 waiting: unacked", backlog, {"wait": 5, "at_once": 2}),
    Scenario("handler 2.5 s, ack_wait 1 s", longer_than_ack_wait, {"wait": 2.5, "ack_wait": 1}),
    Scenario("SIGTERM, 2 of 20 running 1 s each", sigterm, {"wait": 1, "at_once": 2}),
    Scenario("server kill -9, back after 1 s", server_killed),
    Scenario("consumer deleted under it", consumer_deleted),
    Scenario("deployed again with another ack_wait", other_ack_wait),
    Scenario("a stream tuned by operations", tuned_stream, {"declares": 1}),
]

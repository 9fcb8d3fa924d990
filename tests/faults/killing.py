"""Killing: workers and the server are killed again and again while something goes on.

    python -m tests.faults.killing schedules --kills 100
    python -m tests.faults.killing rate --kills 50
    python -m tests.faults.killing blocks --kills 200
    python -m tests.faults.killing limits --kills 100

As test_killing plays it, for as long as asked. Ends with 0 when every promise was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from omni_worker import EventBus, limits
from omni_worker.errors import OmniWorkerError, PublishError
from omni_worker.nats_server import NatsServer
from omni_worker.schedules.messages import due_consumer
from omni_worker.settings import Settings

from ..ports import free_port
from ..processes.support import Worker
from ..waiting import until
from .scene import QUICK, Scene, load

EVERY = 0.02  # seconds between the due times of two events
AHEAD = 1.5  # seconds from the first to be scheduled until it is due
A_SECOND = 100  # runs, of the handler with a rate
BURST = A_SECOND
CHUNK = 2  # runs for which a process takes tokens at once

# A process that only forwards what is due, until it is killed.
FORWARDER = """
import asyncio, sys
from omni_worker import EventBus

async def main():
    async with EventBus(sys.argv[1], name="shop"):
        print("up", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def killed_in_turn(
    scene: Scene,
    app: str,
    *,
    events: int = 3_000,
    kills: int = 8,
    each: int = 200,
    died: dict[str, float] | None = None,
) -> list[str]:
    """Kill one of two workers after every ``each`` handled events; return the ids of all.

    ``died`` takes when each of them was gone.
    """
    workers: list[Worker] = [await scene.run(app), await scene.run()]
    feed = asyncio.create_task(scene.publish(events, every=0.1))
    for kill in range(kills):
        await scene.handled(each * (kill + 1), timeout=60)
        victim = random.randrange(2)
        workers[victim].kill()
        if died is not None:
            died[workers[victim].name] = time.monotonic()
        workers[victim] = scene.spawn()
    ids = await feed
    await scene.handled(len(ids), timeout=120)
    await scene.settled()
    return ids


@dataclass(frozen=True, slots=True)
class Kept:
    """Account of scheduled events: lost, early, doubled."""

    scheduled: int
    lost: list[int]
    early: list[int]
    doubled: list[int]
    latest: float  # seconds after it was due, at worst


async def schedules(server: NatsServer, kills: int) -> Kept:
    """Kill one of two forwarders, and each third time the server, while events become due."""
    due: dict[int, datetime] = {}
    count = int((AHEAD + kills * 0.6) / EVERY)
    settings = Settings(**{"urls": (server.url,), **QUICK})
    async with EventBus(name="shop", settings=settings) as bus:
        await bus.publish("custom.late", -1, after=0)  # the consumer is made
        await bus.schedules.forwarder.stop()
        await _short_ack_wait(bus)
        began = datetime.now(UTC) + timedelta(seconds=AHEAD)

        async def schedule(number: int) -> None:
            due[number] = at = began + timedelta(seconds=number * EVERY)
            while True:
                try:
                    await bus.publish("custom.late", number, at=at, id=f"late-{number}")
                except (PublishError, OmniWorkerError):
                    continue  # by the same id: it is scheduled once
                return

        async def schedule_all() -> None:
            for first in range(0, count, 50):
                await asyncio.gather(*map(schedule, range(first, min(count, first + 50))))

        writing = asyncio.create_task(schedule_all())
        forwarders = [await _forwarder(server) for _ in range(2)]
        try:
            for kill in range(kills):
                await asyncio.sleep(random.uniform(0.1, 0.6))
                if kill % 3 == 2:
                    server.kill()
                    server.start()
                else:
                    victim = random.randrange(2)
                    forwarders[victim].kill()
                    await forwarders[victim].wait()
                    forwarders[victim] = await _forwarder(server)
            await writing
            await until(lambda: _are_stored(bus, count), 60)
            await until(lambda: _is_forwarded(bus), 60)
            return await _kept(bus, due)
        finally:
            for one in forwarders:
                one.kill()
                await one.wait()


async def _forwarder(server: NatsServer) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORWARDER, server.url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **{f"OMNI_WORKER_{name.upper()}": str(QUICK[name]) for name in QUICK}},
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _short_ack_wait(bus: EventBus) -> None:
    """Otherwise what a killed process holds comes again after half a minute."""
    consumer = due_consumer(bus.name)
    operators = bus.transport.operators
    info = await operators.consumer_info(consumer.stream, consumer.name)
    assert info is not None
    await operators.update_consumer(consumer.stream, {**info.config.raw, "ack_wait": 1_000_000_000})


async def _are_stored(bus: EventBus, count: int) -> bool:
    info = await bus.transport.operators.stream_info("CUSTOM")
    return info is not None and info.state.messages >= count


async def _is_forwarded(bus: EventBus) -> bool:
    consumer = due_consumer(bus.name)
    info = await bus.transport.operators.consumer_info(consumer.stream, consumer.name)
    return info is not None and not (info.num_pending or info.num_ack_pending)


async def _kept(bus: EventBus, due: dict[int, datetime]) -> Kept:
    found: Counter[int] = Counter()
    late: dict[int, float] = {}
    info = await bus.transport.operators.stream_info("CUSTOM")
    assert info is not None
    for sequence in range(1, info.state.last_sequence + 1):
        message = await bus.transport.operators.message("CUSTOM", sequence)
        assert message is not None
        number: int = json.loads(message.body)["payload"]
        found[number] += 1
        if number in due:
            late[number] = message.stored_at / 1e9 - due[number].timestamp()
    return Kept(
        scheduled=len(due),
        lost=[one for one in due if not found[one]],
        early=[one for one, seconds in late.items() if seconds < -0.001],
        doubled=[one for one, times in found.items() if times > 1],
        latest=max(late.values()),
    )


def limited() -> str:
    """The app with a rate that all its processes share."""
    return load(work=0.01, rate=f"{A_SECOND}/s", concurrency=50)


def most_over(times: list[float], processes: int) -> float:
    """Return by how many runs the promise of a rate was broken, at worst; 0: it was kept."""
    times, worst = sorted(times), 0.0
    allowed = BURST + CHUNK * processes
    for first in range(len(times)):
        for last in range(first + BURST, len(times), 7):
            runs, seconds = last - first + 1, times[last] - times[first]
            worst = max(worst, runs - A_SECOND * seconds - allowed)
    return worst


# Each event is answered by a block and, a moment later, by one that the server kept until then.
PUBLISHING = """
app = App("router")

@app.on("message.received", durable="r1", start_from="first", concurrency=8, ack_wait=1)
async def route(event, ctx):
    effect("begun", id=event.id, attempt=ctx.attempt)
    async with app.atomic() as tx:
        for n in range({events}):
            await tx.publish("custom.part", {{"of": event.id, "n": n}})
    await app.publish("custom.late", {{"of": event.id, "n": -1}}, after=0.3)
    effect("handled", id=event.id)
"""
BLOCK = 4  # events


async def blocks(scene: Scene, *, kills: int, each: int = 30) -> dict[str, list[int]]:
    """Kill one of two workers again and again while their handlers publish in blocks and later.

    Return what of each event was published, to whatever ends twice as often as it is stored.
    """
    settings = Settings(**{"urls": (scene.server.url,), **QUICK})
    async with EventBus(name="router", settings=settings) as bus:
        await bus.schedules.outbox.prepare()
        await bus.schedules.forwarder.stop()  # the workers forward
        await _short_ack_wait(bus)
        source = PUBLISHING.format(events=BLOCK)
        ids = await killed_in_turn(scene, source, events=each * (kills + 2), kills=kills, each=each)
        found: dict[str, list[int]] = {id: [] for id in ids}
        await until(lambda: _are_stored(bus, len(ids) * (BLOCK + 1)), 60)
        await until(lambda: _is_forwarded(bus), 60)
        info = await bus.transport.operators.stream_info("CUSTOM")
        assert info is not None
        for sequence in range(1, info.state.last_sequence + 1):
            message = await bus.transport.operators.message("CUSTOM", sequence)
            assert message is not None
            payload = json.loads(message.body)["payload"]
            found[payload["of"]].append(payload["n"])
    return found


def not_whole(found: dict[str, list[int]]) -> dict[str, list[int]]:
    """Events for which something is missing, or stored twice."""
    whole = list(range(-1, BLOCK))
    return {id: numbers for id, numbers in found.items() if sorted(numbers) != whole}


PLACES = 3


def with_places() -> str:
    """The app with a rate and a limit that all its processes share."""
    return load(work=0.02, rate=f"{A_SECOND}/s", limit=PLACES, concurrency=50)


def most_at_once(effects: list[dict[str, Any]], died: dict[str, float]) -> int:
    """Return how many runs went on at once, at most; a run of a killed worker ends with it."""
    changes, open_runs = [], dict[tuple[str, str], float]()
    for one in sorted(effects, key=lambda effect: float(effect["at"])):
        run = one["worker"], one["id"]
        if one["what"] == "begun":
            open_runs[run] = one["at"]
        elif run in open_runs:
            changes += [(open_runs.pop(run), 1), (one["at"], -1)]
    for (worker, _), began in open_runs.items():
        changes += [(began, 1), (died[worker], -1)]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


async def has_no_places(bus: EventBus) -> bool:
    """Return True if no process of the handler has a place, or wants one."""
    bucket = await bus.transport.bucket(limits.BUCKET, ttl=limits.TTL)
    entry = await bucket.get("limit.router.r1")
    return entry is None or entry.value == b"[]"


async def _main(what: str, kills: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with NatsServer(port=free_port(), store=folder / "store") as server:
            if what == "schedules":
                kept = await schedules(server, kills)
                sys.stdout.write(f"{kept}\n")
                return int(bool(kept.lost or kept.early or kept.doubled))
            async with Scene(folder / "scene", server, []) as scene:
                if what == "blocks":
                    found = await blocks(scene, kills=kills)
                    await scene.ends("blocks under kills", "")
                    broken = not_whole(found)
                    sys.stdout.write(f"{len(found)} events, not whole: {broken}\n")
                    return int(bool(broken))
                died: dict[str, float] = {}
                app = with_places() if what == "limits" else limited()
                await killed_in_turn(scene, app, events=60 * kills, kills=kills, each=50, died=died)
                if what == "limits":
                    most = most_at_once(scene.stage.effects(), died)
                    await until(lambda: has_no_places(scene.bus), 30)
                    sys.stdout.write(f"{most} at once at most, of {PLACES}\n")
                    if most > PLACES:
                        return 1
                over = most_over([one["at"] for one in scene.stage.effects("begun")], kills + 2)
                account = await scene.ends("a rate under kills", "")
                sys.stdout.write(f"{len(account.handled)} handled, {over:g} too many at worst\n")
                return int(over > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["schedules", "rate", "blocks", "limits"])
    parser.add_argument("--kills", type=int, default=30)
    given = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    sys.exit(asyncio.run(_main(given.what, given.kills)))

"""Killing: workers are killed again and again while something goes on, and what is to hold then.

Pure measures of it, and the apps, are those of `lasting`, too.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any

from omni_worker import EventBus, limits
from omni_worker.errors import TransportError
from omni_worker.schedules.messages import due_consumer
from omni_worker.settings import Settings

from ..processes.support import Worker
from ..waiting import until
from .scene import QUICK, Scene, load

A_SECOND = 100  # runs, of the handler with a rate
BURST = A_SECOND
CHUNK = 2  # runs for which a process takes tokens at once


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


async def are_stored(bus: EventBus, count: int) -> bool:
    info = await bus.transport.operators.stream_info("CUSTOM")
    return info is not None and info.state.messages >= count


async def is_forwarded(bus: EventBus) -> bool:
    consumer = due_consumer(bus.name)
    try:
        info = await bus.transport.operators.consumer_info(consumer.stream, consumer.name)
    except TransportError:
        return False  # the link to a server that was killed is not back yet
    return info is not None and not (info.num_pending or info.num_ack_pending)


def limited() -> str:
    """The app with a rate that all its processes share."""
    return load(work=0.01, rate=f"{A_SECOND}/s", concurrency=50)


def most_over(times: list[float], born: Iterable[float], gone: Iterable[float] = ()) -> float:
    """Return by how many runs the promise of a rate was broken, at worst; not above 0: it was kept.

    ``born`` and ``gone`` are when processes were started, and ended: each may have a chunk beyond
    the rate, within any time in which it lived.
    """
    born, gone, worst, most = sorted(born), sorted(gone), -math.inf, -math.inf
    for number, at in enumerate(sorted(times)):
        # Of all intervals that end here the worst begins where this was greatest.
        most = max(most, A_SECOND * at - number + CHUNK * bisect_left(gone, at))
        worst = max(worst, most + number + 1 - A_SECOND * at - CHUNK * bisect_right(born, at))
    return worst - BURST


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
        source = PUBLISHING.format(events=BLOCK)
        ids = await killed_in_turn(scene, source, events=each * (kills + 2), kills=kills, each=each)
        await until(lambda: are_stored(bus, len(ids) * (BLOCK + 1)), 60)
        await until(lambda: is_forwarded(bus), 60)
        return await published_for(bus, ids)


async def published_for(bus: EventBus, ids: Iterable[str]) -> dict[str, list[int]]:
    """Return the numbers of what was published for each event, as often as it is stored."""
    found: dict[str, list[int]] = {id: [] for id in ids}
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

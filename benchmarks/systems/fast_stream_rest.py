"""FastStream at rest, as `rest` has it for omni-worker, of which it imports nothing."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import DeliverPolicy

from ..jobs import Figures, Job
from ..loads import STREAM, types_of
from .measure import Watch, memory, ready

IMPORTED = time.monotonic()
BATCH = 100


def _broker(job: Job, first: asyncio.Event) -> NatsBroker:
    broker = NatsBroker(job.url, logger=None)

    async def handle(event: dict[str, Any]) -> None:
        first.set()

    for number, type in enumerate(types_of(job.load)):
        broker.subscriber(
            f"{type}.>",
            durable=f"{job.durable}-{number}",
            stream=JStream(STREAM, declare=False),
            deliver_policy=DeliverPolicy.ALL,
            pull_sub=PullSub(batch_size=BATCH),
        )(handle)
    return broker


async def start(job: Job) -> Figures:
    """From nothing to the first event handled."""
    first = asyncio.Event()
    broker = _broker(job, first)
    await broker.start()
    subscribed = time.monotonic()
    await first.wait()
    ended, cpu = time.monotonic(), time.process_time()
    await broker.stop()
    return {"imported": IMPORTED, "subscribed": subscribed, "ended": ended, "cpu": cpu}


async def idle(job: Job) -> Figures:
    """Subscribed, with nothing to do, between two words of the runner."""
    broker = _broker(job, asyncio.Event())
    await broker.start()
    await ready()
    watch = Watch()
    await asyncio.to_thread(sys.stdin.readline)
    figures = {**watch.stop(), "memory": memory()}
    await broker.stop()
    return figures

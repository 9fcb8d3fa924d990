"""omni-worker at rest: what its start takes, and what handlers cost that have nothing to do."""

from __future__ import annotations

import asyncio
import sys
import time

from omni_worker import App, Event, Settings

from ..jobs import Figures, Job
from ..loads import types_of
from .measure import Watch, memory, ready

IMPORTED = time.monotonic()


def _app(job: Job, first: asyncio.Event) -> App:
    """As people write it: an app with its handlers."""
    app = App("benchmark", settings=Settings(urls=job.url))

    async def handle(event: Event[dict[str, object]]) -> None:
        first.set()

    for number, type in enumerate(types_of(job.load)):
        app.on(type, durable=f"{job.durable}-{number}", start_from="first")(handle)
    return app


async def start(job: Job) -> Figures:
    """From nothing to the first event handled."""
    first = asyncio.Event()
    async with _app(job, first).running():
        subscribed = time.monotonic()
        await first.wait()
        ended, cpu = time.monotonic(), time.process_time()
    return {"imported": IMPORTED, "subscribed": subscribed, "ended": ended, "cpu": cpu}


async def idle(job: Job) -> Figures:
    """Subscribed, with nothing to do, between two words of the runner."""
    async with _app(job, asyncio.Event()).running():
        await ready()
        watch = Watch()
        await asyncio.to_thread(sys.stdin.readline)
        return {**watch.stop(), "memory": memory()}

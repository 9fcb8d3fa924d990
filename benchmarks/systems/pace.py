"""The publisher of the latency runs: a steady rate, each event with the moment it was sent."""

from __future__ import annotations

import asyncio
import json
import time

from ..jobs import Figures, Job
from ..loads import body_of, payload_of, subject_of
from .measure import Watch, ready
from .nats_py import connected

TICK = 0.001  # seconds between two bursts; the loop's timers are no finer
VARIETY = 1000  # different events, sent over and over


async def latency(job: Job) -> Figures:
    """Publish ``job.rate`` events per second; ``behind`` is how late the last one was."""
    templates = [_template(job, number) for number in range(VARIETY)]
    async with connected(job) as client:
        await ready()
        watch = Watch()
        began, sent = time.monotonic(), 0
        while sent < job.load.events:
            due = min(job.load.events, int((time.monotonic() - began) * job.rate) + 1)
            for number in range(sent, due):
                subject, head, tail = templates[number % VARIETY]
                await client.publish(subject, b"%b%d%b" % (head, time.monotonic_ns(), tail))
            sent = due
            await asyncio.sleep(TICK)
        figures = watch.stop()
        await client.flush()
    return {**figures, "behind": figures["seconds"] - job.load.events / job.rate}


def _template(job: Job, number: int) -> tuple[str, bytes, bytes]:
    """Subject, and the body before and after the moment."""
    marker = "THE MOMENT"
    whole = json.loads(body_of(job.load, number))
    whole["payload"] = {**payload_of(job.load, number), "sentAt": marker}
    head, tail = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).split(f'"{marker}"')
    return subject_of(job.load, number), head.encode(), tail.encode()

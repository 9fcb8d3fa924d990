"""Drain a backlog: this worker beside a hand-written nats-py `fetch(500)` loop, in one run.

Both validate with the same model, acknowledge explicitly and read a durable pull consumer of the
same events (about 440 bytes, spread over 50 instances). Each round runs every system once, in a
process of its own. Machines are noisy: quote the ratio.

    python benchmarks/drain.py [--events 100000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import uvloop
from pydantic import BaseModel

from omni_worker import Draft, Event, EventBus, Settings
from omni_worker.server import NatsServer

INSTANCES = 50
SYSTEMS = ("omni-worker", "fetch(500)")


class Content(BaseModel):
    type: str
    text: str | None = None


class Received(BaseModel):
    externalId: str
    chatId: str
    content: Content


async def fill(url: str, events: int) -> None:
    """The backlog, published by ourselves."""
    async with EventBus(url, name="benchmark") as bus:
        for start in range(0, events, 10_000):
            await bus.publish_many(
                Draft(
                    type="message.received",
                    payload={
                        "externalId": f"ext-{number}",
                        "chatId": f"chat-{number % 1000}",
                        "from": "somebody",
                        "content": {"type": "text", "text": "a message of usual length – olá ✅"},
                    },
                    channel="whatsapp",
                    instance=f"wa-{number % INSTANCES:03d}",
                )
                for number in range(start, min(start + 10_000, events))
            )


async def drain_with_omni_worker(url: str, events: int, durable: str) -> dict[str, float]:
    """Everything on: leases, retries, bounded prefetch, settled memory; concurrency 10."""
    done = asyncio.Event()
    handled = 0

    async def handle(event: Event[Received]) -> None:
        nonlocal handled
        handled += 1
        if handled == events:
            done.set()

    async with EventBus(settings=Settings(urls=url), name="benchmark") as bus:
        started, cpu = time.perf_counter(), time.process_time()
        await bus.subscribe(
            "message.received", handle, durable=durable, start_from="first", concurrency=10
        )
        await done.wait()
        return _figures(events, started, cpu)


async def drain_with_fetch(url: str, events: int, durable: str) -> dict[str, float]:
    """What people write by hand: fetch a batch, validate, handle, acknowledge."""
    import nats
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

    model = Event[Received]
    connection = await nats.connect(url)
    stream = connection.jetstream()
    config = ConsumerConfig(
        durable_name=durable,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        max_ack_pending=65_536,
        filter_subjects=["message.received", "message.received.>"],
    )
    await stream.add_consumer("MESSAGE", config)
    subscription = await stream.pull_subscribe_bind(durable, stream="MESSAGE")

    async def handle(event: Event[Received]) -> None: ...

    handled = 0
    started, cpu = time.perf_counter(), time.process_time()
    while handled < events:
        for message in await subscription.fetch(500, timeout=5):
            await handle(model.model_validate_json(message.data))
            await message.ack()
            handled += 1
    figures = _figures(events, started, cpu)
    await connection.close()
    return figures


def _figures(events: int, started: float, cpu: float) -> dict[str, float]:
    return {
        "rate": events / (time.perf_counter() - started),
        "cpu": (time.process_time() - cpu) / events * 1e6,
    }


def run_one(system: str, url: str, events: int, durable: str) -> dict[str, float]:
    """One system in a process of its own."""
    command = [sys.executable, __file__, "--run", system, "--url", url]
    command += ["--events", str(events), "--durable", durable]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    figures: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return figures


def compare(events: int, rounds: int) -> None:
    """Every system in turn, round by round; medians and ratios."""
    results: dict[str, list[dict[str, float]]] = {system: [] for system in SYSTEMS}
    with NatsServer() as server:
        asyncio.run(fill(server.url, events))
        for turn in range(rounds):
            for number, system in enumerate(SYSTEMS):
                durable = f"bench-{turn}-{number}"
                results[system].append(run_one(system, server.url, events, durable))
    base = statistics.median(one["rate"] for one in results["fetch(500)"])
    print(f"draining {events} events over {INSTANCES} instances, medians of {rounds} rounds")
    print(f"{'':14}{'events/s':>10}{'× fetch(500)':>14}{'µs CPU/event':>14}")
    for system, figures in results.items():
        rate = statistics.median(one["rate"] for one in figures)
        cpu = statistics.median(one["cpu"] for one in figures)
        print(f"{system:14}{rate:10.0f}{rate / base:14.2f}{cpu:14.1f}")


def main() -> None:
    """Compare, or (called by itself) run one system."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--durable", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run is None:
        compare(given.events, given.rounds)
        return
    drain: Any = drain_with_omni_worker if given.run == "omni-worker" else drain_with_fetch
    print(json.dumps(uvloop.run(drain(given.url, given.events, given.durable))))


if __name__ == "__main__":
    main()

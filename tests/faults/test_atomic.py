"""Faults: a process or the server is killed around commits; no block is ever half published."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import defaultdict
from typing import Any

from omni_worker import EventBus
from omni_worker.errors import OmniWorkerError, PublishError
from omni_worker.nats_server import NatsServer
from tests.waiting import until

from .killing import is_forwarded

EVENTS = 30  # of a block

COMMITTER = """
import asyncio, sys
from omni_worker import EventBus

async def main():
    url, who, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
    async with EventBus(url, name="shop") as bus:
        await bus.schedules.forwarder.stop()
        block = 0
        while True:
            print(f"begin {who}.{block}\\n", end="", flush=True)
            async with bus.atomic() as tx:
                for number in range(events):
                    await tx.publish("custom.part", {"block": f"{who}.{block}", "n": number})
            print(f"done {who}.{block}\\n", end="", flush=True)
            block += 1

asyncio.run(main())
"""


async def parts(bus: EventBus) -> dict[str, list[int]]:
    """Return the published events of each block, each as often as it is stored."""
    found: dict[str, list[int]] = defaultdict(list)
    info = await bus.transport.operators.stream_info("CUSTOM")
    assert info is not None
    for sequence in range(1, info.state.last_sequence + 1):
        message = await bus.transport.operators.message("CUSTOM", sequence)
        if message is not None:
            payload: dict[str, Any] = json.loads(message.body)["payload"]
            found[payload["block"]].append(payload["n"])
    return found


async def test_a_process_that_is_killed_in_its_commits_leaves_no_half_block(
    nats_server: NatsServer,
) -> None:
    dice = random.Random(7)
    done: set[str] = set()
    begun: set[str] = set()
    loop = asyncio.get_running_loop()
    async with EventBus(nats_server.url, name="shop") as bus:
        await bus.schedules.outbox.prepare()

        for who in range(6):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", COMMITTER, nats_server.url, str(who), str(EVENTS),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stdout is not None
            async for line in process.stdout:
                word, block = line.decode().split()
                (done if word == "done" else begun).add(block)
                if line == f"done {who}.8\n".encode():
                    loop.call_later(dice.uniform(0, 0.05), process.kill)
            assert await process.wait() == -signal.SIGKILL

        await until(lambda: is_forwarded(bus))
        found = await parts(bus)
    halves = {block: numbers for block, numbers in found.items() if len(numbers) != EVENTS}
    assert len(done) >= 50
    assert halves == {}
    assert done <= set(found) <= begun
    assert all(sorted(numbers) == list(range(EVENTS)) for numbers in found.values())


async def test_a_server_that_is_killed_in_the_middle_leaves_no_half_block(
    nats_server: NatsServer,
) -> None:
    dice = random.Random(11)
    done: set[str] = set()
    unknown: set[str] = set()
    async with EventBus(nats_server.url, name="shop") as bus:
        is_over = asyncio.Event()

        async def commit(who: int) -> None:
            block = 0
            while not is_over.is_set():
                name, block = f"{who}.{block}", block + 1
                try:
                    async with bus.atomic(timeout=25) as tx:
                        for number in range(EVENTS):
                            await tx.publish("custom.part", {"block": name, "n": number})
                except PublishError:
                    unknown.add(name)
                except OmniWorkerError:
                    continue
                else:
                    done.add(name)

        committers = [asyncio.create_task(commit(who)) for who in range(4)]
        for _ in range(4):
            before = len(done)
            await until(lambda before=before: len(done) > before + 10)  # type: ignore[misc]
            await asyncio.sleep(dice.uniform(0, 0.05))
            nats_server.kill()
            nats_server.start()
        is_over.set()
        await asyncio.gather(*committers)
        await until(lambda: is_forwarded(bus), 40)
        found = await parts(bus)
    assert len(done) >= 44
    halves = {block: numbers for block, numbers in found.items() if len(numbers) != EVENTS}
    assert halves == {}
    assert all(sorted(numbers) == list(range(EVENTS)) for numbers in found.values())
    assert done <= set(found) <= done | unknown

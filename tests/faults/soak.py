"""Soak: random faults for as long as asked, and the account of every event at the end.

    python -m tests.faults.soak --minutes 10

Three workers share a durable, a fourth reads through a link that breaks; the server, the workers,
the link and the consumer are hurt at random. Ends with 0 when nothing was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from omni_worker.nats_server import NatsServer

from ..ports import free_port
from ..processes.support import Worker
from .accounts import Row, table
from .links import Link
from .scene import Scene, load
from .servers import pause, resume

WORKERS = 3
APP = load(work=0.002, concurrency=16, ack_wait=5)
CALM = (1.0, 4.0)  # seconds between two faults
FORGOTTEN = 0.2  # seconds: acks a server forgets that is killed
DELETED = "delete the consumer"
AT_ONCE = 500  # events, published every second


class Soak:
    """One server, its workers, and whoever hurts them."""

    def __init__(self, scene: Scene, server: NatsServer, link: Link) -> None:
        self.scene = scene
        self.server = server
        self.link = link
        self.workers: list[Worker] = []
        self.faults: list[tuple[str, float, float]] = []  # what, from when, until when

    async def start(self) -> None:
        """All workers run; the last through the link."""
        self.workers = [await self.scene.run(APP)]
        self.workers += [await self.scene.run() for _ in range(WORKERS - 1)]
        self.workers.append(await self.scene.run(url=self.link.url))

    async def hurt(self, until_then: float) -> None:
        """One fault after another."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self.kill_a_worker, self.kill_a_worker, self.stop_a_worker, self.freeze_a_worker,
            self.kill_the_server, self.kill_the_server, self.hang_the_server,
            self.cut_the_link, self.swallow_acks, self.slow_the_link, self.delete_the_consumer,
        ]  # fmt: skip
        while time.monotonic() < until_then:
            fault = random.choice(faults)
            began = time.monotonic()
            await fault()
            self.faults.append((fault.__name__.replace("_", " "), began, time.monotonic()))
            await asyncio.sleep(random.uniform(*CALM))

    def summary(self) -> str:
        """How often each fault was done, and what ended twice because of it."""
        doubles = self.doubles()
        counts = sorted(Counter(name for name, _, _ in self.faults).items())
        return "".join(
            f"{count:5} × {name:20} ended twice because of it: {doubles[name]:6}\n"
            for name, count in counts
        )

    def _replace(self, index: int) -> None:
        url = self.link.url if index == len(self.workers) - 1 else None
        self.workers[index] = self.scene.spawn(url=url)

    async def kill_a_worker(self) -> None:
        index = random.randrange(len(self.workers))
        self.workers[index].kill()
        self._replace(index)

    async def stop_a_worker(self) -> None:
        index = random.randrange(len(self.workers))
        if not self.workers[index].takes_signals():
            return  # it has only just been started
        assert await self.workers[index].stop(60) == 0
        self._replace(index)

    async def freeze_a_worker(self) -> None:
        worker = random.choice(self.workers)
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(random.choice((0.5, 7.0)))
        worker.signal(signal.SIGCONT)

    async def kill_the_server(self) -> None:
        self.server.kill()
        await asyncio.sleep(random.choice((0.0, 1.0)))
        self.server.start()

    async def hang_the_server(self) -> None:
        pause(self.server)
        await asyncio.sleep(random.choice((0.5, 2.0)))
        resume(self.server)

    async def cut_the_link(self) -> None:
        self.link.cut_after(random.randrange(100, 50_000))

    async def swallow_acks(self) -> None:
        self.link.swallows_acks = True
        await asyncio.sleep(1.0)
        self.link.swallows_acks = False

    async def slow_the_link(self) -> None:
        self.link.delay = 0.3
        await asyncio.sleep(2.0)
        self.link.delay = 0.0

    async def delete_the_consumer(self) -> None:
        await self.scene.plain.jetstream().delete_consumer("MESSAGE", "r1")

    def doubles(self) -> Counter[str]:
        """Events that ended twice, by the fault that did it."""
        ends: dict[str, list[float]] = {}
        for one in self.scene.stage.effects("handled"):
            ends.setdefault(one["id"], []).append(one["at"])
        return Counter(self._cause(sorted(times)) for times in ends.values() if len(times) > 1)

    def _cause(self, ends: list[float]) -> str:
        """What came between the two: a consumer made anew, else what was nearest to the first."""
        first, second = ends[:2]
        between = [one for one in self.faults if one[1] <= second and one[2] >= first - FORGOTTEN]
        if any(name == DELETED for name, _, _ in between):
            return DELETED
        nearest = min(
            between or self.faults, key=lambda one: max(one[1] - first, first - one[2], 0.0)
        )
        return nearest[0]

    async def feed(self, until_then: float) -> None:
        """Publish through everything."""
        while time.monotonic() < until_then:
            await self.scene.publish(AT_ONCE)
            await asyncio.sleep(1.0)


async def soak(minutes: float, folder: Path) -> bool:
    """Run it; says whether nothing was lost."""
    rows: list[Row] = []
    until_then = time.monotonic() + minutes * 60
    with NatsServer(port=free_port(), store=folder / "store") as server:
        async with Scene(folder, server, rows) as scene, Link(server.port) as link:
            one = Soak(scene, server, link)
            await one.start()
            await asyncio.gather(one.feed(until_then), one.hurt(until_then))
            await scene.settled(timeout=300)
            try:
                await scene.ends(f"soak, {minutes:g} min, {len(one.faults)} faults")
            finally:
                sys.stdout.write(f"{table(row.cells for row in rows)}\n\n{one.summary()}")
                sys.stdout.flush()
            scene.stage.workers.clear()  # whose logs would be printed otherwise
            for worker in one.workers:
                worker.kill()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description="Random faults, and an account at the end.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="the same faults again")
    given = parser.parse_args()
    random.seed(given.seed)
    logging.getLogger("omni_worker").setLevel(logging.ERROR)  # the publisher's own troubles
    with tempfile.TemporaryDirectory(prefix="omni-worker-soak-") as folder:
        asyncio.run(soak(given.minutes, Path(folder)))


if __name__ == "__main__":
    main()

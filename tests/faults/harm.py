"""Harm: several workers of one app and their server, hurt one after the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from omni_worker.nats_server import NatsServer

from ..waiting import NotInTime
from .causes import Fault
from .hurting import Hurting, Place
from .links import Link
from .scene import Scene


class Harm(Hurting):
    """Hurt several workers of one app and their server, one fault at a time."""

    def __init__(
        self,
        scene: Scene,
        server: NatsServer,
        source: str,
        *,
        workers: int = 3,
        deploys: bool = True,
    ) -> None:
        super().__init__(scene, server, Link(server.port))  # no worker goes through it
        scene.stage.app(source)
        self.places = [Place("play") for _ in range(workers)]
        self.deploys = deploys
        self.born: dict[str, float] = {}  # by the name of a worker
        self.killed: dict[str, float] = {}
        self.stopped: dict[str, float] = {}
        self.prefers: Callable[[], str] = str  # the name of the worker to be hurt more often

    @property
    def gone(self) -> dict[str, float]:
        """Workers that were ended, and when."""
        return {**self.stopped, **self.killed}

    @property
    def kinds(self) -> list[Callable[[Fault], Awaitable[None]]]:
        """Every fault, some of them more than once."""
        fourth = self.deploy if self.deploys else self.kill_a_worker
        return [self.kill_a_worker, self.kill_a_worker, fourth, self.kill_the_server]

    async def start(self) -> None:
        """Start all workers; all run when this returns."""
        for place in self.places:
            self.begin(place)
        await asyncio.gather(*(place.worker.ready(60) for place in self.places))

    async def last(self, seconds: float, calm: tuple[float, float]) -> None:
        """Do one fault after the other for so long, and wait until all workers run again."""
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            await self.hurt(1)
            await asyncio.sleep(random.uniform(*calm))
        await asyncio.gather(*(place.worker.ready(60) for place in self.places))

    def begin(self, place: Place) -> None:
        super().begin(place)
        self.born[place.worker.name] = time.monotonic()

    async def kill_a_worker(self, fault: Fault) -> None:
        with self._a_place(fault, *self._chosen()) as place:
            if place is not None:
                place.worker.kill()
                self.killed[place.worker.name] = time.monotonic()
                self.begin(place)

    async def deploy(self, fault: Fault) -> None:
        """Start a worker beside another one, then stop that."""
        with self._a_place(fault, *self._chosen()) as place:
            if place is not None:
                old = place.worker
                self.begin(place)
                new, place.worker = place.worker, old
                with suppress(NotInTime):
                    await new.ready(20.0)
                self.stopped[old.name] = time.monotonic()
                await self._stop(place)
                place.worker = new

    def _chosen(self) -> list[Place]:
        preferred = [one for one in self.places if one.worker.name == self.prefers()]
        return preferred if preferred and random.random() < 0.7 else self.places

    def counted(self) -> str:
        """Return how often each fault was done."""
        counts = Counter(one.name for one in self.done if one.worker or "server" in one.name)
        return ", ".join(f"{count} × {name}" for name, count in sorted(counts.items()))

"""Workers: a buffer and the long-lived tasks that empty it.

A task per event costs a third of the throughput; these are made when needed and stay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from ..transports.base import Delivery

TURN = 128  # events a worker runs before the loop gets a turn, if no handler gave it one
NEVER = float("inf")


class Worker:
    """One task; ``delivery`` is what it runs or settles right now."""

    __slots__ = ("deadline", "delivery", "task", "timed_out")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.delivery: Delivery | None = None
        self.deadline = NEVER  # loop time
        self.timed_out = False


Run = Callable[[Worker, Delivery], Awaitable[None]]


class Workers:
    """At most ``size`` of them, each running one delivery at a time, in the order offered."""

    def __init__(self, size: int, run: Run, name: str) -> None:
        self._size = size
        self._run = run
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._idle: list[asyncio.Future[None]] = []
        self._waking = False
        self._closed = False
        self.buffer: deque[Delivery] = deque()
        self.all: set[Worker] = set()

    def offer(self, delivery: Delivery) -> None:
        """Run it as soon as a worker is free."""
        self.buffer.append(delivery)
        if not self._waking:
            self._wake_one()

    def close(self) -> None:
        """Begin nothing more; what runs goes on."""
        self._closed = True
        idle, self._idle = self._idle, []
        for future in idle:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout: float) -> None:
        """Wait for what runs to end, at most ``timeout`` seconds."""
        running = [worker.task for worker in self.all if worker.task is not None]
        if running:
            await asyncio.wait(running, timeout=timeout)

    async def cancel(self) -> None:
        """End what still runs; a handler that swallows its cancellation is left behind."""
        tasks = [worker.task for worker in self.all if worker.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _wake_one(self) -> None:
        """At most one is woken at a time; it wakes the next if there is more to do."""
        while self._idle:
            future = self._idle.pop()
            if not future.done():
                self._waking = True
                future.set_result(None)
                return
        if len(self.all) < self._size:
            self._waking = True
            worker = Worker()
            worker.task = self._loop.create_task(self._work(worker), name=self._name)
            self.all.add(worker)

    async def _work(self, worker: Worker) -> None:
        buffer = self.buffer
        try:
            turn = 0
            while not self._closed:
                self._waking = False
                if not buffer:
                    idle = self._loop.create_future()
                    self._idle.append(idle)
                    await idle
                    continue
                delivery = buffer.popleft()
                if buffer:
                    self._wake_one()
                await self._run(worker, delivery)
                turn += 1
                if turn >= TURN:
                    turn = 0
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._loop.call_soon(self._wake_if_needed)  # what came meanwhile waited for this one
            raise
        finally:
            self.all.discard(worker)

    def _wake_if_needed(self) -> None:
        if self.buffer and not self._waking and not self._closed:
            self._wake_one()

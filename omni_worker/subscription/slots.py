"""Slots: a buffer and the long-lived tasks that empty it.

A task per event costs a third of the throughput; these are made when needed and stay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from ..transports.base import Delivery

NEVER = float("inf")


class Slot:
    """Task that runs one event at a time; ``delivery`` is what it runs or settles right now."""

    __slots__ = ("deadline", "delivery", "is_running", "task", "timed_out")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.delivery: Delivery | None = None
        self.is_running = False  # inside the handler
        self.deadline = NEVER  # loop time
        self.timed_out = False

    @property
    def is_cancelled(self) -> bool:
        """Return True if a cancellation of this task was requested."""
        return self.task is not None and self.task.cancelling() > 0


class Slots:
    """At most ``size`` of them, each running one delivery at a time, in the order offered.

    ``work`` is the loop of one slot: as long as it ``is_ready`` it takes the first of ``buffer``.
    """

    def __init__(
        self, size: int, work: Callable[[Slot], Coroutine[Any, Any, None]], name: str
    ) -> None:
        self.size = size
        self._work = work
        self._name = name
        self._loop = asyncio.get_running_loop()
        self.idle: list[tuple[Slot, asyncio.Future[None]]] = []
        self.waking: Slot | None = None  # at most one is woken at a time
        self.is_closed = False
        self.is_free = True  # neither closed nor barred: what is in the buffer may begin
        self._alone = asyncio.Lock()
        self._barrier: asyncio.Event | None = None  # while a run wants to be alone
        self.buffer: deque[Delivery] = deque()
        self.all: set[Slot] = set()

    def offer(self, delivery: Delivery) -> None:
        """Run it as soon as a slot is free."""
        self.buffer.append(delivery)
        if self.waking is None:
            self.wake_one()

    def offer_first(self, delivery: Delivery) -> None:
        """Run it before everything else that waits."""
        self.buffer.appendleft(delivery)
        if self.waking is None:
            self.wake_one()

    def withdraw(self, delivery: Delivery) -> None:
        """Do not run it after all, if it still waits here."""
        with suppress(ValueError):
            self.buffer.remove(delivery)

    def close(self) -> None:
        """Begin nothing more; what runs goes on."""
        self.is_closed = True
        self.is_free = False
        idle, self.idle = self.idle, []
        for _, future in idle:
            if not future.done():
                future.set_result(None)

    @property
    def is_barred(self) -> bool:
        """Return True if no run may begin, because one has to be alone."""
        return self._barrier is not None

    async def pass_barrier(self) -> None:
        """Wait while one runs alone."""
        while self._barrier is not None:
            await self._barrier.wait()

    async def is_ready(self, slot: Slot) -> bool:
        """Wait until there is something to take; False when the slot has to end."""
        self.woke(slot)
        while not self.is_closed:
            if not self.buffer:
                idle = self._loop.create_future()
                self.idle.append((slot, idle))
                await idle
                self.woke(slot)
            elif self._barrier is not None:
                await self.pass_barrier()
            else:
                return True
        return False

    @asynccontextmanager
    async def alone(self, slot: Slot, patience: float) -> AsyncIterator[bool]:
        """No other begins; says whether all others had ended within ``patience`` seconds."""
        async with self._alone:
            self._barrier = asyncio.Event()
            self.is_free = False
            try:
                yield await self._others_end(slot, patience)
            finally:
                barrier, self._barrier = self._barrier, None
                self.is_free = not self.is_closed
                barrier.set()

    async def _others_end(self, slot: Slot, patience: float) -> bool:
        deadline = self._loop.time() + patience
        while any(other.is_running for other in self.all if other is not slot):
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    async def wait(self, timeout: float) -> None:
        """Wait for what runs to end, at most ``timeout`` seconds."""
        running = [slot.task for slot in self.all if slot.task is not None]
        if running:
            await asyncio.wait(running, timeout=timeout)

    async def cancel(self) -> None:
        """End what still runs; a handler that swallows its cancellation is left behind."""
        tasks = [slot.task for slot in self.all if slot.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def wake_one(self) -> None:
        """At most one is woken at a time; it wakes the next if there is more to do."""
        while self.idle:
            slot, future = self.idle.pop()
            if not future.done():
                self.waking = slot
                future.set_result(None)
                return
        if len(self.all) < self.size:
            self.waking = slot = Slot()
            slot.task = self._loop.create_task(self._work(slot), name=self._name)
            slot.task.add_done_callback(partial(self._ended, slot))
            self.all.add(slot)

    def woke(self, slot: Slot) -> None:
        """A slot has begun, or goes on: the next one may be woken."""
        if self.waking is slot:
            self.waking = None

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """However it ended, even before its first step: what waited for this one gets another."""
        self.all.discard(slot)
        self.woke(slot)
        if self.buffer and self.waking is None and not self.is_closed:
            self.wake_one()

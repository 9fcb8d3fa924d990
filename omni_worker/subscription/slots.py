"""Slots: a buffer and the long-lived tasks that empty it.

A task per event costs a third of the throughput; these are made when needed and stay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from ..transports.base import Delivery

TURN = 128  # events a slot runs before the loop gets a turn, if no handler gave it one
NEVER = float("inf")


class Slot:
    """One task; ``delivery`` is what it runs or settles right now."""

    __slots__ = ("deadline", "delivery", "is_running", "task", "timed_out")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.delivery: Delivery | None = None
        self.is_running = False  # inside the handler
        self.deadline = NEVER  # loop time
        self.timed_out = False

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody wants this task to end."""
        return self.task is not None and self.task.cancelling() > 0


Run = Callable[[Slot, Delivery], Awaitable[None]]


class Slots:
    """At most ``size`` of them, each running one delivery at a time, in the order offered."""

    def __init__(self, size: int, run: Run, name: str) -> None:
        self._size = size
        self._run = run
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._idle: list[tuple[Slot, asyncio.Future[None]]] = []
        self._waking: Slot | None = None
        self._closed = False
        self._alone = asyncio.Lock()
        self._gate: asyncio.Event | None = None  # while somebody wants to run alone
        self.buffer: deque[Delivery] = deque()
        self.all: set[Slot] = set()

    def offer(self, delivery: Delivery) -> None:
        """Run it as soon as a slot is free."""
        self.buffer.append(delivery)
        if self._waking is None:
            self._wake_one()

    def offer_first(self, delivery: Delivery) -> None:
        """Run it before everything else that waits."""
        self.buffer.appendleft(delivery)
        if self._waking is None:
            self._wake_one()

    def withdraw(self, delivery: Delivery) -> None:
        """Do not run it after all, if it still waits here."""
        with suppress(ValueError):
            self.buffer.remove(delivery)

    def close(self) -> None:
        """Begin nothing more; what runs goes on."""
        self._closed = True
        idle, self._idle = self._idle, []
        for _, future in idle:
            if not future.done():
                future.set_result(None)

    async def pass_gate(self) -> None:
        """Wait while somebody runs alone."""
        while self._gate is not None:
            await self._gate.wait()

    @asynccontextmanager
    async def alone(self, slot: Slot, patience: float) -> AsyncIterator[bool]:
        """Nobody else begins; says whether everybody else had ended within ``patience`` seconds."""
        async with self._alone:
            self._gate = asyncio.Event()
            try:
                yield await self._others_end(slot, patience)
            finally:
                gate, self._gate = self._gate, None
                gate.set()

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

    def _wake_one(self) -> None:
        """At most one is woken at a time; it wakes the next if there is more to do."""
        while self._idle:
            slot, future = self._idle.pop()
            if not future.done():
                self._waking = slot
                future.set_result(None)
                return
        if len(self.all) < self._size:
            self._waking = slot = Slot()
            slot.task = self._loop.create_task(self._work(slot), name=self._name)
            slot.task.add_done_callback(partial(self._ended, slot))
            self.all.add(slot)

    async def _work(self, slot: Slot) -> None:
        buffer, task = self.buffer, slot.task
        assert task is not None
        self._is_awake(slot)
        turn = 0
        while not self._closed:
            if not buffer:
                idle = self._loop.create_future()
                self._idle.append((slot, idle))
                await idle
                self._is_awake(slot)
                continue
            if self._gate is not None:
                await self.pass_gate()
                continue
            delivery = buffer.popleft()
            if buffer and self._waking is None and (self._idle or len(self.all) < self._size):
                self._wake_one()
            await self._run(slot, delivery)
            if task.cancelling():
                # By the handler, or by whoever ends the loop: nobody can tell. The outcome stands,
                # and this task ends; the next event gets a new one.
                raise asyncio.CancelledError
            turn += 1
            if turn >= TURN:
                turn = 0
                await asyncio.sleep(0)

    def _is_awake(self, slot: Slot) -> None:
        if self._waking is slot:
            self._waking = None

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """However it ended, even before its first step: what waited for this one gets another."""
        self.all.discard(slot)
        self._is_awake(slot)
        if self.buffer and self._waking is None and not self._closed:
            self._wake_one()

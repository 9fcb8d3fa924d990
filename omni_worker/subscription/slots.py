"""Slots: a buffer and the long-lived tasks that empty it.

A task per event costs a third of the throughput; these are made when needed and stay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from time import perf_counter
from typing import Any

from ..current import current_context
from ..transports.base import Delivery

NEVER = float("inf")


class Slot:
    """Slot: one task; ``delivery`` is what it runs or settles right now."""

    __slots__ = (
        "context", "deadline", "delivery", "is_in_line", "is_running", "since", "task", "timed_out",
    )  # fmt: skip

    def __init__(self, context: Context) -> None:
        self.context = context  # of its task
        self.task: asyncio.Task[None] | None = None
        self.delivery: Delivery | None = None
        self.is_in_line = False  # its delivery waits to get its key, and has not begun
        self.is_running = False  # inside the handler
        self.deadline = NEVER  # loop time
        self.timed_out = False
        self.since: float | None = perf_counter()  # when it was last woken; None while it is idle

    @property
    def is_cancelled(self) -> bool:
        """True if this task is to end."""
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
        # Neither closed nor barred, and no slot too many: what is in the buffer may begin.
        self.is_free = True
        self._alone = asyncio.Lock()
        self._barrier: asyncio.Event | None = None  # while a run wants to be alone
        self.on_barred: Callable[[], None] = lambda: None
        self.buffer: deque[Delivery] = deque()
        self.all: set[Slot] = set()
        self._busy = 0.0  # seconds
        # Each slot begins with it, whichever event or timer wakes it.
        self.context = copy_context()
        self.context.run(current_context.set, None)

    def offer(self, delivery: Delivery) -> None:
        """Run a delivery as soon as a slot is free."""
        self.buffer.append(delivery)
        if self.waking is None:
            self.wake_one()

    def offer_first(self, delivery: Delivery) -> None:
        """Run a delivery before all others that wait."""
        self.buffer.appendleft(delivery)
        if self.waking is None:
            self.wake_one()

    def withdraw(self, delivery: Delivery) -> None:
        """Remove a delivery that still waits here."""
        with suppress(ValueError):
            self.buffer.remove(delivery)

    def resize(self, size: int) -> None:
        """Run at most ``size`` at once. What runs goes on: a slot too many ends after its event."""
        self.size = size
        for _, future in self.idle[size - len(self.all) :] if size < len(self.all) else ():
            if not future.done():
                future.set_result(None)
        self._judge()
        if self.buffer and self.waking is None and not self.is_closed:
            self.wake_one()

    def close(self) -> None:
        """Begin nothing more; what runs goes on."""
        self.is_closed = True
        self._judge()
        idle, self.idle = self.idle, []
        for _, future in idle:
            if not future.done():
                future.set_result(None)

    @property
    def is_barred(self) -> bool:
        """True while nothing may begin, because a run has to be alone."""
        return self._barrier is not None

    async def pass_barrier(self) -> None:
        """Wait while one runs alone."""
        while self._barrier is not None:
            await self._barrier.wait()

    async def is_ready(self, slot: Slot) -> bool:
        """Wait until there is something to take; False when the slot has to end."""
        self.woke(slot)
        while not self.is_closed:
            if len(self.all) > self.size:
                self.all.discard(slot)
                self._judge()
                break
            if not self.buffer:
                idle = self._loop.create_future()
                self.idle.append((slot, idle))
                self._rest(slot)
                await idle
                slot.since = perf_counter()
                self.woke(slot)
            elif self._barrier is not None:
                await self.pass_barrier()
            else:
                return True
        return False

    @asynccontextmanager
    async def alone(self, slot: Slot, patience: float) -> AsyncIterator[bool]:
        """Keep others from beginning. Yield True if they ended within ``patience`` seconds."""
        async with self._alone:
            self._barrier = asyncio.Event()
            self._judge()
            self.on_barred()
            try:
                yield await self._others_end(slot, patience)
            finally:
                barrier, self._barrier = self._barrier, None
                self._judge()
                barrier.set()

    async def _others_end(self, slot: Slot, patience: float) -> bool:
        deadline = self._loop.time() + patience
        while any(other.is_running for other in self.all if other is not slot):
            if self.is_closed or self._loop.time() >= deadline:
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
        """Wake a slot, at most one at a time; it wakes the next if there is more to do."""
        while self.idle:
            slot, future = self.idle.pop()
            if not future.done():
                self.waking = slot
                future.set_result(None)
                return
        if len(self.all) < self.size:
            self.waking = slot = Slot(self.context.copy())
            slot.task = self._loop.create_task(
                self._work(slot), name=self._name, context=slot.context
            )
            slot.task.add_done_callback(partial(self._ended, slot))
            self.all.add(slot)

    @property
    def busy_seconds(self) -> float:
        """Seconds that slots had something to do, all together, until now.

        Taken when a slot wakes and when it rests, so that an event costs nothing. May be asked
        from any thread.
        """
        now = perf_counter()
        return self._busy + sum(
            now - since for slot in list(self.all) if (since := slot.since) is not None
        )

    def _judge(self) -> None:
        """Decide whether a slot may take the next without a look at what is wanted of it."""
        is_one_too_many = len(self.all) > self.size
        self.is_free = not (self.is_closed or self.is_barred or is_one_too_many)

    def _rest(self, slot: Slot) -> None:
        if slot.since is not None:
            self._busy += perf_counter() - slot.since
            slot.since = None

    def woke(self, slot: Slot) -> None:
        """Note that a slot is awake: the next one may be woken."""
        if self.waking is slot:
            self.waking = None

    def is_as_begun(self, slot: Slot) -> bool:
        """Leave the event in a slot's context; tell whether nothing else in it was changed."""
        current_context.set(None)
        own, began = slot.context, self.context
        # By identity: a value's own comparison may raise, or call different things equal.
        return len(own) == len(began) and all(own.get(one, own) is began[one] for one in began)

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """Replace a slot that ended, even before its first step: waiting events need another."""
        self.all.discard(slot)
        self._judge()
        self._rest(slot)
        self.woke(slot)
        if self.buffer and self.waking is None and not self.is_closed:
            self.wake_one()

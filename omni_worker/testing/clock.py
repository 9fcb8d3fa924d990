"""Virtual time: a running asyncio loop whose clock moves only on request.

Timers that stood before keep running by real time, so a `timeout` around a test still ends it.
Nothing outside this file touches the loop's private parts, but `waits`, which only looks.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from ..context import Context
from ..current import current_context, current_run
from ..errors import ConfigError
from ..events import Event
from ..tasks import KEEPER, is_batch, is_own, own
from .waits import is_timed, outside_is_possible, place, waited_for, waits_outside

T = TypeVar("T")

LOOK_AGAIN = 1.0  # real seconds of silence until a wait that nothing can end is reported
STANDS_STILL = (
    "time does not move by itself here, only in `await t.settle()` and `await t.advance(seconds=…)`"
)
_PATCHED = ("time", "create_task", "run_in_executor", "_clock_resolution")
# Seconds. A timer is due if it lies below the time plus this. Where a machine runs for half a year,
# the loop's own nanosecond is lost beside the time: a timer of this very moment is never due.
RESOLUTION = 1e-6


class TimeStandsStill(RuntimeError):
    """A test waits for time to pass; only ``advance()`` and ``settle()`` make it pass."""


class NothingMoves(Exception):
    """No timer is left that could change anything."""


class TooLong(Exception):
    """Real time ran out."""


class VirtualTime:
    """Clock of one loop, shared by all its users. Use ``take`` and ``release``."""

    _of_loop: ClassVar[WeakKeyDictionary[Any, VirtualTime]] = WeakKeyDictionary()

    def __init__(self, loop: Any) -> None:
        self.now = 0.0
        self.workers: list[Any] = []  # test workers that come to rest together
        self._loop = loop
        self._users = 0
        self._real_time: Callable[[], float] = loop.time
        self._outer: list[Any] = []  # timers from before, by real time
        self._rest: asyncio.Future[None] | None = None  # of the task that moves the time
        self._turn = asyncio.Lock()
        self._deadline = float("inf")  # by the real clock, for the task that moves the time
        # runs that time may have to wait for
        self._runs: dict[asyncio.Task[Any], Event[Any] | None] = {}
        self._born: WeakSet[asyncio.Task[Any]] = WeakSet()  # made by handlers
        self._asked: WeakKeyDictionary[asyncio.Task[Any], Context] = WeakKeyDictionary()
        self._testers: WeakSet[asyncio.Task[Any]] = WeakSet()  # tasks that would wait for ever
        self._keepers: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._jobs = 0  # jobs that handlers gave to an executor

    @classmethod
    def take(cls) -> VirtualTime:
        """The clock of the running loop. Raises ConfigError for a loop that cannot have one."""
        loop = _checked_loop()
        clock = cls._of_loop.get(loop)
        if clock is None:
            clock = cls._of_loop[loop] = cls(loop)
        clock._users += 1
        if clock._users == 1:
            clock._start()
        return clock

    def release(self) -> None:
        """Release the clock; the last user restores the loop."""
        self._users -= 1
        if self._users == 0:
            self._stop()

    # --- moving ----------------------------------------------------------------------------

    async def move(
        self, done: Callable[[], bool], *, patience: float, until: float | None = None
    ) -> None:
        """Move time from timer to timer, each in its turn, until ``done`` or ``until`` is reached.

        Raises NothingMoves when no timer is left, TooLong after ``patience`` real seconds.
        """
        async with self._turn:
            self._deadline = _monotonic() + patience
            try:
                await self._resting()
                while not done():
                    due = self._next_due()
                    if until is not None and (due is None or due > until):
                        self.now = max(self.now, until)
                        await self._resting()
                        return
                    if due is None:
                        raise NothingMoves
                    self.now = max(self.now, due)
                    await self._resting()
            finally:
                self._deadline = float("inf")

    def tested_by_current_task(self) -> None:
        """Report the current task if it waits for time that does not move."""
        if (task := asyncio.current_task()) is not None:
            self._testers.add(task)

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Create a task of the app's side: it may sleep while time does not move."""
        task: asyncio.Task[T] = self._real_create_task(coroutine, name=own(name))
        return task

    def begin_run(self, event: Event[Any] | None) -> None:
        """Register the current task: its run may have to wait for the outside world."""
        task = asyncio.current_task()
        if task is not None:
            self._runs[task] = event

    def end_run(self) -> None:
        """Unregister the current task."""
        self._runs.pop(asyncio.current_task(), None)  # type: ignore[arg-type]

    def waiting_for_outside(self) -> list[str]:
        """Places where handlers wait for threads and sockets right now."""
        where = [place(task) for task in self._waiting_outside()]
        return [one or "a thread" for one in where] or ["a thread"] * bool(self._jobs)

    def running(self) -> list[str]:
        """Places in the code where the running handlers are right now."""
        return [where for task in self._runs if (where := place(task))]

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call a function after this much time."""
        handle: asyncio.TimerHandle = self._loop.call_later(seconds, call)
        return handle

    def only_ours_left(self) -> bool:
        """Tell whether every timer is the framework's own: leases, redeliveries, refreshes."""
        return all(_is_ours(one) for one in self._timers() if not self._is_lazy(one))

    # --- inside: time ----------------------------------------------------------------------

    async def _resting(self) -> None:
        """Wait until nothing is left to do at this point in time."""
        self._rest = self._loop.create_future()
        try:
            await self._rest
        finally:
            self._rest = None

    def _next_due(self) -> float | None:
        return min((one.when() for one in self._timers() if not self._is_lazy(one)), default=None)

    def _timers(self) -> list[asyncio.TimerHandle]:
        return [one for one in self._loop._scheduled if not one.cancelled()]

    def _is_lazy(self, handle: Any) -> bool:
        """Tell whether a timer is only a periodic refresh: thirty days hold a quarter million.

        Events that were sent back are found by it.
        """
        return any(
            waiter is not None and any(one is waiter for one in handle._args or ())
            for waiter in map(waited_for, self._keepers)
        ) and not any(one.is_sent_back for one in self.workers)

    def _waiting_outside(self) -> list[asyncio.Task[Any]]:
        if not outside_is_possible(self._loop):
            return []
        # A thread that waits for the loop (`ctx.wait`) is not what time waits for.
        asking = {
            id(context.event)
            for task, context in self._asked.items()
            if not task.done() and not waits_outside(task, self._loop)
        }
        runs = [task for task, event in self._runs.items() if id(event) not in asking]
        return [one for one in (*runs, *self._born) if waits_outside(one, self._loop)]

    # --- inside: the loop ------------------------------------------------------------------

    def _start(self) -> None:
        loop = self._loop
        self._real_time = loop.time
        self._real_select = loop._selector.select
        self._real_create_task = loop.create_task
        self._real_run_in_executor = loop.run_in_executor
        self._before = {name: vars(loop).get(name) for name in _PATCHED}
        self.now = max(self.now, self._real_time())  # on one loop time never goes back
        self._outer, loop._scheduled = loop._scheduled, []
        loop._clock_resolution = max(loop._clock_resolution, RESOLUTION)
        loop.time = lambda: self.now
        loop.create_task = self._create_task
        loop.run_in_executor = self._run_in_executor
        loop._selector.select = self._select

    def _stop(self) -> None:
        loop = self._loop
        for name, before in self._before.items():
            delattr(loop, name) if before is None else setattr(loop, name, before)
        del loop._selector.select
        ahead = self.now - self._real_time()
        for handle in loop._scheduled:
            handle._when -= ahead  # the same time from now
        loop._scheduled += self._outer
        heapq.heapify(loop._scheduled)
        self._outer = []
        self._runs.clear()

    def _select(self, timeout: float | None) -> Any:
        """Replace the selector: nothing is ready when ``timeout`` is not zero."""
        self._fire_outer()
        overdue = _monotonic() >= self._deadline
        if overdue and self._rest is not None and not self._rest.done():
            self._rest.set_exception(TooLong())
        if self._loop._ready or (timeout is not None and timeout <= 0):
            return self._real_select(0)
        if timeout is not None and timeout < self._loop._clock_resolution:
            # The loop takes this timer for due now. Were this the rest, the task that moves the
            # time would no longer see it, and jump to the next one before it has run.
            self.now += timeout
            return self._real_select(0)
        if self._rest is None or self._rest.done():
            return self._wait_unmoved()
        if events := self._real_select(0):
            return events
        if self._jobs or self._waiting_outside():
            return self._real_select(self._patience())
        self._rest.set_result(None)
        return []

    def _wait_unmoved(self) -> Any:
        """Wait while no task moves the time: only the outside world can go on."""
        events = self._real_select(min(LOOK_AGAIN, self._patience()))
        if not events:
            self._fire_outer()
            if not self._loop._ready:
                self._tell_waiting()
        return events

    def _patience(self) -> float:
        """Real seconds until an earlier timer is due, or the task that moves the time gives up."""
        left = [self._deadline - _monotonic()]
        left += [one._when - self._real_time() for one in self._outer[:1]]
        return max(0.0, min(*left, 86_400.0))

    def _fire_outer(self) -> None:
        while self._outer and (
            self._outer[0].cancelled() or self._outer[0]._when <= self._real_time()
        ):
            handle = heapq.heappop(self._outer)
            handle._scheduled = False
            if not handle.cancelled():
                self._loop._ready.append(handle)

    def _tell_waiting(self) -> None:
        """End the waits of a test that nothing will ever end."""
        certain = not outside_is_possible(self._loop) and not self._outer
        for task in list(self._testers):
            future = waited_for(task)
            if future is None or future.done() or isinstance(future, asyncio.Task):
                continue
            if hasattr(future, "_children") or not (certain or is_timed(future, self._loop)):
                continue
            future.set_exception(TimeStandsStill(STANDS_STILL))

    # --- inside: who is who ----------------------------------------------------------------

    def _create_task(self, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._real_create_task(coroutine, **options)
        name, maker = options.get("name") or "", asyncio.current_task(self._loop)
        if name == KEEPER:
            self._keepers.add(task)  # its look around may come late after a jump
        if maker in self._testers:
            self._testers.add(task)
        context = current_run()
        if is_batch(name):
            self._born.add(task)
        elif context is not None and not is_own(name):
            self._born.add(task)
            if maker is None:  # asked for by a thread
                self._asked[task] = context
        return task

    def _run_in_executor(self, executor: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        future = self._real_run_in_executor(executor, call, *arguments)
        if current_context.get() is not None or asyncio.current_task(self._loop) in self._runs:
            self._jobs += 1
            future.add_done_callback(self._on_job_done)
        return future

    def _on_job_done(self, _: object) -> None:
        self._jobs -= 1


def _monotonic(clock: Callable[[], float] = time.monotonic) -> float:
    """Return real time; as a default it stays the real one, though freezegun replaces it."""
    return clock()


def _checked_loop() -> Any:
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "TestWorker runs on asyncio: with anyio's pytest plugin choose the asyncio backend"
        ) from None
    if isinstance(loop, asyncio.BaseEventLoop) and hasattr(loop, "_selector"):
        return loop
    raise ConfigError(
        f"TestWorker moves the clock of asyncio's own event loop; this one is"
        f" {type(loop).__module__}.{type(loop).__qualname__}, whose clock cannot be moved:"
        " run these tests without uvloop"
    )


def _is_ours(handle: Any) -> bool:
    owner = getattr(handle._callback, "__self__", None)
    return type(owner).__module__.partition(".")[0] == "omni_worker"

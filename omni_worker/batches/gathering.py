"""Gathering: events of one handler come together here, run as batches, and end one by one.

Each event waits here inside its own run: its slot is taken, its lease is extended, and it is
settled by how its wait ends. So attempts, guards, dead letters and counts are those of any event.

One event can make a whole batch fail, and nothing says which. So a failure in company spends an
attempt once. When events that failed before fail together again, they run in halves at once, until
those that fail are alone; only that spends further attempts.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextvars import copy_context
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ..context import Context, current_context
from ..dispatch import TimedOut
from ..events import Event
from ..handlers import Handler
from ..outcomes import Failed, HandBack, Outcome, Retry
from ..signals import Signals, ThreadStuck
from ..subscription.gates import Flow, Gate
from ..tasks import of_batch
from ..threads import DaemonThreads
from .batch import Batch, mark_of

PROVEN_KEPT = 10_000  # events that failed by themselves and wait for their retry
TRIED_LATER = 0.5  # seconds until the rest of a batch comes again, when everything fails


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception as it came from the handler: it is raised again in the run of each event."""

    error: BaseException
    traceback: TracebackType | None


class Member:
    """An event of a batch; ``ended`` is its ending, None if it is handled."""

    __slots__ = ("context", "ended", "event", "group")

    def __init__(
        self, context: Context, event: Event[Any], ended: asyncio.Future[Raised | HandBack | None]
    ) -> None:
        self.context = context
        self.event = event
        self.ended = ended
        self.group: Group

    @property
    def identity(self) -> tuple[str, int, int]:
        """Stream, sequence and stored time: they name an event for ever."""
        delivery = self.context._delivery
        return delivery.source.stream, delivery.sequence, delivery.stored_at

    def end(self, ending: Raised | HandBack | None) -> None:
        """End the event's run; a run that was cancelled has ended already."""
        if not self.ended.done():
            self.ended.set_result(ending)


@dataclass(eq=False, slots=True)
class Group:
    """Events that will run together; ``lane`` is what they have in common."""

    lane: Hashable
    members: list[Member] = field(default_factory=list)
    is_due: bool = False
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Gathering(Gate):
    """Batches of one handler. Every run passes the gate, and waits in ``join`` in its call.

    ``attempts`` is how often an event may run. ``judge`` turns an exception into an outcome,
    ``count_failure`` and ``is_down`` are the breaker's: they are set by who puts it together.
    """

    lets_plain_runs_pass = True

    def __init__(
        self, handler: Handler, threads: DaemonThreads | None, signals: Signals, *, attempts: int
    ) -> None:
        assert handler.batch is not None, "a handler of batches"
        self._handler = handler
        self._size, self._wait = handler.batch.size, handler.batch.wait
        self._attempts = attempts
        self._threads = threads
        self._signals = signals
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # each batch begins with it
        self._context.run(current_context.set, None)
        self.judge: Callable[[BaseException], Outcome] = Failed
        self.count_failure: Callable[[], None] = lambda: None
        self.is_down: Callable[[], bool] = lambda: False
        self._flow: Flow | None = None  # None: past events run, without a subscription
        self._open: dict[Hashable, Group] = {}  # by lane, the oldest first
        self._due: deque[Group] = deque()  # of them and of full ones: those that may begin
        self._tasks: set[asyncio.Task[None]] = set()
        self._inside = 0  # events that are gathered or run
        self._proven: dict[tuple[str, int, int], None] = {}  # failed by themselves
        self._is_closed = False
        self._why_back: str | None = None  # once it is closed and what waits has gone back

    # --- a gate ----------------------------------------------------------------------------

    def opened(self, flow: Flow) -> None:
        """Take the slots: when they are barred, what is gathered has to end soon."""
        self._flow = flow
        flow.slots.on_barred = self._hurry

    def close(self) -> None:
        """Begin nothing more; what waits is handed back by ``let_go``."""
        self._is_closed = True
        for group in self._open.values():
            _stop(group)

    def let_go(self, reason: str = "the handler stops") -> None:
        """Hand back what has not begun, once nothing comes in any more."""
        self._why_back = reason
        waiting = {*self._open.values(), *self._due}
        self._open.clear()
        self._due.clear()
        for group in waiting:
            _end(group.members, HandBack(0.0, reason))

    # --- events in -------------------------------------------------------------------------

    async def join(self, context: Context, event: Event[Any]) -> None:
        """Wait with an event for its batch, and for its own ending. Raises what that is."""
        if self._why_back is not None:
            context.ended = HandBack(0.0, self._why_back)
            return
        self._inside += 1
        member = self._add(context, event)
        try:
            ending = await member.ended
        except asyncio.CancelledError:
            self._left(member)
            raise
        finally:
            self._inside -= 1
        if isinstance(ending, HandBack):
            context.ended = ending
        elif ending is not None:
            raise ending.error.with_traceback(ending.traceback)

    def _add(self, context: Context, event: Event[Any]) -> Member:
        member = Member(context, event, self._loop.create_future())
        slots = None if self._flow is None else self._flow.slots
        has_to_be_alone = slots is not None and not slots.is_free and slots.is_barred
        if has_to_be_alone or (self._proven and self._was_proven(member)):
            member.group = Group(None, [member])
            self._make_due(member.group)
            return member
        lane = self._lane_of(context)
        group = self._open.get(lane)
        if group is None:
            group = self._open[lane] = Group(lane)
            if not self._is_closed:
                group.timer = self._loop.call_later(self._wait, self._make_due, group)
        group.members.append(member)
        member.group = group
        if len(group.members) >= self._size:
            del self._open[lane]
            self._make_due(group)
        elif slots is not None and self._inside >= slots.size:
            self._make_due(next(iter(self._open.values())))  # no further event can come
        return member

    def _lane_of(self, context: Context) -> Hashable:
        """Keep events that failed before from the company of others."""
        return context.attempt > 1

    def _left(self, member: Member) -> None:
        """Leave out an event whose run was cancelled; a batch without any is cancelled, too."""
        group = member.group
        if group.task is not None and all(one.ended.done() for one in group.members):
            group.task.cancel()

    # --- batches ---------------------------------------------------------------------------

    @property
    def _at_once(self) -> int:
        """Number of batches that may run at once."""
        flow = self._flow
        slots = self._handler.at_once if flow is None else flow.slots.size
        return max(1, slots // self._size)

    def _make_due(self, group: Group) -> None:
        """Begin a batch as soon as its turn comes; until then it takes more events."""
        _stop(group)
        if not group.is_due:
            group.is_due = True
            self._due.append(group)
            self._begin_due()

    def _hurry(self) -> None:
        """Begin what is gathered: an event that has to run alone waits for its end."""
        for group in list(self._open.values()):
            self._make_due(group)

    def _begin_due(self) -> None:
        while self._due and len(self._tasks) < self._at_once and not self._is_closed:
            group = self._due.popleft()
            if self._open.get(group.lane) is group:
                del self._open[group.lane]
            group.task = self._loop.create_task(
                self._run(group), name=of_batch(self._handler.name), context=self._context.copy()
            )
            self._tasks.add(group.task)
            group.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._begin_due()

    async def _run(self, group: Group) -> None:
        """Run a batch, and its halves while it has to be told which of its events fail."""
        try:
            parts = [sorted(self._ours(group.members), key=_as_stored)]
            while parts:
                part = [one for one in parts.pop() if not one.ended.done()]
                if part:
                    parts += reversed(await self._try(part))
        except Exception as error:  # a fault of ours: each event fails with it
            _end(group.members, Raised(error, error.__traceback__))
        finally:  # without circles all of this is freed at once, and not by the collector
            group.members, group.task = [], None

    async def _try(self, part: list[Member]) -> list[list[Member]]:
        """Run some events together and end them; return those that are to run in halves."""
        batch: Batch[Any] = Batch([(one.event, one.context) for one in part])
        error = await self._call(batch)
        rest = []
        for member in part:
            if (mark := mark_of(batch, member.event)) is not None:
                member.end(Raised(mark, None))
            elif error is None:
                member.end(None)
            else:
                rest.append(member)
        if error is None or not rest:
            return []
        return self._after_failure(error, rest)

    def _after_failure(self, error: BaseException, rest: list[Member]) -> list[list[Member]]:
        outcome = self.judge(error)
        is_failure = isinstance(outcome, Failed)
        was_asked = is_failure and isinstance(outcome.error, Retry)  # type: ignore[union-attr]
        if is_failure and not was_asked:
            self.count_failure()
            if len(rest) == 1:
                self._remember(rest[0])
        is_first = self._attempts > 1 and all(one.context.attempt == 1 for one in rest)
        if len(rest) == 1 or was_asked or (is_failure and is_first):
            _end(rest, Raised(error, error.__traceback__))
        elif self.is_down():  # no event's own fault, it seems
            _end(rest, HandBack(TRIED_LATER, "everything fails: the rest is tried later"))
        else:
            middle = len(rest) // 2
            return [rest[:middle], rest[middle:]]
        return []

    def _was_proven(self, member: Member) -> bool:
        """Return True, once, for an event that failed by itself before."""
        is_proven = member.identity in self._proven
        self._proven.pop(member.identity, None)
        return is_proven

    def _remember(self, member: Member) -> None:
        """Note that an event fails by itself: at its retry it is no company for others."""
        if len(self._proven) >= PROVEN_KEPT:
            del self._proven[next(iter(self._proven))]
        self._proven[member.identity] = None

    def _ours(self, members: Iterable[Member]) -> list[Member]:
        """Drop what the server has given away since it came: it has not begun."""
        ours = []
        for member in members:
            if self._flow is not None and self._flow.leases.has_lapsed(member.context._delivery):
                member.end(HandBack(0.0, "its lease ran out while it waited"))
            else:
                ours.append(member)
        return ours

    # --- the handler -----------------------------------------------------------------------

    async def _call(self, batch: Batch[Any]) -> BaseException | None:
        """Call the handler; return what it raised."""
        timeout, task = self._handler.options.timeout, asyncio.current_task()
        try:
            if self._threads is not None:
                await self._in_thread(self._threads, batch, timeout)
                return None
            async with asyncio.timeout(timeout) as limit:
                await self._handler.call(batch)
        except BaseException as error:
            # Of its own accord a handler may raise a cancellation, which is a failure.
            if task is None or task.cancelling():
                raise
            if isinstance(error, TimeoutError) and self._threads is None and limit.expired():
                text = f"the handler ran longer than timeout={timeout:g} s"
                return TimedOut(text).with_traceback(error.__traceback__)
            return error
        return None

    async def _in_thread(
        self, threads: DaemonThreads, batch: Batch[Any], timeout: float | None
    ) -> None:
        """Call a plain def handler. A thread cannot be stopped: that it takes long is reported."""
        call, timer = self._handler.call, None
        if timeout is not None:
            delivery = batch.context(batch.events[0])._delivery
            stuck = ThreadStuck(handler=self._handler, delivery=delivery, timeout=timeout)
            timer = self._loop.call_later(timeout, self._signals.emit, stuck)
        try:
            result = await threads.run(lambda: call(batch))
            if inspect.isawaitable(result):  # a callable that only hands out coroutines
                await result
        finally:
            if timer is not None:
                timer.cancel()


def gathering_of(
    handler: Handler, threads: DaemonThreads | None, signals: Signals, *, attempts: int
) -> Gathering | None:
    """Make the gathering of a handler; None if it is given one event at a time."""
    if handler.batch is None:
        return None
    return Gathering(handler, threads, signals, attempts=attempts)


def _as_stored(member: Member) -> tuple[int, int]:
    delivery = member.context._delivery
    return delivery.stored_at, delivery.sequence


def _stop(group: Group) -> None:
    if group.timer is not None:
        group.timer.cancel()
        group.timer = None


def _end(members: Iterable[Member], ending: Raised | HandBack) -> None:
    for member in members:
        member.end(ending)

"""Gathering: events of one handler come together here, run as batches, and end one by one.

Each event waits here inside its own run: its slot is taken, its lease is extended, and it is
settled by how its wait ends. So attempts, guards, dead letters and counts are those of any event.

With a key (``by``) the events of one key are a group of their own, which begins once its key has
been quiet. Times are those at which events were stored, so that a restart changes none. One group
of a key runs at a time.

One event can make a whole batch fail, and nothing says which. So a failure in company spends an
attempt once. When events that failed before fail together again, they run in halves at once, until
those that fail are alone; only that spends further attempts. A group of a key is one thing, and
fails as a whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextvars import copy_context
from functools import partial
from time import perf_counter, time_ns
from typing import Any

from ..context import Context
from ..current import current_context
from ..events import Event
from ..handlers import Handler
from ..outcomes import DONE, Failed, HandBack, Outcome, Retry
from ..signals import BatchFailed, Signals
from ..signals.deliveries import Then
from ..subscription.gates import Flow, Gate
from ..subscription.run_times import RunTimes
from ..tasks import of_batch
from ..threads import DaemonThreads
from ..transports.base import Source
from .batch import Batch, mark_of
from .calls import Calls
from .groups import Group, Member, Raised, as_stored, end_all, quiet_in

PROVEN_KEPT = 10_000  # events that failed by themselves and wait for their retry
TRIED_LATER = 0.5  # seconds until the rest of a batch comes again, when everything fails


class Gathering(Gate):
    """Batches of one handler. Every run passes the gate, and waits in ``join`` in its call.

    ``attempts`` is how often an event may run. ``judge`` turns an exception into an outcome,
    ``count_failure`` and ``is_down`` are the breaker's: they are set by who puts it together.
    """

    lets_plain_runs_pass = True

    def __init__(
        self,
        handler: Handler,
        threads: DaemonThreads | None,
        signals: Signals,
        *,
        attempts: int,
        times: RunTimes | None,
    ) -> None:
        batch = handler.batch
        assert batch is not None, "a handler of batches"
        self._handler = handler
        self._size, self._wait = batch.size, batch.wait
        self._key_of, self._quiet = batch.by, batch.quiet
        self._attempts = attempts
        self._signals = signals
        self._calls = Calls(handler, threads, signals, times)
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # each batch begins with it
        self._context.run(current_context.set, None)
        self.judge: Callable[[BaseException], Outcome] = Failed
        self.count_failure: Callable[[], None] = lambda: None
        self.is_down: Callable[[], bool] = lambda: False
        self.clock: Callable[[], int] = time_ns  # of the server, in epoch nanoseconds
        self._flow: Flow | None = None  # None: past events run, without a subscription
        self._open: dict[Hashable, Group] = {}  # by lane, the oldest first
        self._due: deque[Group] = deque()  # of them and of full ones: those that may begin
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[Hashable] = set()  # keys of which a group is due or runs
        self._behind: dict[Hashable, deque[Group]] = {}  # due ones, by their busy key
        self._inside = 0  # events that are gathered or run
        self._proven: dict[tuple[str, int, int], None] = {}  # failed by themselves
        self._since: dict[Group, float] = {}  # when each batch that runs began
        self._busy_seconds = 0.0  # of those that ended
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
            group.stop_timer()

    def let_go(self, reason: str = "the handler stops") -> None:
        """Hand back what has not begun, once nothing comes in any more."""
        self._why_back = reason
        for group in self._waiting():
            end_all(group.members, HandBack(0.0, reason))
        self._open.clear()
        self._due.clear()
        self._behind.clear()

    def hand_back(self, source: Source, reason: str) -> None:
        """Hand back what came from one source and has not begun."""
        for group in self._waiting():
            of_source = [one for one in group.members if one.context._delivery.source is source]
            end_all(of_source, HandBack(0.0, reason))

    def _waiting(self) -> set[Group]:
        behind = [group for groups in self._behind.values() for group in groups]
        return {*self._open.values(), *self._due, *behind}

    @property
    def running(self) -> int:
        """Events for which the handler's function runs right now; those that gather are not."""
        return self._calls.running

    @property
    def busy_seconds(self) -> float:
        """Seconds that batches ran until now, all together; a batch counts once.

        Gathering is left out. May be asked from any thread.
        """
        now = perf_counter()
        return self._busy_seconds + sum(now - since for since in list(self._since.values()))

    # --- events in -------------------------------------------------------------------------

    async def join(self, context: Context, event: Event[Any]) -> None:
        """Wait with an event for its batch, and for its own ending. Raises what that is."""
        if self._why_back is not None:
            context.ended = HandBack(0.0, self._why_back)
            return
        if isinstance(context.ended, HandBack):
            context.ended = DONE  # of the call before, by a middleware that calls twice
        lane = self._lane_of(context, event)
        self._inside += 1
        member = self._add(context, event, lane)
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

    def _add(self, context: Context, event: Event[Any], lane: Hashable) -> Member:
        member = Member(context, event, self._loop.create_future())
        slots = None if self._flow is None else self._flow.slots
        has_to_be_alone = slots is not None and not slots.is_free and slots.is_barred
        if has_to_be_alone or (self._proven and self._was_proven(member)):
            group = Group(lane)
            group.add(member)
            self._make_due(group)
            return member
        group = self._open.get(lane) or self._open.setdefault(lane, Group(lane))
        group.add(member)
        if len(group.members) >= self._size:
            del self._open[lane]
            self._make_due(group)
        elif slots is not None and self._inside >= slots.size:  # no further event can come
            oldest = (one for one in self._open.values() if not one.is_due)
            self._make_due(next(oldest, group))
        if not group.is_due and not self._is_closed:
            self._time(group, member)
        return member

    def _lane_of(self, context: Context, event: Event[Any]) -> Hashable:
        """Return the key, or keep events that failed before from the company of others."""
        if self._key_of is None:
            return context.attempt > 1
        try:
            key = self._key_of(event)
            hash(key)
        except BaseException as error:
            if not getattr(error, "__notes__", None):
                error.add_note("raised by by=")
            raise
        return key

    def _time(self, group: Group, member: Member) -> None:
        """Set the time at which a group begins."""
        if self._key_of is not None:
            group.note_times(member.stored_at, self._loop.time())
            self._look(group)
        elif group.timer is None:
            group.timer = self._loop.call_later(self._wait, self._make_due, group)

    def _look(self, group: Group) -> None:
        """Begin a group whose key has been quiet, or look again when it may have been."""
        now = self._loop.time()
        left = quiet_in(group, quiet=self._quiet, wait=self._wait, clock=self.clock(), now=now)
        if left <= 0:
            self._make_due(group)
        elif group.timer is None or group.timer.when() > now + left:
            group.stop_timer()
            group.timer = self._loop.call_later(left, self._look_again, group)

    def _look_again(self, group: Group) -> None:
        group.timer = None
        self._look(group)

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
        group.stop_timer()
        if group.is_due:
            return
        group.is_due = True
        if self._key_of is not None:
            if group.lane in self._busy:
                self._behind.setdefault(group.lane, deque()).append(group)
                return
            self._busy.add(group.lane)
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
            group.task.add_done_callback(partial(self._ended, group.lane))

    def _ended(self, lane: Hashable, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if behind := self._behind.get(lane):
            self._due.append(behind.popleft())
            if not behind:
                del self._behind[lane]
        else:
            self._busy.discard(lane)
        self._begin_due()

    async def _run(self, group: Group) -> None:
        """Run a batch, and its halves while it has to be told which of its events fail."""
        self._since[group] = perf_counter()
        try:
            parts = [sorted(self._ours(group.members), key=as_stored)]
            while parts:
                part = [one for one in parts.pop() if not one.ended.done()]
                if part:
                    parts += reversed(await self._try(part, group.lane))
        except Exception as error:  # a fault of ours: each event fails with it
            end_all(group.members, Raised(error, error.__traceback__))
        finally:  # without circles all of this is freed at once, and not by the collector
            group.members, group.task = [], None
            self._busy_seconds += perf_counter() - self._since.pop(group)

    async def _try(self, part: list[Member], lane: Hashable) -> list[list[Member]]:
        """Run some events together and end them; return those that are to run in halves."""
        key = None if self._key_of is None else lane
        new = [one.stored_at for one in part if one.is_new]
        for one in part:  # it may have run before, in a larger part
            one.begin()
        batch: Batch[Any] = Batch([(one.event, one.context) for one in part], key)
        error = await self._calls.call(batch, new)
        rest = []
        for member in part:
            if (mark := mark_of(batch, member.event)) is not None:
                member.end(Raised(mark))
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
            if len(rest) == 1 and self._key_of is None:
                self._remember(rest[0])
        is_whole = len(rest) == 1 or was_asked or self._key_of is not None
        is_first = self._attempts > 1 and all(one.context.attempt == 1 for one in rest)
        if is_whole or (is_failure and is_first):
            is_over = all(one.context.attempt >= self._attempts for one in rest)
            self._report(error, rest, "again" if is_failure and not is_over else "letters")
            end_all(rest, Raised(error, error.__traceback__))
        elif self.is_down():  # no event's own fault, it seems
            self._report(error, rest, "later")
            end_all(rest, HandBack(TRIED_LATER, "everything fails: the rest is tried later"))
        else:
            self._report(error, rest, "halves")
            middle = len(rest) // 2
            return [rest[:middle], rest[middle:]]
        return []

    def _report(self, error: BaseException, rest: list[Member], then: Then) -> None:
        """Tell the failure of a call once, before each of its events tells its own."""
        if len(rest) == 1:
            return
        self._signals.emit(
            BatchFailed(
                handler=self._handler,
                deliveries=tuple(one.context._delivery for one in rest),
                attempt=min(one.context.attempt for one in rest),
                of=self._attempts,
                error=error,
                then=then,
            )
        )

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


def gathering_of(
    handler: Handler,
    threads: DaemonThreads | None,
    signals: Signals,
    *,
    attempts: int,
    times: RunTimes | None = None,
) -> Gathering | None:
    """Make the gathering of a handler; None if it is given one event at a time."""
    if handler.batch is None:
        return None
    return Gathering(handler, threads, signals, attempts=attempts, times=times)

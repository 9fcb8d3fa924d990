"""Watch: looks at the server for all browsers at once, and keeps fifteen minutes of rates.

Everything shown comes from the server. Only rates and a few last failures for each handler are
kept, so a restart loses nothing and nothing grows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import OmniWorkerError, PermissionDenied
from ..letters.marks import STREAM as MARKS
from ..letters.read import DeadLetter, read_letter
from ..operations.failures import STREAM as NOTES
from ..operations.failures import Failure, failures
from ..operations.handler_status import HandlerStatus, by_handler
from ..operations.letter_lookup import FILTERS
from ..operations.letter_search import Whose, count_open, letter_stream, letter_stream_of
from ..operations.processes import WorkerProcess, processes
from ..operations.scan import Scan
from ..operations.status import consumer_statuses
from ..tasks import own
from ..transports.base import Transport
from ..transports.infos import StreamInfo
from .rates import KEPT, Rates

log = logging.getLogger("omni_worker.dashboard")

EVERY = 1.0  # seconds between two looks while a browser is open
DEAR = 4  # times as long as a look took, none follows
IDLE = 10.0  # seconds without one
AGAIN = 2.0  # seconds until something that failed is tried again
LAST = 20  # failures kept for each handler
HANDLERS = 2_000  # for which rates are kept
LONGEST = 500  # characters of an error that are kept
CHEAP = 20  # counting letters may take one part in so many of the time
SOON = 0.25  # seconds in which several changes are one

Problem = Failure | DeadLetter


@dataclass(slots=True)
class Activity:
    """Recent work of a handler."""

    delivered: Rates = field(default_factory=Rates)
    handled: Rates = field(default_factory=Rates)  # as its processes say
    is_reported: bool = False  # a process told what it handled
    retried: Rates = field(default_factory=Rates)
    dead: Rates = field(default_factory=Rates)
    problems: deque[Problem] = field(default_factory=lambda: deque(maxlen=LAST))  # newest last


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The server as it was seen last."""

    version: int = 0
    letters_version: int = 0  # another one when letters came, or were retried or discarded
    at: datetime | None = None  # of the last look that succeeded
    handlers: tuple[HandlerStatus, ...] = ()
    streams: tuple[StreamInfo, ...] = ()
    processes: tuple[WorkerProcess, ...] | None = None  # None: not asked yet
    is_denied_processes: bool = False  # this login may not ask them
    letters: Mapping[Whose, int] | None = None  # open ones; None: not counted yet
    errors: Mapping[tuple[str | None, str], int] = field(default_factory=dict)  # of these
    trouble: str = ""  # why the last look failed


class Watch:
    """Looks for as long as the process lives; begins at the first request for its snapshot."""

    def __init__(self, transport: Transport) -> None:
        self.snapshot = Snapshot()
        self.activity: dict[Whose, Activity] = {}
        self.is_open = True
        self._transport = transport
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()  # a browser came
        self._asking = asyncio.Event()  # the same, for who asks the processes
        self._recount = asyncio.Event()
        self._has_notes = asyncio.Event()
        self._lookers = 0
        self._deliveries: dict[tuple[str, str, int], int] = {}
        self._looked_at = 0.0
        self._handled: dict[tuple[str, str, str], int] = {}  # by process, app and handler
        self._asked_at = 0.0
        self.began_at = time.time()
        self._letter_ends: tuple[int | None, int | None] = (None, None)

    @property
    def lookers(self) -> int:
        """Return how many browsers are open."""
        return self._lookers

    def seconds(self, most: float) -> float:
        """Return the span that rates cover, at most this one: they begin with the first look."""
        return min(most, max(EVERY, time.time() - self.began_at))

    async def ready(self) -> Snapshot:
        """Return a snapshot that is a moment old; begin to look if this is the first call."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=own("dashboard"))
        seen = self.snapshot.at
        if seen is None or (datetime.now(UTC) - seen).total_seconds() > EVERY:
            self._wanted.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    while self.snapshot.at == seen and not self.snapshot.trouble:
                        await self._changed.wait()
        return self.snapshot

    async def counted(self) -> None:
        """Wait a moment until dead letters were counted: some handlers are known by them only."""
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN):
                while self.snapshot.letters is None and not self.snapshot.trouble:
                    await self._changed.wait()

    async def changed(self, version: Callable[[Snapshot], int], known: int, timeout: float) -> bool:
        """Wait until the snapshot has another version than the known one; False at the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while version(self.snapshot) == known and self.is_open:
                    await self._changed.wait()
        return version(self.snapshot) != known

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look often while this is entered."""
        self._lookers += 1
        self.look_again()
        try:
            yield
        finally:
            self._lookers -= 1

    def look_again(self) -> None:
        """Look at once: something was changed from here."""
        self._wanted.set()
        self._asking.set()

    async def close(self) -> None:
        """Stop looking; every wait for a change ends."""
        self.is_open = False
        self._tell()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def of(self, whose: Whose) -> Activity:
        """Return a handler's activity, an empty one if it did nothing."""
        return self.activity.get(whose) or Activity()

    # --- looking ---------------------------------------------------------------------------

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for each in (
                self._look, self._ask, self._count, self._follow_failures, self._follow_letters,
            ):  # fmt: skip
                tasks.create_task(self._repeat(each))

    async def _repeat(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do the same again for ever: an outage of the server is shown, and waited for."""
        while True:
            try:
                await work()
            except OmniWorkerError as error:
                self._show(trouble=str(error))
                await asyncio.sleep(AGAIN)
            except Exception:
                log.exception("the dashboard could not look at the server")
                await asyncio.sleep(AGAIN)

    async def _look(self) -> None:
        statuses = await consumer_statuses(self._transport)
        streams = await self._transport.operators.streams()
        now = time.time()
        handlers = by_handler(statuses)
        for one in handlers:
            self._count_deliveries(one, now)
        self._looked_at = now
        known = {
            (each.stream, each.name, each.created) for one in handlers for each in one.consumers
        }
        self._deliveries = {key: self._deliveries[key] for key in known if key in self._deliveries}
        self._see_letters(streams)
        if any(one.name == NOTES for one in streams):
            self._has_notes.set()
        self._show(
            at=datetime.now(UTC), handlers=tuple(handlers), streams=tuple(streams), trouble=""
        )
        self._wanted.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(self._pause(), DEAR * (time.time() - now))):
                await self._wanted.wait()
        await asyncio.sleep(SOON)

    def _pause(self) -> float:
        return EVERY if self._lookers else IDLE

    async def _ask(self) -> None:
        """Ask every worker process what it does."""
        try:
            found = await processes(self._transport)
        except PermissionDenied:
            self._show(processes=(), is_denied_processes=True)
            await asyncio.sleep(IDLE)
            return
        now = time.time()
        counts = {
            (process.id, process.app, one.name): one.counts.get("handled", 0)
            for process in found
            for one in process.handlers
        }
        for key, handled in counts.items():
            activity = self._activity(key[1], key[2])
            activity.is_reported = True
            before = self._handled.get(key)
            if before is not None and handled > before:
                activity.handled.spread(self._asked_at, now, handled - before)
        self._handled, self._asked_at = counts, now
        self._show(processes=tuple(found), is_denied_processes=False)
        self._asking.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause()):
                await self._asking.wait()
        await asyncio.sleep(SOON)

    def _count_deliveries(self, handler: HandlerStatus, now: float) -> None:
        for one in handler.consumers:
            key = (one.stream, one.name, one.created)
            before = self._deliveries.get(key)
            self._deliveries[key] = one.deliveries
            if before is not None and one.deliveries > before:
                rates = self._activity(handler.app, handler.name).delivered
                rates.spread(self._looked_at or now, now, one.deliveries - before)

    def _see_letters(self, streams: Sequence[StreamInfo]) -> None:
        """Notice that letters came, or that one was retried or discarded, by whatever program."""
        lasts = {one.name: one.state.last_sequence for one in streams}
        config = [one.config for one in streams]
        ends = (lasts.get(letter_stream_of(config) or ""), lasts.get(MARKS))
        if ends != self._letter_ends:
            self._letter_ends = ends
            self._recount.set()
            self._show(letters_version=self.snapshot.letters_version + 1)

    async def _count(self) -> None:
        """Count the open dead letters, again whenever one was added or closed."""
        self._recount.clear()
        began = time.monotonic()
        found = await count_open(self._transport)
        self._show(
            letters=found.by_handler, errors=found.by_error,
            letters_version=self.snapshot.letters_version + 1,
        )  # fmt: skip
        await asyncio.sleep(max(EVERY, CHEAP * (time.monotonic() - began)))
        await self._recount.wait()

    async def _follow_failures(self) -> None:
        await self._has_notes.wait()
        since = datetime.now(UTC) - timedelta(seconds=KEPT)
        async with aclosing(failures(self._transport, since=since)) as found:
            async for one in found:
                activity = self._activity(one.app or None, one.handler)
                activity.retried.add(one.time.timestamp())
                activity.problems.append(one)
                self._show()
        self._has_notes.clear()  # the bucket was deleted; the next look sees if it is back

    async def _follow_letters(self) -> None:
        stream = await letter_stream(self._transport)
        if stream is None:
            await asyncio.sleep(AGAIN)
            return
        since = datetime.now(UTC) - timedelta(seconds=KEPT)
        async with Scan(
            self._transport, stream, filters=FILTERS, since=since, follow=True
        ) as messages:
            async for message in messages:
                letter = read_letter(message)
                activity = self._activity(letter.app, letter.handler)
                activity.dead.add(letter.time.timestamp())
                activity.problems.append(_short(letter))
                self._show()
                self._wanted.set()  # the look notices that it has to be counted

    def _activity(self, app: str | None, handler: str | None) -> Activity:
        found = self.activity.get((app, handler))
        if found is None:
            if len(self.activity) >= HANDLERS:
                del self.activity[next(iter(self.activity))]
            found = self.activity[app, handler] = Activity()
        return found

    def _show(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, version=self.snapshot.version + 1, **changes)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _short(letter: DeadLetter) -> DeadLetter:
    """Keep little of a letter: any program may publish one, with texts of any length."""
    return replace(
        letter, traceback="", error=letter.error[:LONGEST], error_type=letter.error_type[:LONGEST],
        subject=(letter.subject or "")[:LONGEST], event_id="", correlation_id=None,
        trace_id=None, retry_of=None, why_not="",
    )  # fmt: skip


def total_open(letters: Mapping[Whose, int] | None) -> int | None:
    """Sum the open dead letters; None if they were not counted yet."""
    return None if letters is None else Counter(letters).total()


def newest(problems: Sequence[Problem]) -> Problem | None:
    """Return the last failure, None if there was none."""
    return problems[-1] if problems else None

"""TestWorker: an app on a JetStream in memory, with its real engine and with time in your hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, Unpack

from ..app import App, Lifespan
from ..bus import EventBus
from ..errors import ConfigError
from ..events import DEAD_LETTER, Event, Published
from ..handlers import Handler
from ..outcomes import Outcome
from ..publisher import EventFields, Publisher, draft_of
from ..settings import Settings
from ..transports.memory import MemoryServer, MemoryTransport
from .clock import NothingMoves, TooLong, VirtualTime
from .pending import Pending, Unsettled, explain, is_quiet, is_sent_back, pending, shown
from .process import Crash, Process, TestSetup
from .records import Named, Records, Run, find

PATIENCE = 10.0  # real seconds
STEPS = 5_000  # timers that may pass without anything happening, where only ours are left
SOURCE = "test"  # source of the events a test publishes


class TestWorker:
    """Runs ``app`` as one process, as ``async with TestWorker(app) as t``.

    Its handlers, middlewares, lifespan and settings are the app's own; retries, acks and dead
    letters are the real engine's. Time moves only in ``settle`` and ``advance``, for the whole
    event loop. With a ``server`` of your own several workers share its streams; ``raise_errors``
    has a handler's exception fail the test. ``patience`` is real seconds.

    ``lifespan`` stands in for the app's, or ``state`` for what that yields; ``overrides`` replaces
    dependencies, ``{session: fake_session}``: by a function, or a value that cannot be called.
    """

    __test__ = False  # not a test class, although its name begins with Test

    def __init__(
        self,
        app: App,
        *,
        server: MemoryServer | None = None,
        settings: Settings | None = None,
        lifespan: Lifespan | None = None,
        state: object = None,
        overrides: Mapping[Callable[..., Any], Any] | None = None,
        raise_errors: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        self.app = app
        self.server = server or MemoryServer()
        self._settings = settings
        if lifespan is not None and state is not None:
            raise ConfigError("TestWorker: give lifespan= or state=, not both")
        self._lifespan = (lambda app: nullcontext(state)) if state is not None else lifespan
        self._overrides = overrides
        self._raise_errors = raise_errors
        self._patience = patience
        self._clock: VirtualTime | None = None

    # --- life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._clock is not None:
            raise ConfigError("this TestWorker is running already: make another one")
        self._clock = clock = VirtualTime.take()
        self._records = Records(self.app.name)
        self.server.watchers.append(self._records.on_stored)
        self._around = TestSetup(
            app=self.app, server=self.server, settings=self._settings, lifespan=self._lifespan,
            overrides=self._overrides, clock=clock, records=self._records,
        )  # fmt: skip
        self._outside = MemoryTransport(self.server)
        self._publisher = Publisher(self._outside, self.app.registry, SOURCE)
        self._down_until: asyncio.TimerHandle | None = None
        self._coming_back: asyncio.Task[None] | None = None
        clock.workers.append(self)
        try:
            await self._outside.open(SOURCE)
            self._begin()
            await self._move("the app did not start", self._has_begun)
            self._raise_if_failed()
        except BaseException:
            await self._close(quietly=True)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close(quietly=error is not None)
        if error is None:
            self._raise_errors_of_handlers()

    async def restart(self) -> None:
        """Stop the app as a deploy does and start it again: nothing is lost, memory is empty."""
        await self._stop("the app did not stop")
        self._begin()
        await self._move("the app did not start again", self._has_begun)
        self._raise_if_failed()

    # --- events in -------------------------------------------------------------------------

    async def publish(
        self,
        type: str,
        payload: Any = None,
        **fields: Unpack[EventFields],
    ) -> Published:
        """Publish as another program would, by a connection of its own: no fault touches it.

        Checked as ``EventBus.publish`` is. Handlers begin at once; time does not move.
        """
        self._running().tested_by_current_task()
        return await self._publisher.publish(draft_of(type, payload, fields))

    async def send_back(self) -> int:
        """Send every open dead letter back to its handler, as an operator does; return how many.

        Handlers begin at once; time does not move.
        """
        self._running().tested_by_current_task()
        sent = 0
        async with EventBus(transport=MemoryTransport(self.server), name="operator") as bus:
            async for letter in bus.dead_letters.list():
                await bus.dead_letters.retry(letter)
                sent += 1
        return sent

    # --- time ------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Move time until nothing is left to do: every event handled or dead-lettered.

        Waits for retries, leases and restarts, of every TestWorker on this loop. Raises Unsettled
        when that never comes, saying what still moves.
        """
        await self._move("the app does not come to rest", self._is_at_rest)
        self._raise_errors_of_handlers()

    async def advance(
        self,
        duration: timedelta | None = None,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Advance the time; everything that is due on the way happens in its order."""
        given = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        total = (given + (duration or timedelta())).total_seconds()
        if total <= 0:
            raise ConfigError(f"advance by {total:g} s: time only moves on")
        until = self._running().now + total
        await self._move(f"time cannot move on by {shown(total)}", self._has_errors, until)
        self._raise_errors_of_handlers()

    # --- what happened ---------------------------------------------------------------------

    def published(
        self,
        type: str | None = None,
        *,
        channel: str | None = None,
        instance: str | None = None,
    ) -> list[Event[Any]]:
        """Events the app published, in stored order, by type or pattern (``custom.*``).

        An event published twice under one id is one event; dead letters only by their type.
        """
        return self._records.published(type, channel, instance)

    @property
    def dead_letters(self) -> list[Event[Any]]:
        """The app's dead letters; ``payload["error"]`` and ``["originalEventId"]`` say of what."""
        return self._records.published(DEAD_LETTER, None, None)

    def attempts(self, handler: Named, event: Published | Event[Any] | str | None = None) -> int:
        """Number of runs of a handler, for one event or for all."""
        return len(self.runs(handler, event))

    def outcomes(
        self, handler: Named, event: Published | Event[Any] | str | None = None
    ) -> list[Outcome]:
        """Outcomes of a handler's runs, in order; a run whose process died has none."""
        return [run.outcome for run in self.runs(handler, event) if run.outcome is not None]

    def runs(self, handler: Named, event: Published | Event[Any] | str | None = None) -> list[Run]:
        """Runs of a handler in the order they began, with event and attempt."""
        id = event if event is None or isinstance(event, str) else event.id
        return self._records.runs_of(find(self.app.handlers, handler), id)

    @property
    def pending(self) -> list[Pending]:
        """Events that are not settled yet, including those that wait for a retry."""
        clock, bus = self._running(), self._process.bus
        return [] if bus is None else list(pending(bus, self.server, clock.now))

    # --- faults ----------------------------------------------------------------------------

    def drop_next_ack(self, count: int = 1) -> None:
        """Lose the next acks on their way: the events come again after ack_wait."""
        self._running()
        self._process.transport.drop_acks(count)

    def disconnect(self, seconds: float | None = 1.0) -> None:
        """Break the app's connection, for this many seconds or (None) until ``reconnect``."""
        clock = self._running()
        self._process.transport.disconnect()
        self._forget_reconnecting()  # of an earlier one: the last word counts
        if seconds is not None:
            self._down_until = clock.call_later(seconds, self.reconnect)

    def reconnect(self) -> None:
        """Let the app connect again."""
        self._forget_reconnecting()
        self._process.transport.reconnect()

    def crash(self, handler: Named, *, on_attempt: int | None = 1, times: int = 1) -> None:
        """Let the process die when the handler has done its work, before anything is answered.

        In that attempt, or (None) in the next one, ``times`` times in all; each time a new process
        takes over at once.
        """
        self._running()
        meant: list[Handler] = find(self.app.handlers, handler)
        self._around.crashes.append(Crash(meant, on_attempt, times))

    # --- inside ----------------------------------------------------------------------------

    def _running(self) -> VirtualTime:
        if self._clock is None:
            raise ConfigError(
                "this TestWorker is not running: async with TestWorker(app) as t: …; the fixture"
                " `worker` runs inside the test only, not in other fixtures"
            )
        return self._clock

    def _begin(self) -> None:
        self._process = Process(self._around)
        self._process.begin()
        self._coming_back = self._around.clock.start(self._come_back(self._process), "supervisor")

    async def _come_back(self, process: Process) -> None:
        """Restart the process when it died, as a supervisor does."""
        await process.died.wait()
        assert process.life is not None
        await asyncio.wait([process.life])
        self._begin()

    async def _stop(self, why: str) -> None:
        if self._coming_back is not None:
            self._coming_back.cancel()
        self._process.end()
        await self._move(why, self._has_ended)
        self._forget_reconnecting()

    def _forget_reconnecting(self) -> None:
        if self._down_until is not None:
            self._down_until.cancel()
            self._down_until = None

    async def _close(self, *, quietly: bool) -> None:
        clock = self._running()
        try:
            await self._stop("the app does not stop")
            life = self._process.life
            if not quietly and life is not None and not self._process.is_dead:
                life.result()
        except Unsettled:
            await self._abandon()
            if not quietly:
                raise
        finally:
            await self._outside.close()
            self.server.watchers.remove(self._records.on_stored)
            clock.workers.remove(self)
            clock.release()
            self._clock = None

    async def _abandon(self) -> None:
        """Kill a process that does not stop."""
        life = self._process.life
        if life is not None:
            life.cancel()

    async def _move(self, why: str, done: Callable[[], bool], until: float | None = None) -> None:
        clock = self._running()
        clock.tested_by_current_task()
        first, steps, moves, began = len(self._records.runs), 0, -1, clock.now

        def is_done() -> bool:
            nonlocal steps, moves
            steps = steps + 1 if moves == self._records.moves else 0
            moves = self._records.moves
            if done():
                return True
            if until is None and steps > STEPS and clock.only_ours_left():
                raise NothingMoves
            return False

        try:
            await clock.move(is_done, patience=self._patience, until=until)
        except (NothingMoves, TooLong) as error:
            real = f"{self._patience:g} s of real time and {shown(clock.now - began)} of its own"
            ended = "nothing left could change that" if isinstance(error, NothingMoves) else real
            raise explain(
                f"{why}: {ended}{self._link_words()}",
                self.pending if self._clock else [],
                self._records.runs[first:],
                clock.waiting_for_outside(),
                clock.running(),
            ) from None

    def _link_words(self) -> str:
        if self._process.transport.is_connected or self._process.is_dead:
            return ""
        return "; the connection is down, and only t.reconnect() ends that"

    def _has_begun(self) -> bool:
        life = self._process.life
        return self._process.is_ready.is_set() or (life is not None and life.done())

    def _has_ended(self) -> bool:
        life = self._process.life
        return life is None or life.done()

    def _is_at_rest(self) -> bool:
        return self._has_errors() or all(one._is_quiet() for one in self._running().workers)

    def _is_quiet(self) -> bool:
        process = self._process
        if process.is_dead or not process.is_ready.is_set() or process.bus is None:
            return process.life is not None and process.life.done() and not process.is_dead
        return self._down_until is None and is_quiet(process.bus, self.server)

    @property
    def is_sent_back(self) -> bool:
        """Return True while events are on their way back from a dead letter."""
        bus = self._process.bus
        return bus is not None and is_sent_back(bus, self.server)

    def _has_errors(self) -> bool:
        return self._raise_errors and bool(self._records.errors)

    def _raise_if_failed(self) -> None:
        life = self._process.life
        if life is not None and life.done():
            life.result()

    def _raise_errors_of_handlers(self) -> None:
        if self._has_errors():
            errors, self._records.errors = self._records.errors, []
            raise errors[0]

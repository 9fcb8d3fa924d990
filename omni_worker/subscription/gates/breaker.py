"""Breaker: when every event fails, something they all need is down. Try a few now and then.

Otherwise three retries in seven seconds turn a whole backlog into dead letters. But many poison
events in a row look the same, and good ones wait behind them: so a trial is many different events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...outcomes import DONE, KEPT, Failed, HandBack, Outcome, Retry
from ...signals import BreakerClosed, BreakerOpened
from ...transports.base import Delivery, Source
from ..run import Run
from . import Flow, Gate, Go

FIRST_PAUSE = 0.5  # seconds before the first trial
LONGEST_PAUSE = 5.0  # seconds; each trial that fails doubles the pause up to here
GATHERING = 0.05  # seconds a trial that is due waits for more events than its first
LATE = 1.0  # seconds a trial that is due waits for an event that never failed
HOLD = "breaker"


class Breaker(Gate):
    """Open after ``limit`` failures in a row, until one run succeeds; 0 never opens.

    While it is open events run in trials, with growing pauses before them. A trial is all events
    that have a slot and never failed; only where there are none, one that failed before. The others
    of those are handed back, so that they hold no slot. What waits spends no attempt.
    """

    lets_plain_runs_pass = True  # while it is closed

    def __init__(
        self,
        limit: int,
        *,
        first_pause: float | None = None,
        longest_pause: float | None = None,
        counts_runs: bool = True,
    ) -> None:
        self._limit = limit
        self._counts_runs = counts_runs  # False: failed batches are counted, by who runs them
        self._first_pause = FIRST_PAUSE if first_pause is None else first_pause
        self._longest_pause = LONGEST_PAUSE if longest_pause is None else longest_pause
        self._pause = self._first_pause
        self.note_wait: Callable[[Run], Awaitable[None]] | None = None  # of a run that waits here
        self._waiting: dict[Run, asyncio.Future[bool]] = {}  # True: it may run
        self._let_go: dict[Run, str | None] = {}  # with the reason; None: others hand it back
        self._due = 0.0  # loop time of the next trial
        self._timer: asyncio.TimerHandle | None = None
        self._trial = 0  # number of the latest
        self._failed_trial = 0  # number of the latest that made the pause longer
        self._closed = False
        self.failures = 0  # in a row
        self.is_open = False

    def opened(self, flow: Flow) -> None:
        """Take the handler whose runs it counts."""
        self._flow = flow

    async def through(self, run: Run, go: Go) -> Outcome:
        """Run now or, while the breaker is open, in a trial."""
        if self.is_open:
            if not await self._may_run(run):
                if self._closed:
                    return HandBack(0.0, "we stop")
                if run in self._let_go:
                    why = self._let_go.pop(run)
                    return KEPT if why is None else HandBack(0.0, why)
                return HandBack(self._pause, "others are tried first")
            if self._flow.leases.has_lapsed(run.delivery):
                return HandBack(0.0, "its lease ran out while it waited")
            trial = self._trial
            outcome = await go(run)
            self.saw(outcome)
            if self.is_open and trial > self._failed_trial and _is_failure(outcome):
                self._failed_trial = trial
                self._pause = min(self._longest_pause, self._pause * 2)
                self._due = self._flow.now() + self._pause
                self._schedule()
            return outcome
        outcome = await go(run)
        if outcome is not DONE or self.failures:
            self.saw(outcome)
        return outcome

    def saw(self, outcome: Outcome) -> None:
        """Count an ending; the plain runs tell theirs as well."""
        if outcome is DONE:
            self._succeeded()
        elif self._counts_runs and _is_failure(outcome):
            self.count_failure()

    def hand_back(self, source: Source, why: str) -> None:
        """Hand back every run of a source that waits for a trial."""
        for run in [one for one in self._waiting if one.delivery.source is source]:
            self._end_wait(run, why)

    def let_go_new(self, source: Source) -> list[Delivery]:
        """End the waits of a source's runs that never failed; the caller hands them back."""
        waiting = [one for one in self._waiting if one.delivery.source is source]
        found = [one for one in waiting if not _failed_before(one)]
        for run in found:
            self._end_wait(run, None)
        return [run.delivery for run in found]

    def _end_wait(self, run: Run, why: str | None) -> None:
        turn = self._waiting.pop(run)
        if not turn.done():
            self._let_go[run] = why
            turn.set_result(False)

    def try_now(self) -> None:
        """Try the next event at once: the handler was resumed."""
        if self.is_open:
            self._due = self._flow.now()
            self._cancel_timer()
            self._schedule()

    def close(self) -> None:
        """End every wait for a trial."""
        self._closed = True
        self._end_waits(may_run=False)

    def _succeeded(self) -> None:
        """Close the breaker after a run that succeeded: what waits runs, all at once."""
        self.failures = 0
        if self.is_open:
            self.is_open = False
            self._pause = self._first_pause
            self._end_waits(may_run=not self._closed)
            self._flow.emit(BreakerClosed(handler=self._flow.handler))

    def count_failure(self) -> None:
        """Count a failure that may pass."""
        self.failures += 1
        if not self.is_open and self._limit and self.failures >= self._limit:
            self.is_open = True
            self._due = self._flow.now() + self._pause
            self._flow.emit(BreakerOpened(handler=self._flow.handler, failures=self.failures))

    # --- trials ----------------------------------------------------------------------------

    async def _may_run(self, run: Run) -> bool:
        """Wait for a trial, or for the end of the outage. Return False if others are tried."""
        if self._closed or (_failed_before(run) and self._has_others(run)):
            return False
        if self.note_wait is not None:
            await self.note_wait(run)
        if not self.is_open or self._closed:
            return not self._closed
        self._waiting[run] = turn = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= self._flow.slots.size:
            self._flow.hold(HOLD)  # they are enough for a trial
        self._schedule()
        try:
            may_run: bool = await turn
            return may_run
        finally:
            self._waiting.pop(run, None)
            if not self._waiting:
                self._flow.release(HOLD)

    def _has_others(self, run: Run) -> bool:
        """Return True if an event that never failed can be tried, or can come for a free slot.

        The server sends redeliveries first: runs that failed, in all slots, would keep others out.
        One of them stays once its trial is late: the others may never come, as where
        max_ack_pending is reached. With an order it stays before, too: what is handed back holds
        up everything.
        """
        if any(not _failed_before(one) for one in self._waiting):
            return True
        is_ordered = self._flow.handler.options.order_by is not None
        is_early = self._flow.now() < self._due + LATE and not is_ordered
        if (self._waiting or is_early) and run.delivery.pending:
            return True
        return any(delivery.count == 1 for delivery in self._flow.slots.buffer)

    def _schedule(self) -> None:
        """Set the time of the next trial, if there is something to try."""
        if self._waiting and self._timer is None and self.is_open and not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._due, loop.time() + GATHERING), self._try)

    def _try(self) -> None:
        """Begin a trial; what failed before makes room for others."""
        self._timer = None
        if not self._waiting or self._due - self._flow.now() > GATHERING:
            self._schedule()  # an earlier trial has failed since
            return
        self._trial += 1
        self._due = self._flow.now() + self._pause
        trial = [one for one in self._waiting if not _failed_before(one)]
        if not trial:
            trial = [min(self._waiting, key=lambda one: one.trouble.failures)]
        for run in trial:
            _answer(self._waiting.pop(run), may_run=True)
        for turn in self._waiting.values():
            _answer(turn, may_run=False)
        self._waiting.clear()
        self._flow.release(HOLD)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_waits(self, may_run: bool) -> None:
        self._cancel_timer()
        for turn in self._waiting.values():
            _answer(turn, may_run)
        self._waiting.clear()
        self._flow.release(HOLD)


def _failed_before(run: Run) -> bool:
    return run.trouble.failures > 0


def _is_failure(outcome: Outcome) -> bool:
    """Return True for a failure that may pass. A Retry is asked for, unless it says otherwise."""
    if not isinstance(outcome, Failed):
        return False
    return not isinstance(outcome.error, Retry) or outcome.error.is_failure


def _answer(turn: asyncio.Future[bool], may_run: bool) -> None:
    if not turn.done():
        turn.set_result(may_run)

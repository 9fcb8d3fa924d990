"""Breaker: when every event fails, something they all need is down. Try one now and then.

Otherwise three retries in seven seconds turn a whole backlog into dead letters.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...outcomes import DONE, Failed, HandBack, Outcome, Retry
from ...signals import BreakerClosed, BreakerOpened
from ..run import Run
from . import Flow, Gate, Go

FIRST_PAUSE = 1.0  # seconds before the first trial
LONGEST_PAUSE = 60.0  # seconds; each trial that fails doubles the pause up to here


class Breaker(Gate):
    """Open after ``limit`` failures in a row, until one run succeeds; 0 never opens.

    While it is open runs go one at a time, with growing pauses before them. What waits keeps its
    lease and spends no attempt.
    """

    lets_plain_runs_pass = True  # while it is closed

    def __init__(
        self, limit: int, *, first_pause: float | None = None, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self._limit = limit
        self._first_pause = FIRST_PAUSE if first_pause is None else first_pause
        self._longest_pause = longest_pause
        self._pause = self._first_pause
        self._turn = asyncio.Lock()
        self._woken = asyncio.Event()
        self._closed = False
        self.failures = 0  # in a row
        self.is_open = False

    def opened(self, flow: Flow) -> None:
        """Keep the handler's flow: its runs are counted here."""
        self._flow = flow

    async def through(self, run: Run, go: Go) -> Outcome:
        """Run it now; or, while everything fails, when its turn for a trial comes."""
        if not self.is_open:
            outcome = await go(run)
            if outcome is not DONE or self.failures:
                self.saw(outcome)
            return outcome
        async with self._trial() as turn:
            if not turn:
                return HandBack(0.0, "we stop")
            if self._flow.leases.has_lapsed(run.delivery):
                return HandBack(0.0, "its lease ran out while it waited")
            outcome = await go(run)
            self.saw(outcome)
            return outcome

    def saw(self, outcome: Outcome) -> None:
        """Count an ending; the plain runs tell theirs as well."""
        if outcome is DONE:
            self._succeeded()
        elif isinstance(outcome, Failed) and not isinstance(outcome.error, Retry):
            self._failed()  # a Retry was asked for, not suffered

    def close(self) -> None:
        """Nothing waits for a trial any longer."""
        self._closed = True
        self._woken.set()

    def _succeeded(self) -> None:
        """A run ended well: what the handler needs works again."""
        self.failures = 0
        if self.is_open:
            self.is_open = False
            self._pause = self._first_pause
            self._woken.set()
            self._flow.emit(BreakerClosed(handler=self._flow.handler))

    def _failed(self) -> None:
        """A run failed in a way that may pass."""
        self.failures += 1
        if self.is_open:
            self._pause = min(self._longest_pause, self._pause * 2)
        elif self._limit and self.failures >= self._limit:
            self.is_open = True
            if not self._closed:
                self._woken.clear()
            self._flow.emit(BreakerOpened(handler=self._flow.handler, failures=self.failures))

    @asynccontextmanager
    async def _trial(self) -> AsyncIterator[bool]:
        """Wait for a turn; yield False if the subscription stopped while waiting."""
        async with self._turn:
            if self.is_open:
                try:
                    async with asyncio.timeout(self._pause):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                else:
                    yield not self.is_open
                    return
            yield True

"""Breaker: when every event fails, something they all need is down. Try one now and then.

Otherwise three retries in seven seconds turn a whole backlog into dead letters.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...handlers import Handler
from ...signals import BreakerClosed, BreakerOpened, Signals

FIRST_PAUSE = 1.0  # seconds before the first trial
LONGEST_PAUSE = 60.0  # seconds; each trial that fails doubles the pause up to here


class Breaker:
    """Open after ``limit`` failures in a row, until one run succeeds; 0 never opens.

    While it is open runs go one at a time, with growing pauses before them. What waits keeps its
    lease and spends no attempt.
    """

    def __init__(self, limit: int, handler: Handler, signals: Signals) -> None:
        self._limit = limit
        self._handler = handler
        self._emit = signals.emit
        self.failures = 0  # in a row
        self._pause = FIRST_PAUSE
        self._turn = asyncio.Lock()
        self._woken = asyncio.Event()
        self.is_open = False

    def succeeded(self) -> None:
        """A run ended well: whatever was down is back."""
        self.failures = 0
        if self.is_open:
            self.is_open = False
            self._pause = FIRST_PAUSE
            self._woken.set()
            self._emit(BreakerClosed(handler=self._handler))

    def failed(self) -> None:
        """A run failed in a way that may pass."""
        self.failures += 1
        if self.is_open:
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
        elif self._limit and self.failures >= self._limit:
            self.is_open = True
            self._woken.clear()
            self._emit(BreakerOpened(handler=self._handler, failures=self.failures))

    def release(self) -> None:
        """We stop: nobody waits for a trial any more."""
        self._woken.set()

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[bool]:
        """Wait for a turn; says whether there is one (not when we stop meanwhile)."""
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

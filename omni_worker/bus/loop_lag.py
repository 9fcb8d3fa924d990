"""Loop lag: how late the event loop woke a task that slept, at worst, in the last few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

KEPT = 15  # sleeps, of a second each


class LoopLag:
    """Keep the lateness of the last sleeps. ``worst`` may be asked from any thread."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=KEPT)
        self._due = float("inf")  # of the sleep that goes on

    async def wait(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Wait for a future, at most so long, and note how late the loop was."""
        self._due = time.monotonic() + seconds
        await asyncio.wait([future], timeout=seconds)
        self._late.append(max(0.0, time.monotonic() - self._due))
        self._due = float("inf")

    @property
    def worst(self) -> float:
        """Seconds, the worst of the last fifteen, or how long the loop is blocked by now."""
        return max([*self._late.copy(), time.monotonic() - self._due, 0.0])

"""Loop lag: how late the event loop woke a task that slept, at worst, in the last few seconds."""

from __future__ import annotations

import time
from collections import deque

KEPT = 15  # sleeps, of a second each


class LoopLag:
    """Keep the lateness of the last sleeps."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=KEPT)

    def due(self, seconds: float) -> float:
        """Return when a sleep that begins now is due to end."""
        return time.monotonic() + seconds

    def note(self, due: float) -> None:
        """Note, at the end of a sleep, how late the loop was."""
        self._late.append(max(0.0, time.monotonic() - due))

    @property
    def worst(self) -> float:
        """Seconds, the worst of the last fifteen."""
        return max(self._late, default=0.0)

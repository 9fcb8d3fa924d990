"""RunTimes: how long the runs of a handler took, and how long events waited for their first one.

The event loop only notes each run; a thousand at a time are sorted and counted, which takes a third
of the time of a search for each. Any thread may read.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from time import time

LIMITS = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)  # seconds
FULL = 1_024  # runs until they are counted

# Begun and ended, in epoch seconds; when the event was stored, in epoch nanoseconds by the server's
# clock, None after the first run; whether it was handled.
Noted = tuple[float, float, int | None, bool]


class Histogram:
    """Numbers of seconds up to each of `LIMITS`, and longer, and their sum."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LIMITS) + 1)
        self.total = 0.0

    def add(self, seconds: Iterable[float]) -> None:
        """Add many. Where two clocks differ some are negative: zero."""
        latest, before = sorted(seconds), 0
        for index, limit in enumerate(LIMITS):
            up_to = bisect_right(latest, limit, before)
            self.buckets[index] += up_to - before
            before = up_to
        self.buckets[-1] += len(latest) - before
        self.total += sum(latest[bisect_left(latest, 0.0) :])


class Histograms:
    """Histograms of one handler: runs that succeeded and failed, and waits before the first."""

    __slots__ = ("failed", "succeeded", "waits")

    def __init__(self) -> None:
        self.succeeded = Histogram()
        self.failed = Histogram()
        self.waits = Histogram()

    def add(self, runs: list[Noted]) -> None:
        """Add many runs."""
        self.succeeded.add(ended - began for began, ended, _, is_done in runs if is_done)
        self.failed.add(ended - began for began, ended, _, is_done in runs if not is_done)
        self.waits.add(began - at / 1e9 for began, _, at, _ in runs if at is not None)


class RunTimes:
    """Times of one handler in this process."""

    __slots__ = ("_counted", "_latest", "_lock")

    def __init__(self) -> None:
        self._latest: list[Noted] = []
        self._counted = Histograms()
        self._lock = threading.Lock()

    def note(self, began: float, stored_at: int | None, is_done: bool) -> None:
        """Note a run that ends now; called on the event loop."""
        latest = self._latest
        latest.append((began, time(), stored_at, is_done))
        if len(latest) >= FULL:
            self._count()

    def read(self) -> Histograms:
        """Return what was counted until now; called from any thread."""
        with self._lock:  # the loop counts nothing now; what it notes comes next time
            self._counted.add(latest := self._latest.copy())
            del self._latest[: len(latest)]
            return _copy(self._counted)

    def _count(self) -> None:
        with self._lock:
            self._counted.add(self._latest)
            self._latest.clear()


def _copy(counted: Histograms) -> Histograms:
    copy = Histograms()
    for name in Histograms.__slots__:
        of, to = getattr(counted, name), getattr(copy, name)
        to.buckets, to.total = of.buckets.copy(), of.total
    return copy

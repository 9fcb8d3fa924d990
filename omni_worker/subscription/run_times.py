"""RunTimes: how long the runs of a handler took, and how long events waited for their first one.

The event loop only notes each time; a thousand at a time are counted, which takes a third of the
time of a search for each. Any thread may read.
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
FULL = 1_024  # times until they are counted


class Histogram:
    """Numbers of seconds up to each of `LIMITS`, and longer, and their sum."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LIMITS) + 1)
        self.total = 0.0

    def add(self, seconds: list[float]) -> None:
        """Add many. Where two clocks differ some are negative: zero."""
        if not seconds:
            return
        least, most = min(seconds), max(seconds)
        bucket = bisect_left(LIMITS, least)
        if bucket == bisect_left(LIMITS, most):  # those of a fast handler, nearly always
            self.buckets[bucket] += len(seconds)
        else:
            self._sort_in(seconds)
        self.total += sum(seconds) if least >= 0 else sum(max(0.0, one) for one in seconds)

    def copy(self) -> Histogram:
        """Return what was added until now."""
        copy = Histogram()
        copy.buckets, copy.total = self.buckets.copy(), self.total
        return copy

    def _sort_in(self, seconds: list[float]) -> None:
        latest, before = sorted(seconds), 0
        for index, limit in enumerate(LIMITS):
            up_to = bisect_right(latest, limit, before)
            self.buckets[index] += up_to - before
            before = up_to
        self.buckets[-1] += len(latest) - before


class Times:
    """Seconds noted one by one on the event loop: appended to ``latest``, counted when it is full.

    Any thread may read.
    """

    __slots__ = ("_counted", "_lock", "latest")

    def __init__(self) -> None:
        self.latest: list[float] = []
        self._counted = Histogram()
        self._lock = threading.Lock()

    def note(self, seconds: float) -> None:
        """Note one; called on the event loop."""
        self.latest.append(seconds)
        if len(self.latest) >= FULL:
            self.count()

    def count(self) -> None:
        """Count what was noted; called on the event loop."""
        with self._lock:
            self._counted.add(self.latest)
            self.latest.clear()

    def read(self) -> Histogram:
        """Return what was noted until now; called from any thread."""
        with self._lock:  # the loop counts nothing now; what it notes comes next time
            self._counted.add(latest := self.latest.copy())
            del self.latest[: len(latest)]
            return self._counted.copy()


class RunTimes:
    """Times of one handler in this process.

    ``succeeded`` and ``failed`` are those in its function, ``waits`` those from stored to begun.
    """

    __slots__ = ("failed", "succeeded", "waits")

    def __init__(self) -> None:
        self.succeeded = Times()
        self.failed = Times()
        self.waits = Times()

    def note(self, began: float, stored_at: int | None, is_done: bool) -> None:
        """Note a run that ends now; called on the event loop.

        ``began`` is in epoch seconds; ``stored_at`` is when the event was stored, in epoch
        nanoseconds by the server's clock, None after its first run.
        """
        # Flat, for it is done for every event.
        ran = (self.succeeded if is_done else self.failed).latest
        ran.append(time() - began)
        if stored_at is not None:
            self.waits.latest.append(began - stored_at / 1e9)
        if len(ran) >= FULL:
            for times in (self.succeeded, self.failed, self.waits):
                times.count()

    def note_call(self, began: float, stored_at: Iterable[int], is_done: bool) -> None:
        """Note the call of a batch that ends now, and the waits of events it was the first for."""
        (self.succeeded if is_done else self.failed).note(time() - began)
        for one in stored_at:
            self.waits.note(began - one / 1e9)

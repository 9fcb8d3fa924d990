"""Published: events by type and result, under a bounded number of names, and how long they took."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from ..errors import InvalidEvent, OmniWorkerError, PublishError
from ..subscription.run_times import FULL, Histogram

LABELS_KEPT = 1_000  # types whose label is remembered
OTHER = "other"
OPEN = ("custom", "system")  # domains in which every app may name types


class PublishedTypes:
    """Counts of what became of each published event. An undeclared type is `custom.*`."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()  # label and result
        self.knows: Callable[[str], bool] = lambda type: False
        self._labels: dict[str, str] = {}

    def count(self, type: str, result: str) -> None:
        """Count an event: `stored` or `duplicate`."""
        self.counts[self._labels.get(type) or self._label(type), result] += 1

    def failed(self, type: str, error: Exception) -> None:
        """Count a failure: `refused` for certain, else `failed`, where it may be stored."""
        certain = isinstance(error, OmniWorkerError) and not isinstance(error, PublishError)
        refused = isinstance(error, InvalidEvent) or certain
        self.count(type, "refused" if refused else "failed")

    def _label(self, type: str) -> str:
        label = type
        if not self.knows(type):
            domain = type.partition(".")[0]
            label = f"{domain}.*" if domain in OPEN else OTHER
        if len(self._labels) < LABELS_KEPT:
            self._labels[type] = label
        return label


class PublishTimes:
    """Seconds that publishes took, one by one; any thread may read."""

    def __init__(self) -> None:
        self._latest: list[float] = []
        self._counted = Histogram()
        self._lock = threading.Lock()

    def note(self, seconds: float | None) -> None:
        """Note one, unless it was not timed; called on the event loop."""
        if seconds is not None:
            self._latest.append(seconds)
            if len(self._latest) >= FULL:
                self.read()

    def read(self) -> Histogram:
        """Return what was counted until now."""
        with self._lock:
            self._counted.add(latest := self._latest.copy())
            del self._latest[: len(latest)]
            copy = Histogram()
            copy.buckets, copy.total = self._counted.buckets.copy(), self._counted.total
            return copy

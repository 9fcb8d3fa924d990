"""Published: events by type and result, under a bounded number of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..errors import InvalidEvent, OmniWorkerError, PublishError

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

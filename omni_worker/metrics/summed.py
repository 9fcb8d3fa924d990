"""Summed: the metrics of several processes as those of one, for the parent of several workers.

A counter must never fall, or a scraper takes the whole sum for new: what a worker had counted when
it was read last stays in the sum after its end, and while it does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from .families import PREFIX

GROWING = ("counter", "histogram", "summary")
LARGEST = frozenset(
    PREFIX + name
    for name in (
        "lag_events", "unacked_events", "redelivered_events", "pulls_waiting",
        "oldest_waiting_seconds", "paused", "breaker_open", "stalled", "loop_lag_seconds",
        "build_info", "dead_letters", "scheduled_events", "outbox_events",
    )
)  # fmt: skip
SMALLEST = frozenset(PREFIX + name for name in ("connected", "start_time_seconds"))
STARTED = (PREFIX + "start_time_seconds", "process_start_time_seconds")

Key = tuple[str, tuple[tuple[str, str], ...]]  # a sample's name and labels
Values = dict[Key, float]


@dataclass(slots=True)
class _Worker:
    """A worker of one number, over all its lives."""

    started: float | None = None  # when its present life began, by its own word
    growing: Values = field(default_factory=dict)  # of that life, when it was read last
    ended: Values = field(default_factory=dict)  # of all lives before


class Summed:
    """Adds up the workers of one parent, scrape after scrape."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._about: dict[str, tuple[str, str]] = {}  # of each family: documentation and type

    def add(self, texts: Mapping[int, str]) -> list[Metric]:
        """Return the sum, given what the workers that answered say now."""
        gauges: dict[str, Values] = {}
        for number, text in texts.items():
            families = list(text_string_to_metric_families(text))
            self._read_growing(self._workers.setdefault(number, _Worker()), families)
            for family in families:
                if family.type not in GROWING:
                    _add_gauge(gauges.setdefault(family.name, {}), family, number)
        return list(self._families(gauges))

    def _read_growing(self, worker: _Worker, families: list[Metric]) -> None:
        started = _started(families)
        if started != worker.started:
            _add(worker.ended, worker.growing)
            worker.started = started
        worker.growing = {}
        for family in families:
            self._about[family.name] = (family.documentation, family.type)
            if family.type in GROWING:
                for name, labels, value, *_ in family.samples:
                    worker.growing[name, tuple(labels.items())] = value

    def _families(self, gauges: Mapping[str, Values]) -> Iterator[Metric]:
        growing: Values = {}
        for worker in self._workers.values():
            _add(growing, worker.ended)
            _add(growing, worker.growing)
        by_family: dict[str, Values] = {}
        for key, value in growing.items():
            by_family.setdefault(self._family_of(key[0]), {})[key] = value
        for name, (documentation, kind) in self._about.items():
            values = by_family.get(name) if kind in GROWING else gauges.get(name)
            if values:
                family = Metric(name, documentation, kind)
                for (sample, labels), value in values.items():
                    family.add_sample(sample, dict(labels), value)
                yield family

    def _family_of(self, sample: str) -> str:
        for ending in ("", "_total", "_bucket", "_count", "_sum", "_created"):
            name = sample.removesuffix(ending) if ending else sample
            if name in self._about and self._about[name][1] in GROWING:
                return name
        return sample


def _add(to: Values, values: Values) -> None:
    for key, value in values.items():
        to[key] = to.get(key, 0.0) + value


def _add_gauge(values: Values, family: Metric, number: int) -> None:
    """Add a gauge: ours by its meaning, another's beside those of the other workers."""
    is_ours = family.name.startswith(PREFIX)
    for name, labels, value, *_ in family.samples:
        key = (name, tuple(labels.items()))
        if not is_ours:
            values[name, (*labels.items(), ("worker", str(number)))] = value
        elif key not in values:
            values[key] = value
        elif family.name in LARGEST:
            values[key] = max(values[key], value)
        elif family.name in SMALLEST:
            values[key] = min(values[key], value)
        else:
            values[key] += value


def _started(families: list[Metric]) -> float | None:
    found = {family.name: family.samples[0].value for family in families if family.samples}
    return next((found[name] for name in STARTED if name in found), None)

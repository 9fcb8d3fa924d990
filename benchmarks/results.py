"""Results: what was measured, as it lies in the results file; medians and ratios of it. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .jobs import Figures


@dataclass(slots=True)
class Row:
    """One contender: the figures of each of its rounds."""

    events: int
    rounds: list[Figures] = field(default_factory=list)


@dataclass(slots=True)
class Measurement:
    """One case, measured. ``missing`` and ``failed``: who could not be measured, and why."""

    title: str
    group: str
    shape: str
    base: str
    commit: str
    when: str
    scale: float = 1.0  # the part of the case's events it was measured with
    rows: dict[str, Row] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Results:
    """All that was measured on one machine with one set of versions."""

    machine: dict[str, str]
    versions: dict[str, str]
    cases: dict[str, Measurement] = field(default_factory=dict)


def from_plain(raw: dict[str, Any]) -> Results:
    """Results as JSON holds them."""
    cases = {}
    for name, case in raw["cases"].items():
        rows = {label: Row(**row) for label, row in case["rows"].items()}
        cases[name] = Measurement(**{**case, "rows": rows})
    return Results(raw["machine"], raw["versions"], cases)


def median(row: Row, figure: Callable[[Figures], float]) -> float:
    """The median of something over a row's rounds."""
    return statistics.median(figure(one) for one in row.rounds)


def figure(row: Row, name: str) -> float:
    """The median of a figure that is what it is."""
    return median(row, lambda one: one[name])


def rate(row: Row) -> float:
    """Events per second."""
    return row.events / median(row, lambda one: one["seconds"])


def cpu(row: Row) -> float:
    """CPU of the measured process, µs per event."""
    return median(row, lambda one: one["cpu"]) / row.events * 1e6


def server_cpu(row: Row) -> float:
    """CPU of the server, µs per event."""
    return median(row, lambda one: one["server_cpu"]) / row.events * 1e6


def cores(row: Row) -> float:
    """How many cores worker and server kept busy, together."""
    return median(row, lambda one: (one["cpu"] + one["server_cpu"]) / one["seconds"])


def spread(row: Row) -> float:
    """How far the rounds' rates lie apart, as a part of their median."""
    rates = [row.events / one["seconds"] for one in row.rounds]
    return (max(rates) - min(rates)) / statistics.median(rates)


def times(row: Row, other: Row) -> float:
    """How many times the rate of ``other`` this one has: the median of the rounds' own ratios.

    Rounds are compared one by one: what slows the machine for a while slows both.
    """
    return statistics.median(
        (row.events / mine["seconds"]) / (other.events / its["seconds"])
        for mine, its in zip(row.rounds, other.rounds, strict=True)
    )


def others(case: Measurement) -> float:
    """The most cores that somebody else used while a case was measured."""
    return max((one.get("others", 0.0) for row in case.rows.values() for one in row.rounds),
               default=0.0)  # fmt: skip


def idle_cpu(row: Row) -> float:
    """The part of a core a worker uses that has nothing to do."""
    return median(row, lambda one: one["cpu"] / one["seconds"])


def memory_per_handler(case: Measurement, label: str) -> float | None:
    """KB that each further handler takes, beside the same system with one (`NAME, 1 handler`)."""
    system, _, handlers = label.partition(", ")
    many = int(handlers.split()[0])
    one = case.rows.get(f"{system}, 1 handler")
    if many == 1 or one is None:
        return None
    return (figure(case.rows[label], "memory") - figure(one, "memory")) / (many - 1) * 1024

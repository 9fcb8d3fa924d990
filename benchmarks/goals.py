"""Goals: what we set out to reach, and what the results say about it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .results import Measurement, Results, Row, cpu, figure, idle_cpu, times
from .tables import Table

OURS = "omni-worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure, and the bound it is to keep. ``measure`` raises KeyError where it is missing."""

    text: str
    measure: Callable[[Results], float]
    least: float | None = None
    most: float | None = None
    unit: str = "×"

    def reached(self, value: float) -> bool:
        """Whether a figure keeps the bound."""
        enough = self.least is None or value >= self.least
        return enough and (self.most is None or value <= self.most)


def table_of_goals(results: Results) -> Table:
    """Every goal, its figure, and whether it is reached."""
    rows = []
    for goal in GOALS:
        bound = f"≥ {goal.least:g}" if goal.least is not None else f"≤ {goal.most:g}"
        try:
            value = goal.measure(results)
        except KeyError:
            rows.append((goal.text, f"{bound} {goal.unit}", "–", "not measured"))
            continue
        answer = "yes" if goal.reached(value) else "no"
        rows.append((goal.text, f"{bound} {goal.unit}", f"{value:.3g} {goal.unit}", answer))
    return Table("Goals", ("", "wanted", "measured", "reached"), tuple(rows))


def _rate(case: str, row: str, other: str) -> Callable[[Results], float]:
    """How many times the rate of ``other`` a row has."""

    def measure(results: Results) -> float:
        measured = results.cases[case]
        return times(measured.rows[row], measured.rows[other])

    return measure


def _row(case: str, row: str, of: Callable[[Row], float]) -> Callable[[Results], float]:
    return lambda results: of(results.cases[case].rows[row])


def _latency(name: str) -> Callable[[Results], float]:
    def measure(results: Results) -> float:
        case: Measurement = results.cases["latency-50"]
        return figure(case.rows[OURS], name) / figure(case.rows[case.base], name)

    return measure


def _of_ideal(row: Row) -> float:
    return row.events / figure(row, "seconds") / figure(row, "ideal")


def _growth(row: Row) -> float:
    return figure(row, "memory_peak") - figure(row, "memory_before")


GOALS = (
    Goal(text="drain, beside FastStream", measure=_rate("drain", OURS, "FastStream"), least=10),
    Goal(
        text="drain, beside a fetch(500) loop",
        measure=_rate("drain", OURS, "fetch(500) loop"),
        least=2.5,
    ),
    Goal(
        text="drain, beside the bare continuous pull",
        measure=_rate("drain", OURS, "bare continuous pull"),
        least=1.2,
    ),
    Goal(
        text="the same without headers, beside the loop",
        measure=_rate("drain-foreign", OURS, "fetch(500) loop"),
        least=2.5,
    ),
    Goal(
        text="the same without headers, beside the pull",
        measure=_rate("drain-foreign", OURS, "bare continuous pull"),
        least=1.2,
    ),
    Goal(text="CPU per event drained", measure=_row("drain", OURS, cpu), most=10, unit="µs"),
    Goal(
        text="drain, beside the C client, an aim",
        measure=_rate("drain", OURS, "C client"),
        least=0.5,
    ),
    Goal(
        text="publish_many, beside publish_async",
        measure=_rate("publish-many", OURS, "nats-py publish_async"),
        least=1.3,
    ),
    Goal(
        text="publish_many, beside FastStream",
        measure=_rate("publish-many", OURS, "FastStream"),
        least=3.5,
    ),
    Goal(
        text="one in, one out, beside FastStream",
        measure=_rate("relay", OURS, "FastStream"),
        least=6,
    ),
    Goal(text="latency at half the rate, p50", measure=_latency("p50"), most=1.1),
    Goal(text="latency at half the rate, p99", measure=_latency("p99"), most=1.5),
    Goal(
        text="handlers of 100 ms, 1 000 at once",
        measure=_row("wait-100ms", f"{OURS}, 1 000 at once", _of_ideal),
        least=0.95,
        unit="of ideal",
    ),
    Goal(
        text="a million waiting, beside 100 000",
        measure=_rate("backlog", "1 000 000 waiting", "100 000 waiting"),
        least=0.9,
    ),
    Goal(
        text="memory growth through a million",
        measure=_row("backlog", "1 000 000 waiting", _growth),
        most=20,
        unit="MB",
    ),
    Goal(
        text="100 idle handlers, CPU",
        measure=_row("idle", f"{OURS}, 100 handlers", lambda row: idle_cpu(row) * 100),
        most=0.3,
        unit="%",
    ),
    Goal(
        text="two processes that burn, beside one",
        measure=_rate("processes-burn", "2 processes", "1 process"),
        least=1.6,
    ),
    Goal(text="timeout= set, beside none", measure=_rate("price", "timeout=30", OURS), least=0.95),
    Goal(
        text="one middleware, beside none",
        measure=_rate("price", "one middleware", OURS),
        least=0.9,
    ),
)

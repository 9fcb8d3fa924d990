"""Tables: results as rows of text, for a terminal of 80 columns and as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .results import (
    Measurement,
    cores,
    cpu,
    figure,
    idle_cpu,
    median,
    memory_per_handler,
    others,
    rate,
    server_cpu,
    spread,
    times,
)

WIDTH = 80
Cells = tuple[str, ...]
QUIET = 0.15  # cores used by others up to which a figure is worth quoting


@dataclass(frozen=True, slots=True)
class Table:
    """A head, rows as long as it, notes beneath. Words first, then figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def number(value: float) -> str:
    """Three digits that say something: 12 345, 123, 12.3, 1.23."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def count(events: int) -> str:
    """Every digit: 12 345."""
    return f"{events:,}".replace(",", " ")


def percent(part: float) -> str:
    """A part as per cent."""
    return f"{part * 100:.0f} %"


def table_of(case: Measurement) -> Table:
    """The table of a measured case, by its shape."""
    head, cells = _SHAPES[case.shape]
    rows = [(label, *cells(label, case)) for label, row in case.rows.items() if row.rounds]
    return Table(case.title, ("", *head), tuple(rows), tuple(_notes(case)))


def as_text(table: Table) -> str:
    """For a terminal."""
    lines = [table.title, *_aligned([table.head, *table.rows]), *table.notes]
    return "\n".join(lines)


def as_markdown(table: Table, *, titled: bool = True) -> str:
    """For docs/, columns aligned so that the source can be read as well."""
    widths = _widths([table.head, *table.rows])
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [_cells(table.head, widths), rule, *(_cells(row, widths) for row in table.rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in body]
    title = [f"**{table.title}**", ""] if titled else []
    notes = ["", " ".join(table.notes)] if table.notes else []
    return "\n".join([*title, *lines, *notes])


def _notes(case: Measurement) -> list[str]:
    rounds = max((len(row.rounds) for row in case.rows.values()), default=0)
    part = f" A trial with {case.scale:g} of the events." if case.scale != 1.0 else ""
    said = [f"Medians of {rounds} rounds." if rounds > 1 else "One round."]
    said[0] += part
    said += [f"{label} is left out: {why}." for label, why in case.missing.items()]
    said += [f"{label} failed: {why[:200]}" for label, why in case.failed.items()]
    if (busy := others(case)) > QUIET:
        said.append(f"Noisy: other processes used up to {busy:.1f} cores at the same time.")
    return said


def _rates(label: str, case: Measurement) -> Cells:
    """Beside our own: how many times its rate we have, and how many times our CPU it needs."""
    row, base = case.rows[label], case.rows.get(case.base)
    return (
        count(row.events),
        number(rate(row)),
        f"{number(times(base, row))} ×" if base else "",
        f"± {spread(row) * 50:.0f} %",
        number(cpu(row)),
        f"{number(cpu(row) / cpu(base))} ×" if base else "",
        number(server_cpu(row)),
    )


def _parts(label: str, case: Measurement) -> Cells:
    """Beside the plainest of the same: which part of its rate is left."""
    row, base = case.rows[label], case.rows.get(case.base)
    return (
        count(row.events),
        number(rate(row)),
        percent(times(row, base)) if base else "",
        f"± {spread(row) * 50:.0f} %",
        number(cpu(row)),
        number(server_cpu(row)),
        number(cores(row)),
    )


def _ideals(label: str, case: Measurement) -> Cells:
    row = case.rows[label]
    ideal = row.rounds[0]["ideal"]
    return (
        count(row.events),
        number(rate(row)),
        number(ideal),
        percent(rate(row) / ideal),
        number(cpu(row)),
    )


def _latencies(label: str, case: Measurement) -> Cells:
    row, base = case.rows[label], case.rows.get(case.base)

    def cell(name: str) -> str:
        if base is None or base is row:
            return number(figure(row, name) / 1000)
        return (
            f"{number(figure(row, name) / 1000)} ({figure(row, name) / figure(base, name):.2f} ×)"
        )

    return (number(figure(row, "rate")), cell("p50"), cell("p99"), cell("p999"))


def _memories(label: str, case: Measurement) -> Cells:
    row, base = case.rows[label], case.rows.get(case.base)
    before, peak = figure(row, "memory_before"), figure(row, "memory_peak")
    return (
        number(rate(row)),
        percent(times(row, base)) if base else "",
        f"{before:.1f} MB",
        f"{peak:.1f} MB",
        f"{peak - before:.1f} MB",
    )


def _idles(label: str, case: Measurement) -> Cells:
    row = case.rows[label]
    each = memory_per_handler(case, label)
    return (
        f"{idle_cpu(row) * 100:.2f} %",
        f"{median(row, lambda one: one['server_cpu'] / one['seconds']) * 100:.2f} %",
        number(figure(row, "requests")),
        f"{figure(row, 'memory'):.1f} MB",
        "" if each is None else f"{each:.0f} KB",
    )


def _starts(label: str, case: Measurement) -> Cells:
    row = case.rows[label]
    return tuple(
        f"{figure(row, name) * 1000:.0f} ms"
        for name in ("importing", "subscribed", "seconds", "cpu")
    )


_SHAPES: dict[str, tuple[Cells, Callable[[str, Measurement], Cells]]] = {
    "rate": (("events", "events/s", "ours", "spread", "CPU µs", "ours", "server"), _rates),
    "part": (("events", "events/s", "of it", "spread", "CPU µs", "server", "cores"), _parts),
    "ideal": (("events", "events/s", "ideal", "of it", "CPU µs"), _ideals),
    "latency": (("events/s", "p50 ms", "p99 ms", "p99.9 ms"), _latencies),
    "memory": (("events/s", "of it", "before", "peak", "growth"), _memories),
    "idle": (("CPU", "server CPU", "requests/s", "memory", "per handler"), _idles),
    "start": (("imported", "subscribed", "first event", "CPU"), _starts),
}


def _widths(rows: list[Cells]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _cells(row: Cells, widths: list[int]) -> list[str]:
    first, *rest = row
    return [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]


def _aligned(rows: list[Cells]) -> list[str]:
    widths = _widths(rows)
    return ["  ".join(_cells(row, widths)).rstrip() for row in rows]

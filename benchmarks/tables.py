"""Tables: results as rows of text, for a terminal of 80 columns and as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .results import Measurement, Row, cpu, others, rate, server_cpu, spread, times

WIDTH = 80
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


def percent(part: float) -> str:
    """A part as per cent."""
    return f"{part * 100:.0f} %"


def table_of(case: Measurement) -> Table:
    """The table of a measured case, by its shape."""
    head, cells = _SHAPES[case.shape]
    base = case.rows.get(case.base)
    rows = [(label, *cells(row, base)) for label, row in case.rows.items() if row.rounds]
    return Table(case.title, ("", *head), tuple(rows), tuple(_notes(case)))


def as_text(table: Table) -> str:
    """For a terminal."""
    lines = [table.title, *_aligned([table.head, *table.rows]), *table.notes]
    return "\n".join(lines)


def as_markdown(table: Table) -> str:
    """For docs/, columns aligned so that the source can be read as well."""
    widths = _widths([table.head, *table.rows])
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [_cells(table.head, widths), rule, *(_cells(row, widths) for row in table.rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in body]
    notes = [f"\n{note}" for note in table.notes]
    return "\n".join([f"**{table.title}**", "", *lines, *notes])


def _notes(case: Measurement) -> list[str]:
    rounds = max((len(row.rounds) for row in case.rows.values()), default=0)
    said = [f"Medians of {rounds} rounds." if rounds > 1 else "One round."]
    said += [f"{label} is left out: {why}." for label, why in case.missing.items()]
    said += [f"{label} failed: {why[:200]}" for label, why in case.failed.items()]
    if (busy := others(case)) > QUIET:
        said.append(f"Noisy: other processes used up to {busy:.1f} cores meanwhile.")
    return said


def _rates(row: Row, base: Row | None) -> tuple[str, ...]:
    return (
        number(row.events),
        number(rate(row)),
        f"{number(times(base, row))} ×" if base else "",
        f"± {spread(row) * 50:.0f} %",
        number(cpu(row)),
        f"{number(cpu(row) / cpu(base))} ×" if base else "",
        number(server_cpu(row)),
    )


_SHAPES: dict[str, tuple[tuple[str, ...], Callable[[Row, Row | None], tuple[str, ...]]]] = {
    "rate": (("events", "events/s", "ours", "spread", "CPU µs", "ours", "server µs"), _rates),
}


def _widths(rows: list[tuple[str, ...]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    first, *rest = row
    return [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = _widths(rows)
    return ["  ".join(_cells(row, widths)).rstrip() for row in rows]

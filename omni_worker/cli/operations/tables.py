"""Tables: columns that align and fit the terminal. Pure text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from ...pretty import terminal_width

GAP = "  "
LEAST = 8  # columns a squeezed one keeps


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = ()
) -> list[str]:
    """Lines with a head; columns in ``right`` are numbers. The widest give way when it is tight."""
    texts = [list(head), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    room = terminal_width() - len(GAP) * (len(head) - 1)
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda column: widths[column])
        if widths[widest] <= LEAST:
            break
        widths[widest] -= 1
    return [
        GAP.join(
            _cut(cell, width).rjust(width) if column in right else _cut(cell, width).ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]


def facts(pairs: Iterable[tuple[str, object]]) -> list[str]:
    """`label  value` lines, the values under each other; what is None or empty is left out."""
    shown = [(label, str(value)) for label, value in pairs if value not in (None, "")]
    width = max((len(label) for label, _ in shown), default=0)
    lines: list[str] = []
    for label, value in shown:
        lines += wrapped(printable(value), first=f"{label:{width}}{GAP}")
    return lines


def wrapped(text: str, *, first: str = "", rest: str | None = None) -> list[str]:
    """A text in lines of the terminal's width; words stay whole, to be copied."""
    return textwrap.wrap(
        text,
        terminal_width(),
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def printable(text: str) -> str:
    """On one line, and without what could move a terminal's cursor: it comes from anybody."""
    return "".join(one if one.isprintable() else " " for one in " ".join(text.split()))


def ago(when: datetime | None, now: datetime | None = None) -> str:
    """`12 s`, `3 min`, `5 h`, `4 d`."""
    if when is None:
        return "-"
    return lasting(((now or datetime.now(UTC)) - when).total_seconds())


def lasting(seconds: float) -> str:
    """The same for a length of time."""
    seconds = max(0.0, seconds)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 100):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(when: datetime) -> str:
    """`2026-01-31 12:00:00`, in this machine's zone."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(when: datetime | None) -> str | None:
    """A moment for programs."""
    return None if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def as_json(value: Any, *, indent: int | None = None) -> str:
    """One JSON text; in one line where there are many."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"

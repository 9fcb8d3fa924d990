"""Tables: columns that align and fit the terminal, with nothing cut off. Pure text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from ..listeners.pretty import terminal_width
from ..listeners.text import columns_of, visible, visible_json

GAP = "  "
INDENT = 4  # of a text under its row
LEAST = 8  # columns a squeezed one keeps
ROOM = 24  # columns a text needs in its column; with less it is put under its row
SECOND = "\uffff"  # stands for the second column of a wide character while a text is wrapped

# Words that people copy: URLs, paths, subjects, ids.
_COPIED = re.compile(r"[\"'(\[<]*[\w./:@?&=#%+~,$*>-]+[\"')\]>.,;:]*", re.ASCII)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[int] = (),
    is_whole: bool = False,
) -> list[str]:
    """Lay out lines under a head; columns in ``right`` are numbers, the last may be a long text.

    Where space is short the text continues on further lines, then under its row, and then the
    widest names are broken: each can be read whole. With ``is_whole`` a text that does not fit on
    the line of its row is never continued beside it: all are put under their rows.
    """
    texts = [list(head), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    screen = terminal_width()
    beside = screen - sum(widths[:-1]) - len(GAP) * (len(head) - 1)
    is_text = widths[-1] > LEAST and len(head) - 1 not in right
    if is_text and beside < (widths[-1] if is_whole else min(widths[-1], ROOM)):
        _squeeze(widths, screen - len(GAP) * (len(head) - 2), len(head) - 1, right)
        under = [line for row in texts for line in _with_text_under(row, widths, right, screen)]
        if is_whole and beside >= len(head[-1]):  # the head keeps its one line
            under[:2] = [GAP.join((under[0].ljust(screen - beside - len(GAP)), head[-1]))]
        return under
    if is_text:
        widths[-1] = min(widths[-1], beside)
    _squeeze(widths, screen - len(GAP) * (len(head) - 1), len(head), right)
    return [line for row in texts for line in _row(row, widths, right)]


def facts(pairs: Iterable[tuple[str, object]]) -> list[str]:
    """Lay out `label  value` lines; values that are None or empty are left out."""
    shown = [(label, str(value)) for label, value in pairs if value not in (None, "")]
    width = max((len(label) for label, _ in shown), default=0)
    lines: list[str] = []
    for label, value in shown:
        lines += wrapped(printable(value), first=f"{label:{width}}{GAP}")
    return lines


def wrapped(text: str, *, first: str = "", rest: str | None = None) -> list[str]:
    """Wrap a text at the terminal's width; URLs, paths, subjects and ids stay whole, to be copied.

    Other words that are too long for a line are broken: data without blanks, or Chinese.
    """
    if not text.isascii():
        text = "".join(char + SECOND * (columns_of(char) - 1) for char in text)
    width = terminal_width() - (SECOND in text)  # a line may end in half of a wide character
    if text and len(first) + len(text) <= width and "\n" not in text and "\t" not in text:
        return [first + text.replace(SECOND, "")]  # most of many: wrapping costs ten times as much
    rest = " " * len(first) if rest is None else rest
    room = width - max(len(first), len(rest))
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=any(len(w) > room and not _COPIED.fullmatch(w) for w in text.split()),
        break_on_hyphens=False,
    )
    return [line.replace(SECOND, "") for line in lines] or [first.rstrip()]


def printable(text: str) -> str:
    """Put a text on one line, without control characters: it comes from other programs."""
    return visible(" ".join(text.split()))


def ago(when: datetime | None, now: datetime | None = None) -> str:
    """Format how long ago it was: `12 s`, `3 min`, `5 h`, `4 d`."""
    if when is None:
        return "-"
    return lasting(((now or datetime.now(UTC)) - when).total_seconds())


def lasting(seconds: float) -> str:
    """Format a length of time: `12 s`, `3 min`, `5 h`, `4 d`."""
    seconds = max(0.0, seconds)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 100):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def counted(number: int, what: str) -> str:
    """Format a number of things: `1 event`, `2 000 events`."""
    return f"{grouped(number)} {what}" if number == 1 else f"{grouped(number)} {what}s"


def grouped(number: int) -> str:
    """Format a number: `100 000`."""
    return f"{number:,}".replace(",", " ")


def moment(when: datetime) -> str:
    """Format a moment: `2026-01-31 12:00:00 CET`, in this machine's zone."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Write JSON; on one line where there are many."""
    return visible_json(value, indent=indent)


def _squeeze(widths: list[int], room: int, columns: int, right: Sequence[int]) -> None:
    """Make the widest of the first ``columns`` narrower until they fit; numbers stay whole."""
    names = [column for column in range(columns) if column not in right]
    while sum(widths[:columns]) > room:
        widest = max(names, key=lambda column: widths[column])
        if widths[widest] <= LEAST:
            return
        widths[widest] -= 1


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> list[str]:
    """Lay out a row, in as many lines as its longest cell takes."""
    broken = [_broken(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for line in range(max(map(len, broken))):
        parts = [
            part.rjust(width) if column in right else part.ljust(width)
            for column, (found, width) in enumerate(zip(broken, widths, strict=True))
            for part in [found[line] if line < len(found) else ""]
        ]
        lines.append(GAP.join(parts).rstrip())
    return lines


def _with_text_under(
    cells: Sequence[str], widths: Sequence[int], right: Sequence[int], screen: int
) -> list[str]:
    text = "" if cells[-1] == "-" else cells[-1]
    under = textwrap.wrap(text, screen - INDENT, break_on_hyphens=False)
    return [*_row(cells[:-1], widths[:-1], right), *(" " * INDENT + line for line in under)]


def _broken(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, max(1, width), break_on_hyphens=False) or [""]

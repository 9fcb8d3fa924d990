"""Wording: numbers, times and foreign text as the pages show them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

from ..listeners.text import visible

_DURATION = re.compile(r"(\d{1,6})\s*(s|m|min|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def shown(value: Any) -> Any:
    """Return what a template writes: no control or direction character of others gets through."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return ""
    if isinstance(value, str):
        return "\n".join(visible(line.expandtabs(4)) for line in value.split("\n"))
    return value


def grouped(number: float) -> str:
    """Format a whole number: `100 000`, with spaces that do not break."""
    return f"{number:,.0f}".replace(",", "\u202f")


def short(number: float) -> str:
    """Format a number in little space: `7`, `1.2k`, `34k`, `5.6M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return (
                f"{number / size:.1f}{unit}" if number < 10 * size else f"{number / size:.0f}{unit}"
            )
    return f"{number:.0f}"


def rate(per_second: float) -> str:
    """Format a rate: `0`, `0.2/s`, `12/s`, `3/min`."""
    if per_second <= 0:
        return "0"
    if per_second < 0.1:
        return f"{per_second * 60:.1f}/min"
    if per_second < 9.95:
        return f"{per_second:.1f}/s"
    return f"{short(per_second)}/s"


def share(part: float) -> str:
    """Format a part of the whole: `<1 %`, `12 %`."""
    return "<1 %" if part < 0.01 else f"{min(1.0, part) * 100:.0f} %"


def lasting(seconds: float) -> str:
    """Format a length of time: `12 s`, `3 min`, `5 h`, `4 d`."""
    seconds = max(0.0, seconds)
    for size, unit in _UNITS:
        if seconds >= 2 * size or (unit == "min" and seconds >= 100):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def precise(seconds: float) -> str:
    """Format a short time: `3 ms`, `1.25 s`, `4.0 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6_000 else f"{seconds / 3600:.1f} h"


def ago(when: datetime | None, now: datetime) -> str:
    """Format how long ago something was."""
    return "–" if when is None else lasting((now - when).total_seconds())


def size(count: float) -> str:
    """Format a number of bytes: `11 KiB`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def seconds(text: str) -> float | None:
    """Read a length of time: `30s`, `10m`, `2h`; None if it is none, or no time at all."""
    found = _DURATION.fullmatch(text.strip().lower())
    return float(int(found[1]) * _SECONDS[found[2]]) or None if found else None


def moment(text: str, now: datetime) -> datetime | None:
    """Read `2h` (ago) or an ISO 8601 time, in UTC unless it has a zone; None if it is neither."""
    text = text.strip()
    if found := _DURATION.fullmatch(text.lower()):
        try:
            return now - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
        except OverflowError:
            return None
    try:
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError):
        return None

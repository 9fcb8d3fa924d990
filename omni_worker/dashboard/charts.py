"""Charts: numbers as the rectangles of an SVG. Pure; colours are the style sheet's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 1.5  # of a bar that is not empty, so that one failure among thousands is seen


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; ``kind`` is its class in the style sheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Stacked bars in a box; ``top`` is the amount at its upper edge."""

    width: float
    height: float
    bars: tuple[Bar, ...]
    top: float

    @property
    def is_empty(self) -> bool:
        """True if nothing happened."""
        return not self.bars

    @property
    def paths(self) -> list[tuple[str, str]]:
        """Return a path for each kind: a page of many charts stays small."""
        found: dict[str, list[str]] = {}
        for bar in self.bars:
            found.setdefault(bar.kind, []).append(
                f"M{bar.x:g} {bar.y:g}h{bar.width:g}v{bar.height:g}h-{bar.width:g}z"
            )
        return [(kind, "".join(parts)) for kind, parts in found.items()]


def stacked(
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    width: float,
    height: float,
    gap: float = 1.0,
    least_top: float = 0.0,
) -> Chart:
    """Stack series of the same length upon each other, the first at the bottom."""
    count = max((len(values) for _, values in series), default=0)
    columns = [[(kind, values[each]) for kind, values in series] for each in range(count)]
    top = max((sum(amount for _, amount in column) for column in columns), default=0.0)
    top = max(top, least_top)
    bars: list[Bar] = []
    if top <= 0 or not count:
        return Chart(width, height, (), 0.0)
    step = width / count
    for index, column in enumerate(columns):
        floor = height
        for kind, amount in column:
            if amount <= 0.004:
                continue
            tall = max(LEAST, amount / top * height)
            floor = max(0.0, floor - tall)
            bars.append(
                Bar(kind, round(index * step, 2), round(floor, 2), round(max(0.5, step - gap), 2),
                    round(min(tall, height), 2))
            )  # fmt: skip
    return Chart(width, height, tuple(bars), top)


def nice_top(amount: float) -> float:
    """Round up to a number people like at an axis: 1, 2, 5, 10, 20, 50 …"""
    size = 1.0
    while True:
        for factor in (1, 2, 5):
            if amount <= size * factor:
                return size * factor
        size *= 10

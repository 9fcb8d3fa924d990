"""Rates: how much happened in the last fifteen minutes, in steps of five seconds. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

STEP = 5.0  # seconds
KEPT = 15 * 60.0  # seconds
STEPS = int(KEPT / STEP)


@dataclass(slots=True)
class Rates:
    """Amounts by step; what is older than `KEPT` is dropped, so that it never grows."""

    steps: dict[int, float] = field(default_factory=dict)

    def add(self, at: float, amount: float = 1.0) -> None:
        """Count something that happened at ``at`` (epoch seconds)."""
        step = int(at // STEP)
        self.steps[step] = self.steps.get(step, 0.0) + amount
        while len(self.steps) > STEPS:
            del self.steps[min(self.steps)]

    def spread(self, begin: float, end: float, amount: float) -> None:
        """Count what happened evenly between two looks, so that steps do not jump."""
        if amount <= 0:
            return
        begin = max(begin, end - KEPT)
        if end <= begin:
            self.add(end, amount)
            return
        first, last = int(begin // STEP), int(end // STEP)
        for step in range(first, last + 1):
            part = min(end, (step + 1) * STEP) - max(begin, step * STEP)
            self.add(step * STEP, amount * part / (end - begin))

    def total(self, now: float, seconds: float) -> float:
        """Return the amount of the last ``seconds``."""
        first = int((now - seconds) // STEP)
        return sum(amount for step, amount in self.steps.items() if step > first)

    def series(self, now: float, seconds: float, count: int) -> list[float]:
        """Return ``count`` amounts of equal parts of the last ``seconds``, the oldest first."""
        parts = [0.0] * count
        last = int(now // STEP)
        wide = max(1, round(seconds / STEP / count))  # steps in a part
        for step, amount in self.steps.items():
            index = count - 1 - (last - step) // wide
            if 0 <= index < count:
                parts[index] += amount
        return parts

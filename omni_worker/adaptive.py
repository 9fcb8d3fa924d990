"""Adaptive: how many events a handler runs at once, where it is to find that out itself. Pure.

It climbs: more at once are kept if more events are handled for it, and fewer if hardly fewer are.
Only times count in which every slot was busy and events waited; at other times nothing is to be
found out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import ConfigError

AUTO = "auto"
MOST = 100_000  # events at once
BEGIN = 10  # as many as without `auto`
FIRST_STEP, STEP = 2.0, 1.5  # until more were in vain for the first time · later
WORTH = 0.5  # twice as many at once have to handle 1.4 times as much, to be kept
RUNS, RUNS_EACH = 40, 3  # to be handled until a number is judged: at all, and by each slot
SHORTEST = 1.0  # seconds until then
SLOWER = 0.7  # of what was handled in the same time: it is judged at once
LONGEST_REST = 16  # measurements between two tries


@dataclass(frozen=True, slots=True)
class Auto:
    """Bounds of a concurrency that adapts itself: `concurrency=Auto(4, 100)`, both included."""

    least: int = 1
    most: int = 200

    def __post_init__(self) -> None:
        """Refuse bounds that cannot be. Raises ConfigError."""
        given = f"Auto({self.least!r}, {self.most!r})"
        for one in (self.least, self.most):
            if not isinstance(one, int) or isinstance(one, bool) or not 1 <= one <= MOST:
                raise ConfigError(f"{given}: expected two whole numbers, 1 to {MOST}")
        if self.least > self.most:
            raise ConfigError(f"{given}: expected the smaller number first")

    @property
    def begin(self) -> int:
        """Number of events at once before anything is known."""
        return max(self.least, min(self.most, BEGIN))

    def __str__(self) -> str:
        return f"auto, {self.least} to {self.most}"


def auto(given: Auto | Literal["auto"]) -> Auto:
    """Return the bounds of what was given for a concurrency that adapts itself."""
    return given if isinstance(given, Auto) else Auto()


class Climb:
    """Find how many at once are worth it, from looks at what was handled until then."""

    def __init__(self, bounds: Auto) -> None:
        self.size = bounds.begin
        self._bounds = bounds
        self._step = FIRST_STEP
        self._is_up = True  # the direction of the next step
        self._rest = self._next_rest = 0  # measurements until the next step, and after the next
        # Number and rate before the latest step, until that is judged.
        self._before: tuple[int, float] | None = None
        self._usual = 0.0  # rate at this number
        self.begin_again(0.0, 0)

    def begin_again(self, now: float, handled: int) -> None:
        """Measure from now on: a different number runs, or nothing was to be found out."""
        self._since, self._from = now, handled
        self._looks = self._idle_looks = 0
        # What began before ends first.
        self._is_settling = True

    def look(self, now: float, handled: int, *, is_full: bool) -> int:
        """Return how many are to run at once; ``is_full``: every slot is busy and events wait.

        ``now`` is seconds, ``handled`` counts the runs that succeeded.
        """
        self._looks += 1
        self._idle_looks += not is_full
        if self._idle_looks > max(1, self._looks / 5):
            self.begin_again(now, handled)
            return self.size
        runs, seconds = handled - self._from, now - self._since
        if self._is_settling:
            if runs >= self.size:
                self.begin_again(now, handled)
                self._is_settling = False
        elif runs >= max(RUNS, RUNS_EACH * self.size) and seconds >= SHORTEST:
            self._judge(runs / seconds)
            self.begin_again(now, handled)
            self._is_settling = self._before is not None
        return self.size

    def _judge(self, rate: float) -> None:
        if self._before is not None:
            size, before = self._before
            self._before = None
            if rate < before * (self.size / size) ** WORTH:
                self.size, self._step = size, STEP
                self._is_up = not self._is_up
                self._next_rest = min(LONGEST_REST, max(1, 2 * self._next_rest))
                self._rest = self._next_rest
                return
            self._next_rest = 0
        elif rate < self._usual * SLOWER:
            # Runs take longer: fewer at once may do as well.
            self._is_up, self._rest = False, 0
        self._usual = rate
        if self._rest:
            self._rest -= 1
        else:
            self._try(rate)

    def _try(self, rate: float) -> None:
        """Take a step; at a bound the next one goes the other way."""
        size = self.size
        up = min(self._bounds.most, max(size + 1, round(size * self._step)))
        down = max(self._bounds.least, min(size - 1, int(size / self._step)))
        self.size = up if self._is_up else down
        if self.size == size:
            self._is_up = not self._is_up
            self._next_rest = self._rest = min(LONGEST_REST, max(1, 2 * self._next_rest))
        else:
            self._before = size, rate

"""Rate: how often a handler may run, as text and in numbers. Pure.

Runs have times, evenly spaced, which processes take from one list by compare-and-set. Times of the
last second that were left may be used later: they are the burst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import ConfigError

NANO = 1_000_000_000
MOST = 1_000_000  # runs in one unit of time
AHEAD = NANO  # nanoseconds; a time that is later than this is not taken yet
LATEST = 2 * 3_600 * NANO  # a state whose first free time is later than this is not one of ours
SET_BACK = 5 * NANO  # a state from so far in the future: the server's clock was set back
CHUNKS = 50  # a process takes its times in so many portions a second

_UNITS = {"s": 1, "m": 60, "h": 3_600}
_FORM = re.compile(r"([1-9][0-9]{0,6})/([smh])")
EXPECTED = "a whole number of runs per second, minute or hour, such as '100/s', '30/m' or '1000/h'"


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of runs in a time of ``per`` seconds."""

    count: int
    per: int

    @property
    def burst(self) -> int:
        """Runs that may begin at once after a pause: those of one second, at least one."""
        return max(1, self.count // self.per)

    @property
    def chunk(self) -> int:
        """Runs for which a process takes times in one write."""
        return max(1, self.count // (self.per * CHUNKS))

    def span(self, runs: int) -> int:
        """Nanoseconds in which so many runs may begin."""
        return -(-runs * self.per * NANO // self.count)


@dataclass(frozen=True, slots=True)
class Taken:
    """State of one key: the first time that is free, and when that was written, by the server.

    Both are epoch nanoseconds.
    """

    at: int
    free: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Times that a process took: ``count`` of them, from ``first`` on, one ``span(1)`` apart."""

    first: int
    count: int


def parse_rate(text: object) -> Rate:
    """Return the rate. Raises ConfigError with what is expected."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) > MOST:
        raise ConfigError(f"expected {EXPECTED}")
    return Rate(int(found[1]), _UNITS[found[2]])


def take(rate: Rate, taken: Taken | None, now: int, wanted: int) -> tuple[Grant, Taken] | int:
    """Take times for ``wanted`` runs; or return the nanoseconds until that can be tried again.

    All that may begin now are taken, and of later ones a chunk.
    """
    free = 0
    if taken is not None and taken.free - taken.at <= LATEST:
        set_back = taken.at > now + SET_BACK
        free = now + taken.free - taken.at if set_back else taken.free
    first = max(free, now - rate.span(rate.burst - 1))
    if first > now + AHEAD:
        return first - AHEAD - now
    due = (now - first) // max(1, rate.span(1)) + 1 if first <= now else 0
    count = max(rate.chunk, min(wanted, due))
    return Grant(first, count), Taken(now, first + rate.span(count))

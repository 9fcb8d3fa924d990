"""Heartbeats: how long a pull request waits at the server, and what silence means."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf

EXPIRES = 30.0  # seconds a request waits at the server
EARLY = 0.05  # seconds before a shared moment that count as the moment: the server's clock differs
_PENDING = re.compile(rb"Nats-Pending-Messages: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Beat:
    """Interval of the server's heartbeats, and the silence that means a loss."""

    every: float  # seconds; 0.0: none
    silence: float  # seconds: two heartbeats may be missing, and a second of patience
    expires: float = EXPIRES
    together: bool = False  # requests end, and so heartbeats come, at one time for all consumers

    def options(self, now: float, longest: float = inf) -> bytes:
        """Time limits of a request made ``now``, by a clock that all consumers share.

        ``longest`` is the consumer's `max_expires`; heartbeats come twice in a request or more.
        """
        expires = until_together(now, self.expires) if self.together else self.expires
        expires = min(expires, longest)
        if not self.every:
            return b'"expires":%d}' % (expires * 1e9)
        every = min(self.every, expires / 2)
        return b'"expires":%d,"idle_heartbeat":%d}' % (expires * 1e9, every * 1e9)


# A cluster whose leader died sends no notice: a consumer with traffic must detect it soon.
BUSY = Beat(every=2.0, silence=5.0)
QUIET = Beat(every=5.0, silence=11.0, together=True)
# Where several consumers share: one that has nothing more returns what it does not need.
BRIEF = Beat(every=0.0, silence=5.0, expires=0.5)
# A request made while a leader goes away in good order may reach no leader, and no notice comes:
# the server sent it for the request before. Seen in a third of all rolling updates under load.
ELECTING = Beat(every=0.5, silence=2.0, expires=5.0)
BRIEF_ELECTING = replace(BRIEF, silence=2.0)
ELECTED_AFTER = 3.0  # seconds; later requests are as any


def next_beat(*, brief: bool, quiet: bool, electing: bool) -> Beat:
    """Choose for one request: ``quiet`` if the last one ended without a delivery."""
    if electing:
        return BRIEF_ELECTING if brief else ELECTING
    return BRIEF if brief else QUIET if quiet else BUSY


def until_together(now: float, longest: float) -> float:
    """Return the seconds to a moment that all consumers share: from half of ``longest`` to all.

    A hundred quiet consumers then wake the process together and rarely, not each one at its own
    time for each heartbeat.
    """
    return longest + EARLY - (now + EARLY) % (longest / 2)


def still_pending(headers: bytes, otherwise: int) -> int:
    """Return the number of deliveries still missing when a request ended."""
    found = _PENDING.search(headers)
    return int(found.group(1)) if found else otherwise

"""Beats: how long a request waits at the server, what its silence means and what its end."""

from __future__ import annotations

import re
from dataclasses import dataclass

EXPIRES = 30  # seconds a request waits at the server
_PENDING = re.compile(rb"Nats-Pending-Messages: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Beat:
    """How often the server speaks while a request waits, and when its silence means a loss."""

    options: bytes
    silence: float  # seconds

    @classmethod
    def every(cls, seconds: int) -> Beat:
        """Two heartbeats may be missing, and a second of patience."""
        options = b'"expires":%d,"idle_heartbeat":%d}' % (EXPIRES * 10**9, seconds * 10**9)
        return cls(options, 2 * seconds + 1)


# A cluster whose leader died does not tell: where events come, that is to be noticed soon.
BUSY = Beat.every(2)
QUIET = Beat.every(5)


def still_pending(headers: bytes, otherwise: int) -> int:
    """How many deliveries a request that has ended had still asked for."""
    found = _PENDING.search(headers)
    return int(found.group(1)) if found else otherwise

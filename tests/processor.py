"""Processor: how long our processes waited for one, so that a busy machine fails no test of times.

Linux counts that for each thread. Elsewhere it is unknown, and a time is all that passed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


class Stopwatch:
    """Seconds since it was made, without those in which our processes waited for a processor.

    Ours are this process and all below it: servers and workers under test. What one of them waits
    for otherwise, another process or a timer, counts. Waits of several at once are all left out, so
    that on a busy machine it rather measures too little.
    """

    def __init__(self) -> None:
        self._before = _waits()
        self._began = time.monotonic()

    def seconds(self, until: float | None = None) -> float:
        """Return the seconds until now, or ``until`` a time of the monotonic clock."""
        passed = (time.monotonic() if until is None else until) - self._began
        waited = sum(wait - self._before.get(thread, 0.0) for thread, wait in _waits().items())
        return max(0.0, passed - waited)


def _waits() -> dict[tuple[int, str], float]:
    """Return the seconds that each thread of ours was ready to run, and did not."""
    found, left = {}, [os.getpid()]
    while left:
        process = left.pop()
        with suppress(OSError):  # it has ended, or this is no Linux
            for thread in Path(f"/proc/{process}/task").iterdir():
                with suppress(OSError):
                    nanoseconds = (thread / "schedstat").read_text().split()[1]
                    found[process, thread.name] = int(nanoseconds) / 1e9
                    left += map(int, (thread / "children").read_text().split())
    return found

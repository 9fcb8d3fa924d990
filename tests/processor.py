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

    Ours are ``root``, this process by default, and all below it: servers and workers under test.
    What one of them waits for otherwise, another process or a timer, counts. Waits of several at
    once are all left out, so that on a busy machine it rather measures too little: choose a root
    below which one process at a time has something to do.
    """

    def __init__(self, root: int | None = None) -> None:
        self._root = os.getpid() if root is None else root
        self._before = _waits(self._root)
        self._began = time.monotonic()

    def seconds(self, until: float | None = None) -> float:
        """Return the seconds until now, or ``until`` a time of the monotonic clock."""
        passed = (time.monotonic() if until is None else until) - self._began
        waits = _waits(self._root).items()
        waited = sum(wait - self._before.get(thread, 0.0) for thread, wait in waits)
        return max(0.0, passed - waited)


def _waits(root: int) -> dict[tuple[int, str], float]:
    """Return the seconds that each thread below a process was ready to run, and did not."""
    found, left = {}, [root]
    while left:
        process = left.pop()
        with suppress(OSError):  # it has ended, or this is no Linux
            for thread in Path(f"/proc/{process}/task").iterdir():
                with suppress(OSError):
                    nanoseconds = (thread / "schedstat").read_text().split()[1]
                    found[process, thread.name] = int(nanoseconds) / 1e9
                    left += map(int, (thread / "children").read_text().split())
    return found

"""Measure: what every measured process shares: its readiness, the watch, the count of events.

It imports nothing of omni-worker: the memory and the start of others are measured with it.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
import time

from ..jobs import Figures, Job

_MB = 1024 * 1024


async def ready() -> None:
    """Say that the connection stands, and wait for the runner's word."""
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def memory() -> float:
    """Resident memory of this process now, MB (on Linux; elsewhere its peak)."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize() / _MB
    except OSError:
        return _peak()


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB if sys.platform == "darwin" else peak / 1024


class Watch:
    """Started at once: seconds and CPU of this process until ``stop``, and its memory."""

    def __init__(self) -> None:
        self.memory = memory()
        self.cpu = time.process_time()
        self.started = time.monotonic()

    def stop(self) -> Figures:
        """The figures so far. ``began`` and ``ended`` are comparable between processes."""
        ended = time.monotonic()
        return {
            "seconds": ended - self.started,
            "cpu": time.process_time() - self.cpu,
            "began": self.started,
            "ended": ended,
            "memory_before": self.memory,
            "memory_peak": _peak(),
        }


class Count:
    """Counts handled events; ``finished`` when all are, or when the runner says so."""

    def __init__(self, job: Job) -> None:
        self.handled = 0
        self._expected = None if job.shared else job.load.events
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self.last = 0.0

    def up(self) -> None:
        """One more, on the loop."""
        self.handled += 1
        if self._expected is None:
            self.last = time.monotonic()
        elif self.handled == self._expected:
            self._done.set()

    def up_in_thread(self) -> None:
        """One more, in any thread."""
        number = next(self._numbers)  # += is not atomic
        if number == self._expected:
            self._loop.call_soon_threadsafe(self._done.set)
        self.handled = max(self.handled, number)

    async def finished(self) -> None:
        """All are handled; with others on the durable the runner knows."""
        if self._expected is None:
            await asyncio.to_thread(sys.stdin.readline)
        else:
            await self._done.wait()

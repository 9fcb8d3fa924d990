"""Handlers: the model everybody validates, and the functions everybody runs."""

from __future__ import annotations

import asyncio
import statistics
import time
from array import array
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from omni_worker import Event

from ..jobs import Figures, Job
from .measure import Count


class Content(BaseModel):
    """Part of Received."""

    type: str
    text: str | None = None


class Received(BaseModel):
    """The payload everybody validates."""

    externalId: str
    chatId: str
    content: Content


# The same model for every system, envelope and payload.
MODEL = Event[Received]


def burn(seconds: float) -> None:
    """Use CPU: this thread's, so that a machine with other work on it burns no less."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def handler_for(job: Job, count: Count) -> Callable[..., Any]:
    """The handler a job asks for: every system runs the same one."""
    seconds = job.seconds

    async def counting(event: Event[Received]) -> None:
        count.up()

    async def waiting(event: Event[Received]) -> None:
        await asyncio.sleep(seconds)
        count.up()

    async def burning(event: Event[Received]) -> None:
        burn(seconds)
        count.up()

    def plain(event: Event[Received]) -> None:
        count.up_in_thread()

    return {"count": counting, "wait": waiting, "burn": burning, "plain": plain}[job.handler]


class Sent(Received):
    """The same payload with the moment it was published, ns of the machine's monotonic clock."""

    sentAt: int


class Delays:
    """From publish to the beginning of the handler, event by event."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._delays = array("q")

    async def handle(self, event: Event[Sent]) -> None:
        """The handler: notes how long the event took to get here."""
        self._delays.append(time.monotonic_ns() - event.payload.sentAt)
        self._count.up()

    def figures(self) -> Figures:
        """Percentiles in µs, without the first tenth; ``late``: the median of the last tenth."""
        delays = [delay / 1000 for delay in self._delays]
        tenth = max(1, len(delays) // 10)
        steady = sorted(delays[tenth:] or delays)
        return {
            "p50": _quantile(steady, 0.5),
            "p99": _quantile(steady, 0.99),
            "p999": _quantile(steady, 0.999),
            "late": statistics.median(delays[-tenth:]),
        }


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

"""For tests of handlers: the app on a JetStream in memory, the real engine, time in your hands."""

from __future__ import annotations

from ..transports.memory import MemoryServer
from .clock import TimeStandsStill
from .events import event_of
from .pending import Pending, Unsettled
from .records import Run
from .worker import TestWorker

__all__ = [
    "MemoryServer",
    "Pending",
    "Run",
    "TestWorker",
    "TimeStandsStill",
    "Unsettled",
    "event_of",
]

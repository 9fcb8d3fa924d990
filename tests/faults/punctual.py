"""Punctual: events that are published later, and how late each came where processes are hurt."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from omni_worker import EventBus
from omni_worker.errors import OmniWorkerError
from omni_worker.schedules.messages import due_consumer

from .causes import UNNAMED, Fault

LATE = 1.0  # seconds that an event may be late
HELD = due_consumer("shop").ack_wait + LATE + 1  # until what an ended process held comes
AHEAD = 1.5  # seconds from the first to be scheduled until it is due
TOGETHER = 50  # events that are scheduled at the same time

# A process that says when it is connected.
APP = """
from omni_worker import Extension
from omni_worker.signals import Connected, Disconnected

app = App("shop")

class Links(Extension):
    kinds = (Connected, Disconnected)

    def signal(self, fact):
        effect(type(fact).__name__)

app.use(Links())

@app.on("custom.late", durable="late", start_from="first", ack_wait=1)
async def late(event):
    effect("handled", id=event.id)
"""


class Scheduling:
    """Events that are scheduled on a bus, half of them at some moments together."""

    def __init__(self, bus: EventBus, events: int, seconds: float) -> None:
        self._bus = bus
        began = datetime.now(UTC) + timedelta(seconds=AHEAD)
        moments = 20
        self.due = {
            number: began + timedelta(
                seconds=seconds * (number / events if number % 2 else
                                   int(number / events * moments) / moments)
            )
            for number in range(events)
        }  # fmt: skip

    async def run(self) -> None:
        """Schedule all, those that are due first before the others."""
        waiting = sorted(self.due, key=lambda number: self.due[number], reverse=True)

        async def go_on() -> None:
            while waiting:
                await self._schedule(waiting.pop())

        await asyncio.gather(*(go_on() for _ in range(TOGETHER)))

    async def _schedule(self, number: int) -> None:
        while True:
            try:
                await self._bus.publish(
                    "custom.late", number, at=self.due[number], id=f"late-{number}"
                )
            except OmniWorkerError:
                continue  # by the same id: it is scheduled once
            return


class Wait(NamedTuple):
    """Times of one event, monotonic, and the seconds between them in which it could come."""

    connected: float
    due: float
    stored: float


@dataclass(frozen=True, slots=True)
class Punctuality:
    """Account of scheduled events; how long each took while a process could publish it."""

    scheduled: int
    lost: list[int]
    early: list[int]
    doubled: list[int]
    waits: dict[int, Wait]

    @classmethod
    async def of(
        cls, bus: EventBus, due: dict[int, datetime], spans: list[tuple[float, float]]
    ) -> Punctuality:
        """Read what was published. ``spans`` are the times at which a process was connected."""
        found: Counter[int] = Counter()
        waits: dict[int, Wait] = {}
        early = []
        by_wall = time.time() - time.monotonic()
        info = await bus.transport.operators.stream_info("CUSTOM")
        assert info is not None
        for sequence in range(1, info.state.last_sequence + 1):
            message = await bus.transport.operators.message("CUSTOM", sequence)
            assert message is not None
            number: int = json.loads(message.body)["payload"]
            if number not in due:
                continue
            found[number] += 1
            stored = message.stored_at / 1e9
            if stored < due[number].timestamp():
                early.append(number)
            times = due[number].timestamp() - by_wall, stored - by_wall
            waits.setdefault(number, Wait(connected(*times, spans), *times))
        return cls(
            scheduled=len(due),
            lost=[one for one in due if not found[one]],
            early=early,
            doubled=[one for one, times in found.items() if times > 1],
            waits=waits,
        )

    @property
    def behind(self) -> list[Wait]:
        """Waits of the events that came more than a second late."""
        return [one for one in self.waits.values() if one.connected > LATE]

    @property
    def latest(self) -> float:
        """Seconds that the latest event was late."""
        return max((one.connected for one in self.waits.values()), default=0.0)

    def because_of(self, faults: list[Fault]) -> Counter[str]:
        """Count them by the fault that can have held them: a process, or the server, was killed."""
        kills = [one for one in faults if one.name.startswith("kill")]
        return Counter(
            next(
                (
                    one.name
                    for one in kills
                    if wait.due - LATE <= one.until and one.since <= wait.stored <= one.until + HELD
                ),
                UNNAMED,
            )
            for wait in self.behind
        )


def connected(since: float, until: float, spans: list[tuple[float, float]]) -> float:
    """Return the seconds between two moments in which at least one process was connected."""
    total, at = 0.0, since
    for begin, end in sorted(spans):
        length = min(end, until) - max(begin, at)
        if length > 0:
            total, at = total + length, min(end, until)
    return total


def spans_of(
    effects: list[dict[str, Any]], gone: dict[str, float], faults: list[Fault]
) -> list[tuple[float, float]]:
    """Return the times at which each process was connected to a server that ran."""
    open_since: dict[str, float] = {}
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in sorted(effects, key=lambda effect: float(effect["at"])):
        if one["what"] == "Connected":
            open_since.setdefault(one["worker"], one["at"])
        elif one["what"] == "Disconnected" and one["worker"] in open_since:
            spans[one["worker"]].append((open_since.pop(one["worker"]), one["at"]))
    for worker, since in open_since.items():
        spans[worker].append((since, gone.get(worker, float("inf"))))
    away = [(one.since, one.until) for one in faults if one.name == "kill the server"]
    found = []
    for begin, end in (span for each in spans.values() for span in each):
        # What a process has not noticed yet is no connection.
        cut = min((since for since, _ in away if begin <= since < end), default=end)
        found.append((begin, cut))
    return found

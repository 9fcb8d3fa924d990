"""Turns: which process a consumer serves, where it serves one of several at a time. Pure.

The server says whether it serves one, the processes say which of them it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .processes import WorkerProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Turn at one consumer. ``active`` has two processes for a moment, when it passes on."""

    is_taken: bool  # the server serves one process, whether or not that one answers
    is_asked: bool = False  # the processes were asked which of them it is
    active: tuple[WorkerProcess, ...] = ()
    standby: tuple[WorkerProcess, ...] = ()

    @property
    def shown(self) -> str:
        """Say who is active, as a sentence goes on about a handler."""
        count = len(self.standby)
        others = f"; {count} other{'s stand' if count > 1 else ' stands'} by" if count else ""
        if self.active:
            return f"active in {' and in '.join(map(process_name, self.active))}{others}"
        if not self.is_asked:
            return "active in one process; which one is not known, it may not be asked"
        if self.is_taken:
            return f"active in a process that does not answer{others}"
        if self.standby:
            return f"active in no process yet, the next event chooses one; {count} ready"
        return "active in no process: none that answers reads it"


def process_name(process: WorkerProcess) -> str:
    """Name a process for people."""
    number = "" if process.number is None else f"worker {process.number}, "
    return f"{process.host} ({number}pid {process.pid})"


def with_processes(
    turn: Turn, processes: Sequence[WorkerProcess], app: str | None, stream: str, consumer: str
) -> Turn:
    """Add which of these processes is served, and which stand by."""
    reading = [
        (process, (stream, consumer) in one.standby)
        for process in processes
        if process.app == app
        for one in process.handlers
        if (stream, consumer) in one.consumers
    ]
    # Until a process asked once, it takes a consumer without turns for granted.
    return replace(
        turn,
        is_asked=True,
        active=tuple(one for one, stands_by in reading if turn.is_taken and not stands_by),
        standby=tuple(one for one, stands_by in reading if stands_by or not turn.is_taken),
    )


def added(one: Turn | None, other: Turn | None) -> Turn | None:
    """Add up the turns of a handler's two consumers on a stream."""
    if one is None or other is None:
        return one or other
    active = {each.id: each for each in (*one.active, *other.active)}
    waiting = {each.id: each for each in (*one.standby, *other.standby) if each.id not in active}
    return Turn(
        is_taken=one.is_taken or other.is_taken,
        is_asked=one.is_asked and other.is_asked,
        active=tuple(active.values()),
        standby=tuple(waiting.values()),
    )


def as_json(turn: Turn | None) -> Mapping[str, Any] | None:
    """Write a turn for programs; None where all processes are served at once."""
    if turn is None:
        return None
    return {
        "active": [
            {"id": one.id, "host": one.host, "pid": one.pid, "worker": one.number}
            for one in turn.active
        ],
        "taken": turn.is_taken,
        "standby": len(turn.standby),
    }

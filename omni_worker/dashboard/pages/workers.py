"""Workers: every process that answers, what it runs, and whether its loop keeps up."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ...operations.processes import WorkerProcess, as_json
from ..page import Ask, Facts, Page, of_all

LATE = 0.2  # seconds of loop lag that a person should know of


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A process with what is remarkable about it."""

    process: WorkerProcess
    tone: str
    remarks: tuple[str, ...]
    handled: int
    failed: int


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show the processes by app."""
    snapshot = ask.services.watch.snapshot
    found = snapshot.processes or ()
    versions = {one.version for one in found}
    apps: dict[str, list[Row]] = {}
    for one in found:
        apps.setdefault(one.app, []).append(row_of(one))
    yield {
        "apps": sorted(apps.items()),
        "count": len(found),
        "slots": sum(one.slots for one in found),
        "running": sum(one.running for one in found),
        "lag": max((one.loop_lag for one in found), default=0.0),
        "versions": sorted(versions),
        "is_denied": snapshot.is_denied_processes,
        "json": as_json(found, ask.now),
    }


def row_of(process: WorkerProcess) -> Row:
    """Say what is remarkable about a process."""
    remarks = [f"{one.name}: {stall}" for one in process.handlers for stall in one.stalls]
    remarks += [f"{one.name}: its breaker is open" for one in process.handlers if one.breaker_open]
    if process.loop_lag > LATE:
        remarks.append("something blocks its event loop")
    return Row(
        process=process,
        tone="warn" if remarks else "none",
        remarks=tuple(remarks),
        handled=total(process, "handled"),
        failed=sum(one.errors for one in process.handlers),
    )


def total(process: WorkerProcess, outcome: str) -> int:
    """Sum one outcome over a process's handlers."""
    return sum(one.counts.get(outcome, 0) for one in process.handlers)


PAGE = Page(path="/workers", name="workers", title="Workers", facts=facts, version=of_all,
            is_shared=True)  # fmt: skip

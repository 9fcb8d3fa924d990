"""The handler of both workers: notes that it began and ended, and does what the scenario says."""

from __future__ import annotations

import asyncio
import os
import time

WAIT = float(os.environ.get("WORK_WAIT", "0"))  # seconds a run takes
FAILS = int(os.environ.get("WORK_FAILS", "0"))  # so many first runs of an event fail


async def work(id: str) -> None:
    """One run."""
    note("began", id)
    if runs_of(id) <= FAILS:
        raise ValueError("not yet")
    await asyncio.sleep(WAIT)
    note("ended", id)


def note(what: str, id: str) -> None:
    """A line that outlives the process."""
    with open(os.environ["WORK_NOTES"], "a") as notes:
        notes.write(f"{time.time()} {what} {id}\n")


def runs_of(id: str) -> int:
    """How often it began, in whatever process."""
    with open(os.environ["WORK_NOTES"]) as notes:
        return sum(line.split()[1:] == ["began", id] for line in notes)

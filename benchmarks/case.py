"""Case: one question, and who answers it. Data only; the tables of cases are in `cases/`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .jobs import Job
from .loads import Load
from .protocols import Protocol, drained


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One row of a case."""

    label: str
    job: Job
    protocol: Protocol = drained


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question. ``base`` is the label the others are set in relation to."""

    name: str
    title: str
    contenders: tuple[Contender, ...]
    base: str
    group: str  # the chapter of docs/performance.md
    shape: str = "rate"  # the columns of its table
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class System:
    """Who can be measured. ``pace``: events per second it manages on a slow day."""

    label: str
    module: str
    pace: int
    work: str = "drain"
    tasks: bool = False


OMNI = System("omni-worker", "omni", 50_000)
FASTSTREAM = System("FastStream", "fast_stream", 4_000)
TASKIQ = System("taskiq-nats", "task_iq", 2_000, tasks=True)
FETCH = System("fetch(500) loop", "nats_py", 25_000)
PULL = System("bare continuous pull", "nats_py", 50_000, work="pull")
C_CLIENT = System("C client", "c_client", 120_000)

SECONDS = 4  # a run lasts about so long at a system's pace, at most


def enough(events: int, pace: float) -> int:
    """As many of the events as a system handles in one run; a round number."""
    most = int(pace * SECONDS)
    if events <= most:
        return events
    digits: int = 10 ** max(0, len(str(most)) - 2)
    return max(1, most // digits * digits)


def draining(
    load: Load, systems: tuple[System, ...], job: Job | None = None
) -> Iterator[Contender]:
    """A contender for each system: all drain the load, slow ones fewer of the same events."""
    for system in systems:
        mine = replace(load, events=enough(load.events, system.pace), tasks=system.tasks)
        template = job or Job(system="", work="", load=mine)
        yield Contender(
            label=system.label,
            job=replace(template, system=system.module, work=system.work, load=mine),
        )

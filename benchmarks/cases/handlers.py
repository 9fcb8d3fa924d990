"""Handlers: that wait, that are plain functions, that are many, in more than one process."""

from __future__ import annotations

from dataclasses import replace

from ..case import FASTSTREAM, OMNI, Case, Contender, System, enough
from ..jobs import Job
from ..loads import Load
from ..protocols import shared

SECONDS = 4  # a run of waiting handlers lasts about so long; its start and end count less
WAITS = (0.001, 0.01, 0.1)
AT_ONCE = (1, 10, 100, 1_000)
BURN = 0.0002  # seconds of CPU: two processes and the server share two cores
PLAIN = ((FASTSTREAM, 2_500), (OMNI, 5_000))  # and their pace
EVENTS = 200_000


def _waiting(system: System, wait: float, concurrency: int) -> Contender:
    ideal = concurrency / wait
    load = Load(events=max(10, min(int(ideal * SECONDS), enough(EVENTS, system.pace))))
    job = Job(
        system=system.module,
        work="drain",
        load=load,
        handler="wait",
        seconds=wait,
        concurrency=concurrency,
    )
    return Contender(label=f"{system.label}, {concurrency:,} at once".replace(",0", " 0"), job=job)


def _drain(label: str, system: System, load: Load, **job: object) -> Contender:
    given = Job(system=system.module, work="drain", load=load)
    return Contender(label=label, job=replace(given, **job))  # type: ignore[arg-type]


def _processes(number: int, load: Load, **job: object) -> Contender:
    label = "1 process" if number == 1 else f"{number} processes"
    return replace(_drain(label, OMNI, load, **job), protocol=shared(number))


_WAITING = tuple(
    Case(
        name=f"wait-{wait * 1000:.0f}ms",
        title=f"Handlers that await {wait * 1000:.0f} ms",
        contenders=tuple(
            _waiting(system, wait, concurrency)
            for concurrency in AT_ONCE
            for system in (FASTSTREAM, OMNI)
        ),
        base="",
        group="handlers",
        shape="ideal",
    )
    for wait in WAITS
)

# FastStream's pace falls with the number: as many events for both as it drains in some seconds.
_MANY = tuple(
    _drain(
        f"{system.label}, {number}",
        system,
        Load(events=enough(EVENTS, min(system.pace, pace)), types=number),
    )
    for number, pace in ((1, EVENTS), (10, 8_000), (100, 2_500))
    for system in (FASTSTREAM, OMNI)
)

CASES = (
    *_WAITING,
    Case(
        name="plain",
        title="Plain def handlers, each run in a thread, 10 at once",
        contenders=tuple(
            _drain(system.label, system, Load(events=enough(EVENTS, pace)), handler="plain")
            for system, pace in PLAIN
        ),
        base=OMNI.label,
        group="handlers",
    ),
    Case(
        name="handlers",
        title="1, 10 and 100 handlers in one app, the same events shared among them",
        contenders=_MANY,
        base=f"{OMNI.label}, 1",
        group="handlers",
        shape="part",
    ),
    Case(
        name="processes-burn",
        title="Processes on one durable, handlers that use 200 µs of CPU",
        contenders=tuple(
            _processes(number, Load(events=15_000), handler="burn", seconds=BURN)
            for number in (1, 2)
        ),
        base="1 process",
        group="processes",
        shape="part",
    ),
    Case(
        name="processes",
        title="Processes on one durable, handlers that do nothing",
        contenders=tuple(_processes(number, Load(events=EVENTS)) for number in (1, 2)),
        base="1 process",
        group="processes",
        shape="part",
    ),
)

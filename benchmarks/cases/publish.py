"""Publishing: one by one, many at once, and one event out of a handler for each that comes in."""

from __future__ import annotations

from ..case import FASTSTREAM, FETCH, OMNI, SECONDS, Case, Contender, System, enough
from ..jobs import Job
from ..loads import Load
from ..protocols import published, relayed

MANY = 200_000
TRIES = 5_000  # events to find the best window with

_ONE_BY_ONE = (
    System("taskiq-nats", "task_iq", 2_500, work="publish", tasks=True),
    System("FastStream", "fast_stream", 2_500, work="publish"),
    System("nats-py publish", "nats_py", 4_000, work="publish"),
    System("omni-worker", "omni", 4_000, work="publish"),
)
_AT_ONCE = (
    System("FastStream", "fast_stream", 10_000, work="publish"),
    System("nats-py publish_async", "nats_py", 30_000, work="publish_async"),
    System("omni-worker", "omni", 30_000, work="publish"),
)
_RELAYING = ((FASTSTREAM, 3_000, 100), (FETCH, 2_500, 1), (OMNI, 15_000, 100))


def _publishing(system: System, events: int, **settings: object) -> Contender:
    load = Load(events=enough(events, system.pace), tasks=system.tasks)
    job = Job(system=system.module, work=system.work, load=load, settings=settings)
    return Contender(label=system.label, job=job, protocol=published)


def _relaying(system: System, pace: int, concurrency: int) -> Contender:
    load = Load(events=enough(MANY, pace))
    job = Job(system=system.module, work="relay", load=load, concurrency=concurrency)
    return Contender(label=system.label, job=job, protocol=relayed)


CASES = (
    Case(
        name="publish-each",
        title="Publish one by one, each confirmed before the next",
        contenders=tuple(_publishing(system, SECONDS * 4_000, each=True) for system in _ONE_BY_ONE),
        base=OMNI.label,
        group="publish",
    ),
    Case(
        name="publish-many",
        title="Publish many at once, all confirmed",
        contenders=tuple(_publishing(system, MANY, tries=TRIES) for system in _AT_ONCE),
        base=OMNI.label,
        group="publish",
    ),
    Case(
        name="relay",
        title="One event in, one out from inside the handler, deduplicated",
        contenders=tuple(_relaying(*one) for one in _RELAYING),
        base=OMNI.label,
        group="publish",
    ),
)

"""Draining: a backlog of events over 1, 50 and 5 000 instances, and of larger ones."""

from __future__ import annotations

from ..case import (
    C_CLIENT,
    FASTSTREAM,
    FETCH,
    OMNI,
    PULL,
    TASKIQ,
    Case,
    Contender,
    System,
    draining,
)
from ..jobs import Job
from ..loads import Load

EVENTS = 200_000
EVERYBODY = (FASTSTREAM, TASKIQ, FETCH, PULL, OMNI, C_CLIENT)
MOST = (FASTSTREAM, FETCH, PULL, OMNI, C_CLIENT)


def _case(name: str, title: str, load: Load, systems: tuple[System, ...] = MOST) -> Case:
    return Case(
        name=name,
        title=title,
        contenders=tuple(draining(load, systems)),
        base=OMNI.label,
        group="drain",
    )


# The server looks through the subjects of a block for each event where there are two filters.
_MANY = Load(events=20_000, instances=5_000)
_ONE_FILTER = System("omni-worker, channel=", OMNI.module, OMNI.pace)


def _over(instances: int) -> tuple[Contender, ...]:
    """A handler of a type, and one with a channel, which has one consumer with one filter."""
    load = Load(events=60_000, instances=instances)
    every = System(f"a type, {instances}", OMNI.module, OMNI.pace)
    one = System(f"channel=, {instances}", OMNI.module, OMNI.pace)
    job = Job(system="", work="", load=load, extra="channel")
    return (*draining(load, (every,)), *draining(load, (one,), job))


CASES = (
    _case(
        "drain",
        "Drain small events over 50 instances",
        Load(events=EVENTS),
        EVERYBODY,
    ),
    _case(
        "drain-foreign",
        "The same events from a publisher that sends no headers",
        Load(events=EVENTS, headers=False),
    ),
    _case("drain-1", "Drain small events of 1 instance", Load(events=EVENTS, instances=1)),
    Case(
        name="drain-5000",
        title="Drain small events over 5 000 instances",
        contenders=(
            *draining(_MANY, MOST),
            *draining(_MANY, (_ONE_FILTER,), Job(system="", work="", load=_MANY, extra="channel")),
        ),
        base=OMNI.label,
        group="drain",
    ),
    Case(
        name="drain-instances",
        title="Drain small events over 50 to 50 000 instances",
        contenders=tuple(
            one for number in (50, 500, 1_500, 5_000, 50_000) for one in _over(number)
        ),
        base="a type, 50",
        group="drain",
    ),
    _case("drain-4k", "Drain events of 4 KB", Load(events=100_000, size=4_096)),
    _case("drain-64k", "Drain events of 64 KB", Load(events=10_000, size=65_536)),
)

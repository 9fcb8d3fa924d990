"""The rest: latency, long backlogs, idling, starting, and what a feature costs."""

from __future__ import annotations

from ..case import OMNI, PULL, Case, Contender, enough
from ..jobs import Job
from ..latency import Latency
from ..loads import Load
from ..protocols import Protocol
from ..resting import rested, started

EVENTS = 200_000
PARTS = (0.1, 0.5, 0.9)
RESTING = tuple(
    (label, module, handlers)
    for handlers in (1, 100)
    for label, module in (("FastStream", "fast_stream_rest"), (OMNI.label, "rest"))
)

_limits: dict[str, float] = {}


def _latency(part: float) -> Case:
    protocol = Latency(part, _limits, (PULL.module, OMNI.module))
    return Case(
        name=f"latency-{part * 100:.0f}",
        title=f"Publish → handler begins, at {part * 100:.0f} % of the sustainable rate",
        contenders=tuple(
            Contender(
                label=system.label,
                job=Job(system=system.module, work="latency", load=Load(events=1)),
                protocol=protocol,
            )
            for system in (PULL, OMNI)
        ),
        base=PULL.label,
        group="latency",
        shape="latency",
        rounds=5,
    )


def _price(label: str, extra: str, pace: float = OMNI.pace) -> Contender:
    load = Load(events=enough(EVENTS, pace))
    return Contender(label=label, job=Job(system=OMNI.module, work="drain", load=load, extra=extra))


def _seen(label: str, extra: str) -> Contender:
    load = Load(events=EVENTS)
    return Contender(label=label, job=Job(system="seen", work="drain", load=load, extra=extra))


def _backlog(events: int) -> Contender:
    job = Job(system=OMNI.module, work="drain", load=Load(events=events))
    return Contender(label=f"{events:,} waiting".replace(",", " "), job=job)


def _resting(
    label: str, module: str, handlers: int, *, work: str = "idle", protocol: Protocol = rested
) -> Contender:
    load = Load(events=1 if work == "start" else 0, types=handlers)
    return Contender(
        label=f"{label}, {handlers} handler{'s' if handlers > 1 else ''}",
        job=Job(system=module, work=work, load=load),
        protocol=protocol,
    )


CASES = (
    *map(_latency, PARTS),
    Case(
        name="backlog",
        title="Backlogs of 100 000 and 1 000 000 events",
        contenders=(_backlog(100_000), _backlog(1_000_000)),
        base="100 000 waiting",
        group="backlog",
        shape="memory",
    ),
    Case(
        name="price",
        title="What a feature costs (all rows drain with everything else on)",
        contenders=(
            _price(OMNI.label, ""),
            _price("timeout=30", "timeout"),
            _price("one middleware", "middleware"),
            _price("order_by", "order_by"),
            _price("exactly_once", "exactly_once", pace=1_500),
        ),
        base=OMNI.label,
        group="price",
        shape="part",
        rounds=5,
    ),
    Case(
        name="price-seen",
        title="What it costs to be seen: metrics that are read, traces of 1 % of the events",
        contenders=(
            _seen("neither", ""),
            _seen("neither is installed", "bare"),
            _seen("metrics", "metrics"),
            _seen("traces", "traces"),
            _seen("both", "metrics traces"),
        ),
        base="neither",
        group="price",
        shape="part",
        rounds=5,
    ),
    Case(
        name="idle",
        title="Handlers with nothing to do",
        contenders=tuple(_resting(*one) for one in RESTING),
        base="",
        group="rest",
        shape="idle",
        rounds=2,
    ),
    Case(
        name="start",
        title="From the start of the process to the first event handled",
        contenders=tuple(
            _resting(label, module, handlers, work="start", protocol=started)
            for label, module, handlers in RESTING
        ),
        base="",
        group="rest",
        shape="start",
    ),
)

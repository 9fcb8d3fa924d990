"""Jobs: what one measured process is asked, and what it answers. Data that travels as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from .loads import Load

Figures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measured run of one system."""

    system: str  # the module in systems/
    work: str  # its function
    load: Load  # what lies in the stream, or what is to be published
    url: str = ""
    durable: str = "bench"
    concurrency: int = 10
    handler: str = "count"  # count, wait, burn, plain
    seconds: float = 0.0  # that a handler waits or burns
    rate: float = 0.0  # events per second to publish, for latency
    extra: str = ""  # one feature switched on, see systems/omni
    shared: bool = False  # others work on the same durable: the runner says when it is over
    settings: dict[str, Any] = field(default_factory=dict)  # what only one system understands


def to_json(job: Job) -> str:
    """The job as one argument of a command."""
    return json.dumps(dataclasses.asdict(job))


def from_json(text: str) -> Job:
    """The job again."""
    raw = json.loads(text)
    return Job(**{**raw, "load": Load(**raw["load"])})

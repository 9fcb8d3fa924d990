"""Latency: the protocol of events that come at a steady rate, far from all that can be handled.

The rate is a part of what is sustainable: the highest rate that publisher, server and consumer
keep up with on this machine together, for the slower of the systems that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .jobs import Figures, Job
from .loads import stream_of
from .processes import Failed, Measured
from .protocols import Costs, check, end_consumers, needed
from .stage import Filled, Stage

FASTEST = 64_000.0  # events per second: where the search for the sustainable rate begins
STEP = 0.8  # how far it goes down each time
TRIAL = 2.0  # seconds of one try
LATE = 50_000.0  # µs: an event this late tells of a backlog


@dataclass
class Latency:
    """A part of the sustainable rate, which is searched once for all that share ``limits``."""

    part: float
    limits: dict[str, float]  # system → sustainable rate, as far as it is known
    systems: tuple[str, ...]
    seconds: float = 3.0

    def __call__(self, stage: Stage, job: Job) -> Figures:
        """One run at the part of the rate; its load is as many events as fit into it."""
        for system in self.systems:
            if system not in self.limits:
                self.limits[system] = sustainable(stage, replace(job, system=system))
        rate = self.part * min(self.limits.values())
        return {**at_rate(stage, job, rate, self.seconds), "sustainable": min(self.limits.values())}


def sustainable(stage: Stage, job: Job) -> float:
    """The highest rate, in steps, at which neither publisher nor consumer falls behind."""
    rate = FASTEST
    while rate > 1.0:
        figures = at_rate(stage, job, rate, TRIAL)
        if figures["late"] < LATE and figures["behind"] < LATE / 1e6:
            return rate
        rate *= STEP
    raise Failed(f"{job.system}: no rate is sustainable")


def at_rate(stage: Stage, job: Job, rate: float, seconds: float) -> Figures:
    """Publish at a rate for so long, in one process, and handle it in another."""
    load = replace(job.load, events=max(1, int(rate * seconds)))
    filled = stage.filled(needed(job))
    job = replace(job, url=filled.url, load=load, rate=rate)
    figures = _both(filled, job)
    check(job, "handled", figures["handled"])
    filled.ask(lambda stream: end_consumers(stream, job))
    filled.ask(lambda stream: stream.purge_stream(stream_of(load)))
    return figures


def _both(filled: Filled, job: Job) -> Figures:
    with Measured(job) as consumer, Measured(replace(job, system="pace")) as publisher:
        consumer.ready()
        publisher.ready()
        costs = Costs(filled)
        consumer.tell()
        publisher.tell()
        published, handled = publisher.figures(), consumer.figures()
    spent = costs.figures(handled["cpu"] + published["cpu"])
    return {**handled, **spent, "behind": published["behind"], "rate": job.rate}

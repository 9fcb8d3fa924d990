"""Resting: the protocols of what costs without events: the start, and handlers that wait."""

from __future__ import annotations

import time
from dataclasses import replace

from .jobs import Figures, Job
from .processes import Measured
from .protocols import Costs, end_consumers, needed
from .stage import Stage

SETTLE = 32.0  # seconds until its first requests have ended: from then on it is at rest
WATCHED = 30.0  # seconds it is watched: every request of ours ends once


def started(stage: Stage, job: Job) -> Figures:
    """From the start of the process to its first event handled, and what of it are imports."""
    filled = stage.filled(needed(job))
    began = time.monotonic()
    with Measured(replace(job, url=filled.url)) as process:
        said = process.figures()
    filled.ask(lambda stream: end_consumers(stream, job))
    return {
        "seconds": said["ended"] - began,
        "importing": said["imported"] - began,
        "subscribed": said["subscribed"] - began,
        "cpu": said["cpu"],
    }


def rested(stage: Stage, job: Job) -> Figures:
    """A worker with nothing to do: CPU and requests to the server per second, and memory."""
    filled = stage.filled(needed(job))
    with Measured(replace(job, url=filled.url)) as process:
        process.ready()
        time.sleep(SETTLE)
        costs, asked = Costs(filled), filled.messages_in()
        process.tell()
        time.sleep(WATCHED)
        asked = filled.messages_in() - asked
        process.tell()
        figures = process.figures()
        spent = costs.figures(figures["cpu"])
    filled.ask(lambda stream: end_consumers(stream, job))
    return {**figures, **spent, "requests": asked / WATCHED}

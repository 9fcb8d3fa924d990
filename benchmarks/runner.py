"""Runner: every case, every round, every contender in turn. Says what it does while it does it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from .case import Case, Contender
from .loads import Load
from .machine import commit
from .processes import PEERS, Failed, interpreter
from .protocols import needed
from .results import Measurement, Row
from .stage import Stage
from .systems import c_client

_durables = itertools.count(1)

Say = Callable[[str], None]


def run(
    cases: list[Case], rounds: int | None, *, scale: float, only: list[str], say: Say
) -> Iterator[tuple[str, Measurement]]:
    """Measure the cases one after another. ``scale`` is for trying out: fewer events."""
    stage = Stage()
    cases = [_scaled(case, scale, only) for case in cases]
    try:
        for number, case in enumerate(cases):
            say(f"{case.name} ({number + 1} of {len(cases)})")
            yield case.name, _measure(stage, case, rounds, scale, say)
            still_needed = {load for later in cases[number + 1 :] for load in _loads(later)}
            stage.keep(still_needed & _loads_of_next(cases, number))
    finally:
        stage.keep(set())


def _measure(stage: Stage, case: Case, rounds: int | None, scale: float, say: Say) -> Measurement:
    missing = {one.label: why for one in case.contenders if (why := unavailable(one.job.system))}
    here = [one for one in case.contenders if one.label not in missing]
    found = Measurement(
        title=case.title,
        group=case.group,
        shape=case.shape,
        base=case.base,
        commit=commit(),
        when=time.strftime("%Y-%m-%d"),
        scale=scale,
        rows={one.label: Row(one.job.load.events) for one in here},
        missing=missing,
    )
    for turn in range(rounds or case.rounds):
        for one in here:
            if one.label in found.failed:
                continue
            job = replace(one.job, durable=f"bench{next(_durables):04d}")
            try:
                figures = one.protocol(stage, job)
            except Failed as error:
                found.failed[one.label] = str(error)
                say(f"  round {turn + 1}  {one.label:24}failed: {error}")
                continue
            if job.handler == "wait":
                figures["ideal"] = job.concurrency / job.seconds
            found.rows[one.label].rounds.append(_kept(figures))
            say(f"  round {turn + 1}  {one.label:24}{_brief(one, figures)}")
    for label in found.failed:
        del found.rows[label]  # figures of a contender that lost events say nothing
    return found


def _kept(figures: dict[str, float]) -> dict[str, float]:
    """What the results file keeps: no moments of a clock that nobody has, no digits of noise."""
    moments = ("began", "ended", "last")
    return {name: float(f"{each:.5g}") for name, each in figures.items() if name not in moments}


def unavailable(system: str) -> str | None:
    """Why a system cannot be measured here, and what helps; None when it can."""
    if system in ("fast_stream", "task_iq") and interpreter() != str(PEERS):
        return "its environment is missing: make bench makes it"
    return c_client.build() if system == "c_client" else None


def _brief(one: Contender, figures: dict[str, float]) -> str:
    if "p50" in figures:
        return f"{figures['rate']:10,.0f}/s {figures['p50']:8,.0f} µs p50".replace(",", " ")
    if one.job.load.events <= 1:
        return f"{figures['seconds'] * 1000:8.0f} ms {figures['cpu'] * 1000:8.0f} ms CPU"
    per_event = figures["cpu"] / one.job.load.events * 1e6
    rate = one.job.load.events / figures["seconds"]
    return f"{rate:10,.0f}/s {per_event:8.1f} µs".replace(",", " ")


def _scaled(case: Case, scale: float, only: list[str]) -> Case:
    """The case with fewer events and contenders; the base stays, the others are compared to it."""
    kept = tuple(
        replace(one, job=replace(one.job, load=_smaller(one.job.load, scale)))
        for one in case.contenders
        if not only or one.label == case.base or any(word in one.label for word in only)
    )
    return replace(case, contenders=kept)


def _smaller(load: Load, scale: float) -> Load:
    return replace(load, events=max(min(1, load.events), int(load.events * scale)))


def _loads(case: Case) -> set[Load]:
    return {needed(one.job) for one in case.contenders}


def _loads_of_next(cases: list[Case], number: int) -> set[Load]:
    """Disk is not endless: what the next few cases do not need is stored again later."""
    return {load for case in cases[number + 1 : number + 4] for load in _loads(case)}

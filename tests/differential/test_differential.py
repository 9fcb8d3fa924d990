"""The memory server does what a real one does: random traces on both, side by side.

OMNI_TRACES=3000 runs more of them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from pprint import pformat

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from omni_worker.nats_server import NatsServer

from .examples import ONCE_DIFFERENT
from .features import LONG_SLOT, FeatureRun, feature_traces
from .running import Report, Run
from .traces import SLOT, Trace, traces
from .worlds import run_for_real, run_on_memory

BATCH, FEATURE_BATCH = 50, 25  # traces an example of hypothesis's has
TRACES = int(os.environ.get("OMNI_TRACES", "400"))
# How many traces at once, in slots of which length. One in which this machine was too busy to keep
# time is run again, among fewer, and at last more slowly.
PACES = ((25, SLOT), (8, SLOT), (4, 2 * SLOT), (4, 4 * SLOT), (2, 8 * SLOT), (1, 8 * SLOT))
FEATURE_PACES = ((25, LONG_SLOT), (8, LONG_SLOT), (4, 2 * LONG_SLOT), (1, 3 * LONG_SLOT))
Paces = tuple[tuple[int, float], ...]
IS_CI = "OMNI_TRACES" not in os.environ  # there a failure is not made smaller: that takes minutes

_names = (f"T{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.mark.parametrize("trace", ONCE_DIFFERENT, ids=range(len(ONCE_DIFFERENT)))
def test_traces_that_once_differed_agree(trace: Trace, server: NatsServer) -> None:
    assert differences([trace], server) == []


@pytest.mark.alone
@pytest.mark.xdist_group("traces")  # beside those with features: half of a processor each
def test_random_traces_agree(server: NatsServer) -> None:
    _agree(traces, BATCH, TRACES, server, Run, PACES)


@pytest.mark.alone
def test_random_traces_with_schedules_pauses_groups_and_atomic_batches_agree(
    server: NatsServer,
) -> None:
    # One example more: the first one is of the plainest traces.
    count = TRACES // 4 + FEATURE_BATCH
    _agree(feature_traces, FEATURE_BATCH, count, server, FeatureRun, FEATURE_PACES)


def _agree(
    kind_of_trace: st.SearchStrategy[Trace], size: int, count: int, server: NatsServer,
    kind: type[Run], paces: Paces,
) -> None:  # fmt: skip
    told, found = 0, list[str]()

    @settings(
        max_examples=-(-count // size),
        deadline=None,
        database=None,
        derandomize=IS_CI,
        print_blob=False,
        phases=(Phase.generate,) if IS_CI else (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(kind_of_trace, min_size=size, max_size=size))
    def agree(batch: list[Trace]) -> None:
        nonlocal told
        clear = [trace for trace, report in _in_memory(batch, kind) if not report.late]
        told += len(clear)
        found.extend(differences(clear, server, kind, paces))
        assert IS_CI or not found

    agree()
    assert not found, "\n\n".join(found)
    assert told >= 0.75 * count  # the others have ties nobody can predict


def differences(
    batch: list[Trace], server: NatsServer, kind: type[Run] = Run, paces: Paces = PACES
) -> list[str]:
    """Where the two servers differ, in words to read."""
    expected = [report for _, report in _in_memory(batch, kind)]
    found = asyncio.run(_run_all(batch, expected, server, kind, paces))
    return [
        f"{trace}\nin memory: {pformat(one.facts())}\nreally: {pformat(other.facts())}"
        for trace, one, other in zip(batch, expected, found, strict=True)
        if one.facts() != other.facts()
    ]


def _in_memory(batch: list[Trace], kind: type[Run]) -> list[tuple[Trace, Report]]:
    return list(zip(batch, asyncio.run(run_on_memory(batch, kind)), strict=True))


async def _run_all(
    batch: list[Trace], expected: list[Report], server: NatsServer, kind: type[Run], paces: Paces
) -> list[Report]:
    reports: dict[int, Report] = {}
    for at_once, slot in paces:
        missing = [number for number in range(len(batch)) if number not in reports]
        while missing:
            numbers, missing = missing[:at_once], missing[at_once:]
            run = [
                run_for_real(
                    *(batch[one], expected[one], server.port, next(_names)),
                    *(turn / at_once, slot, kind),
                )
                for turn, one in enumerate(numbers)
            ]
            found = zip(numbers, await asyncio.gather(*run), strict=True)
            reports |= {number: report for number, report in found if not report.late}
    assert len(reports) == len(batch), "this machine is too busy to keep time"
    return [reports[number] for number in range(len(batch))]

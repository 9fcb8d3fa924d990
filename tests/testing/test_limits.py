"""Rates and limits in virtual time: hours of them in a moment, to the second."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from omni_worker import App, Event
from omni_worker.testing import TestWorker


def shop(**options: Any) -> tuple[App, list[tuple[float, Any]]]:
    """An app whose handler notes by the loop's clock when it runs for which payload."""
    app, runs = App("shop"), list[tuple[float, Any]]()

    @app.on("custom.thing", durable="d", **options)
    async def handle(event: Event[Any]) -> None:
        runs.append((asyncio.get_running_loop().time(), event.payload))
        await asyncio.sleep(options.get("limit", 0))

    return app, runs


@pytest.mark.parametrize(
    ("rate", "burst", "apart"), [("30/m", 1, 2.0), ("2/h", 1, 1_800.0), ("4/s", 4, 0.25)]
)
async def test_runs_come_at_their_rate(rate: str, burst: int, apart: float) -> None:
    app, runs = shop(rate=rate)

    async with TestWorker(app) as t:
        for number in range(10):
            await t.publish("custom.thing", number)
        await t.settle()

    times = [when for when, _ in runs]
    assert [payload for _, payload in runs] == list(range(10))
    assert all(one - times[0] < 0.02 for one in times[:burst])
    gaps = [later - earlier for earlier, later in pairwise(times[burst - 1 :])]
    assert gaps == [pytest.approx(apart, abs=0.02)] * len(gaps)


async def test_each_key_has_a_rate_of_its_own() -> None:
    app, runs = shop(rate="1/m", rate_by=lambda event: event.payload[0])

    async with TestWorker(app) as t:
        for payload in ("a1", "a2", "a3", "b1", "c1"):
            await t.publish("custom.thing", payload)
        await t.advance(seconds=1)
        first = [payload for _, payload in runs]
        await t.advance(timedelta(minutes=1))
        second = [payload for _, payload in runs][len(first) :]
        await t.settle()

    assert first == ["a1", "b1", "c1"]
    assert second == ["a2"]
    assert [payload for _, payload in runs][4:] == ["a3"]


async def test_a_limit_runs_in_batches_of_its_size() -> None:
    app, runs = shop(limit=2)  # each run takes two seconds

    async with TestWorker(app) as t:
        for number in range(6):
            await t.publish("custom.thing", number)
        await t.settle()

    begun = [round(when - runs[0][0]) for when, _ in runs]
    assert begun == [0, 0, 2, 2, 4, 4]


async def test_a_deploy_keeps_the_rate() -> None:
    app, runs = shop(rate="1/m")

    async with TestWorker(app) as t:
        for number in range(3):
            await t.publish("custom.thing", number)
        await t.advance(seconds=1)
        await t.restart()
        await t.settle()

    times = [when for when, _ in runs]
    assert sorted(payload for _, payload in runs) == [0, 1, 2]
    # A time that the stopped process had taken is lost: later is right, sooner is not.
    assert all(later - earlier >= 59.9 for earlier, later in pairwise(times))
    assert times[-1] - times[0] < 240

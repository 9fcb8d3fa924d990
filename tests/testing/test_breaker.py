"""The breaker with few slots: poison events do not keep good ones waiting for minutes."""

from __future__ import annotations

import asyncio

import pytest

from omni_worker import App, Event
from omni_worker.testing import TestWorker

POISON, GOOD = 28, 200


@pytest.mark.parametrize(("concurrency", "seconds"), [(1, 40.0), (2, 20.0)])
async def test_good_events_behind_poison_ones_wait_for_trials_of_what_never_failed(
    concurrency: int, seconds: float
) -> None:
    """One trial each for the poison that comes first, with pauses of 5 s at most."""
    app, handled = App("few"), []

    @app.on("custom.thing", durable="d", concurrency=concurrency)
    async def handle(event: Event[int]) -> None:
        if event.payload < POISON:
            raise KeyError("poison")
        handled.append(asyncio.get_running_loop().time())

    async with TestWorker(app) as t:
        began = asyncio.get_running_loop().time()
        for number in range(POISON + GOOD):
            await t.publish("custom.thing", number)
        await t.settle()

    assert len(handled) == GOOD
    assert max(handled) - began < seconds
    assert len(t.dead_letters) == POISON

"""Pause and resume over two processes: how soon everything stops beginning, and begins again."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from ..operations.support import operate
from ..waiting import until
from .support import Stage, publish_foreign

EVENTS = 4_000  # more than are handled: there is always one that could begin
STOPS, BEGINS = 1.0, 0.5  # seconds after the command
APP = """
app = App("shop")

@app.on("message.received", durable="r1", channel="whatsapp", concurrency=4, start_from="first")
async def handle(event: Event):
    effect("begun")
    await asyncio.sleep(0.05)  # the work itself
"""


def begun(stage: Stage, since: float) -> dict[str, float]:
    """When each worker first began an event after a moment, in seconds after it."""
    found: dict[str, float] = {}
    for one in stage.effects("begun"):
        if one["at"] > since:
            found.setdefault(one["worker"], one["at"] - since)
    return found


async def steer(stage: Stage, *arguments: str) -> float:
    """Give an order by the command; the moment at which it had ended."""
    said = await asyncio.to_thread(operate, stage.url, *arguments)
    assert said.code == 0, said.err
    return time.monotonic()


@pytest.mark.alone
async def test_a_pause_stops_both_processes_at_once_and_a_resume_lets_both_begin(
    stage: Stage, plain: Client
) -> None:
    target = stage.app(APP)
    workers = [await stage.run(target) for _ in range(2)]
    await publish_foreign(plain, EVENTS)
    await until(lambda: len(begun(stage, 0.0)) == len(workers))

    paused = await steer(stage, "pause", "r1", "--reason", "night")
    await until(lambda: time.monotonic() > paused + 2 * STOPS)
    late = begun(stage, paused + STOPS)
    resumed = await steer(stage, "resume", "r1")
    # The server resumes before the command has ended.
    await until(lambda: len(begun(stage, paused + STOPS)) == len(workers))

    assert late == {}
    first = {name: paused + STOPS + at for name, at in begun(stage, paused + STOPS).items()}
    assert all(at <= resumed + BEGINS for at in first.values()), (resumed, first)

"""The watchdog: who blocks the loop, and what is no blocking."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from omni_worker.process.watchdog import Watchdog, was_stopped
from omni_worker.tasks import of_handler

from ..waiting import until


def test_a_process_that_was_stopped_blocks_nothing() -> None:
    assert was_stopped(gap=5.0, worked=0.01)
    assert not was_stopped(gap=5.0, worked=4.9)  # a regular expression gone wild
    assert not was_stopped(gap=0.3, worked=0.0)


async def test_whatever_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Watchdog()
    watchdog.start()
    asyncio.current_task().set_name(of_handler("r9"))  # type: ignore[union-attr]

    time.sleep(2)
    said = watchdog.blocked

    await until(lambda: "turns again" in caplog.text)
    watchdog.stop()
    assert said is not None
    assert re.fullmatch(
        r"the event loop is blocked for \d\.\d s by handler r9 \(test_watchdog.py:\d+ in \w+\)",
        said,
    )
    assert "blocked by handler r9 (test_watchdog.py:" in caplog.text
    assert watchdog.blocked is None


async def test_a_loop_that_turns_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    beats = 0
    looks = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    def look() -> None:
        nonlocal looks
        looks += 1

    watchdog = Watchdog(beat, look)
    watchdog.start()
    await until(lambda: beats > 5 and looks > 5)
    watchdog.stop()

    assert (watchdog.blocked, caplog.text) == (None, "")

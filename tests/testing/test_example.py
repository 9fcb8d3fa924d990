"""The example passes as a user runs it, and so does the code of the docs; the kit is fast."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from omni_worker import App, Context, Event, Reject
from omni_worker.testing import TestWorker

ROOT = Path(__file__).parents[2]


def test_the_example_passes() -> None:
    assert "passed" in run("examples/testing_your_app.py")


@pytest.mark.parametrize(("page", "tests"), [("README.md", 1), ("docs/testing.md", 2)])
def test_the_tests_on_the_page_pass(page: str, tests: int, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for number, code in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")

    assert f"{tests} passed" in run(str(tmp_path))


async def test_a_thousand_events_with_retries_and_dead_letters_take_no_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "omni_worker")  # what pytest keeps of each line takes longer
    app = App("many")

    @app.on("custom.order", durable="orders", breaker=0)
    async def place(event: Event[dict[str, int]], ctx: Context) -> None:
        kind = event.payload["number"] % 10
        if kind == 0:
            raise Reject("never")
        if kind == 1 and ctx.attempt < 3:
            raise ValueError("not yet")
        if kind == 2:
            raise ValueError("not at all")

    began = time.process_time()  # others may need this machine just now
    async with TestWorker(app) as t:
        for number in range(1_000):
            await t.publish("custom.order", {"number": number})
        await t.settle()
    took = time.process_time() - began

    assert len(t.dead_letters) == 200
    assert t.attempts(place) == 700 + 100 + 100 * 3 + 100 * 4
    assert took < 5.0  # less than one, of a whole processor


def run(*arguments: str) -> str:
    """pytest, in a process of its own; what it said."""
    spared = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # what takes long to start
    command: list[Any] = [sys.executable, "-m", "pytest", *spared, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr

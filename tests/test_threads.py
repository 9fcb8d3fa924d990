"""Threads: plain functions beside the loop; a stuck one holds nobody."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from omni_worker.threads import DaemonThreads

NAME = "tests of threads"


@pytest.fixture
def pool() -> Iterator[DaemonThreads]:
    """Two threads."""
    pool = DaemonThreads(2, NAME)
    yield pool
    pool.close()
    for thread in running():  # or the next test would count them
        thread.join(10)


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


async def test_a_result_comes_back_to_the_loop(pool: DaemonThreads) -> None:
    assert await pool.run(lambda: 42) == 42
    assert await pool.run(threading.current_thread) is not threading.current_thread()


async def test_context_variables_go_along_and_changes_stay_there(pool: DaemonThreads) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("here")

    def look_and_change() -> str:
        before = variable.get()
        variable.set("there")
        return before

    assert await pool.run(look_and_change) == "here"
    assert variable.get() == "here"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("x"), ValueError),
        (SystemExit(3), SystemExit),
        (StopIteration(), RuntimeError),
        (asyncio.CancelledError(), asyncio.CancelledError),
    ],
)
async def test_whatever_is_raised_comes_back_and_the_thread_lives_on(
    pool: DaemonThreads, raised: BaseException, expected: type[BaseException]
) -> None:
    def fail() -> Any:
        raise raised

    caught: BaseException | None = None
    try:
        await pool.run(fail)
    except BaseException as error:
        caught = error

    assert isinstance(caught, expected)
    assert await pool.run(lambda: 1) == 1


async def test_there_are_never_more_threads_than_asked_for_and_idle_ones_are_used_again(
    pool: DaemonThreads,
) -> None:
    for _ in range(5):
        await pool.run(lambda: None)
    alone = len(running())
    together = threading.Barrier(2, timeout=10)

    await asyncio.gather(*(pool.run(together.wait) for _ in range(6)))

    assert alone == 1
    assert len(running()) == 2


async def test_a_job_that_was_given_up_before_it_began_never_begins() -> None:
    pool, blocked, begun = DaemonThreads(1, NAME), threading.Event(), []
    first = asyncio.create_task(pool.run(lambda: blocked.wait(10)))
    second = asyncio.create_task(pool.run(lambda: begun.append("second")))
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    blocked.set()
    await first
    await pool.run(lambda: begun.append("third"))
    pool.close()

    assert begun == ["third"]


async def test_idle_threads_end_when_the_pool_is_closed() -> None:
    pool = DaemonThreads(3, NAME)
    together = threading.Barrier(3, timeout=10)
    await asyncio.gather(*(pool.run(together.wait) for _ in range(3)))
    threads = running()

    pool.close()
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)

    assert not any(thread.is_alive() for thread in threads)


def test_a_stuck_thread_does_not_hold_the_process() -> None:
    code = (
        "import asyncio, threading\n"
        "from omni_worker.threads import DaemonThreads\n"
        "async def main():\n"
        "    job = asyncio.ensure_future(DaemonThreads(1, 'x').run(threading.Event().wait))\n"
        "    await asyncio.sleep(0)\n"
        "    job.cancel()\n"
        "asyncio.run(main())\n"
        "print('ended')\n"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, text=True)

    assert (ended.returncode, ended.stdout) == (0, "ended\n")

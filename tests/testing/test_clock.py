"""Virtual time: it moves when it is told to, in the right order, and leaves the loop as it was."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from omni_worker import App, ConfigError, Event
from omni_worker.outcomes import Done, Failed
from omni_worker.testing import TestWorker, TimeStandsStill, Unsettled

Call = Callable[[], Awaitable[Any]]


def app_that(does: Call, **options: Any) -> App:
    """An app whose one handler `go` awaits this."""
    app = App("clock")

    async def go(event: Event[Any]) -> None:
        await does()

    app.on("custom.go", durable="go", **options)(go)
    return app


async def ran(does: Call, **options: Any) -> tuple[Any, float, float]:
    """How the handler ended, in which time of its own and which real time.

    Compare the real one with what waiting would take: others may need this machine just now.
    """
    async with TestWorker(app_that(does, max_retries=0, **options)) as t:
        loop = asyncio.get_running_loop()
        began, real = loop.time(), time.monotonic()
        await t.publish("custom.go")
        await t.settle()
        return t.outcomes("go")[0], loop.time() - began, time.monotonic() - real


async def test_a_sleep_takes_no_real_time() -> None:
    outcome, took, real = await ran(lambda: asyncio.sleep(3600))

    assert outcome == Done()
    assert took == pytest.approx(3600, abs=0.1)
    assert real < 8.0  # patience, after which it would be given up, is 10 s


@pytest.mark.parametrize("stands", [True, False], ids=["frozen", "up for years"])
def test_a_sleep_ends_on_a_loop_whose_time_is_large(stands: bool) -> None:
    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:  # freezegun's stands, and is of the year it is set to
            return 2.0e9 if stands else 2.0e9 + super().time()

    with asyncio.Runner(loop_factory=Loop) as runner:
        outcome, took, _ = runner.run(ran(lambda: asyncio.sleep(1)))

    assert outcome == Done()
    assert took == pytest.approx(1, abs=0.1)


async def test_a_timeout_ends_in_its_own_time() -> None:
    async def too_long() -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(3600)

    outcome, took, _ = await ran(too_long)

    assert isinstance(outcome, Failed)
    assert took == pytest.approx(60, abs=0.1)


async def test_time_moves_only_when_it_is_told_to() -> None:
    loop = asyncio.get_running_loop()
    async with TestWorker(app_that(lambda: asyncio.sleep(1))) as t:
        began = loop.time()
        await t.publish("custom.go")
        for _ in range(100):
            await asyncio.sleep(0)
        assert loop.time() == began
        assert t.attempts("go") == 1

        await t.advance(seconds=0.4)
        assert loop.time() == pytest.approx(began + 0.4)
        assert t.outcomes("go") == []

        await t.advance(seconds=0.7)
        assert t.outcomes("go") == [Done()]


async def test_thirty_days_pass_in_milliseconds_and_take_old_events_along() -> None:
    async with TestWorker(app_that(lambda: asyncio.sleep(0))) as t:
        await t.publish("custom.go")
        await t.settle()
        spent = time.process_time()

        await t.advance(days=6.9)
        assert len(list(t.server.streams["CUSTOM"].since(0))) == 1
        await t.advance(days=0.2)  # CUSTOM keeps seven days
        t.server.stream("CUSTOM", "STREAM.INFO")

        assert list(t.server.streams["CUSTOM"].since(0)) == []
        assert time.process_time() - spent < 1.0


async def test_timers_run_in_their_order() -> None:
    order: list[int] = []

    async with TestWorker(app_that(lambda: asyncio.sleep(0))) as t:
        loop = asyncio.get_running_loop()
        for seconds in (3, 1, 2):
            loop.call_later(seconds, order.append, seconds)
        loop.call_later(1.5, lambda: loop.call_later(0.1, order.append, 16))
        await t.advance(seconds=2.5)

        assert order == [1, 16, 2]


async def test_time_stands_still_while_a_thread_works() -> None:
    async def in_a_thread() -> None:
        async with asyncio.timeout(5):
            await asyncio.to_thread(time.sleep, 0.1)

    outcome, took, real = await ran(in_a_thread)

    assert outcome == Done()
    assert (took, real >= 0.1) == (0.0, True)


async def test_time_stands_still_while_an_executor_works_behind_a_wait_for() -> None:
    async def in_an_executor() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(loop.run_in_executor(None, time.sleep, 0.1), 5)

    outcome, took, _ = await ran(in_an_executor)

    assert (outcome, took) == (Done(), 0.0)


async def test_a_timer_of_somebodys_own_is_no_socket() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    _, writer = await asyncio.open_connection(sock=ours)  # idle

    async def own_sleep() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(3600, future.set_result, None)
        await future

    outcome, took, real = await ran(own_sleep)
    writer.close()
    theirs.close()

    assert outcome == Done()
    assert took == pytest.approx(3600, abs=0.1)
    assert real < 8.0  # patience, after which it would be given up, is 10 s


async def test_time_stands_still_while_somebody_elses_thread_works() -> None:
    async def foreign() -> None:
        future = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        answer = lambda: loop.call_soon_threadsafe(future.set_result, None)  # noqa: E731
        threading.Timer(0.1, answer).start()
        async with asyncio.timeout(5):
            await future

    outcome, took, _ = await ran(foreign)

    assert (outcome, took) == (Done(), 0.0)


@pytest.mark.parametrize("wrap", [False, True], ids=["timeout", "wait_for"])
async def test_time_stands_still_while_a_socket_is_waited_for(wrap: bool) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def read() -> None:
        reader, writer = await asyncio.open_connection(sock=ours)
        threading.Timer(0.1, theirs.send, [b"answer\n"]).start()
        if wrap:
            assert await asyncio.wait_for(reader.readline(), 5) == b"answer\n"
        else:
            async with asyncio.timeout(5):
                assert await reader.readline() == b"answer\n"
        writer.close()
        await writer.wait_closed()

    outcome, took, _ = await ran(read)
    theirs.close()

    assert (outcome, took) == (Done(), 0.0)


async def test_an_idle_socket_does_not_hold_the_time() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    _, writer = await asyncio.open_connection(sock=ours)  # as a pool keeps its connections

    outcome, took, real = await ran(lambda: asyncio.sleep(3600))
    writer.close()
    theirs.close()

    assert outcome == Done()
    assert took == pytest.approx(3600, abs=0.1)
    assert real < 8.0  # patience, after which it would be given up, is 10 s


async def test_a_lock_another_handler_holds_is_waited_for_in_time() -> None:
    lock = asyncio.Lock()

    async def hold() -> None:
        async with lock:
            await asyncio.sleep(10)

    async with TestWorker(app_that(hold)) as t:
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            await t.publish("custom.go")
        await t.settle()

        assert asyncio.get_running_loop().time() - began == pytest.approx(30, abs=0.1)


async def test_a_socket_that_never_answers_is_named() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    reader, writer = await asyncio.open_connection(sock=ours)

    async def read() -> None:
        await reader.readline()

    async with TestWorker(app_that(read), patience=0.2) as t:
        await t.publish("custom.go")
        with pytest.raises(Unsettled, match=r"waits for the outside world: .*test_clock\.py:\d+"):
            await t.settle()
        theirs.close()
        await t.settle()
    writer.close()


async def test_a_test_that_sleeps_itself_is_told_that_time_stands_still() -> None:
    async with TestWorker(app_that(lambda: asyncio.sleep(0))):
        with pytest.raises(TimeStandsStill, match=r"only in `await t\.settle\(\)`"):
            await asyncio.sleep(1)


async def test_a_test_that_waits_for_what_needs_time_is_told_too() -> None:
    done = asyncio.Event()

    async def late() -> None:
        await asyncio.sleep(1)
        done.set()

    async with TestWorker(app_that(late)) as t:
        await t.publish("custom.go")
        with pytest.raises(TimeStandsStill):
            await done.wait()
        await t.settle()
        await done.wait()


async def test_a_timeout_around_the_kit_runs_by_real_time() -> None:
    async with asyncio.timeout(5):
        async with TestWorker(app_that(lambda: asyncio.sleep(3600))) as t:
            await t.publish("custom.go")
            await t.settle()
        assert t.outcomes("go") == [Done()]

    async def too_long() -> None:
        async with asyncio.timeout(0.1), TestWorker(app_that(lambda: asyncio.sleep(0))):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await too_long()


async def test_the_loop_is_left_as_it_was() -> None:
    loop: Any = asyncio.get_running_loop()
    before = dict(vars(loop)), dict(vars(loop._selector))
    loop.call_later(3600, print)

    async with TestWorker(app_that(lambda: asyncio.sleep(0))) as t:
        await t.advance(days=1)
        left = asyncio.create_task(asyncio.sleep(0.05))
        await asyncio.sleep(0)

    assert vars(loop).keys() == before[0].keys()
    assert vars(loop._selector).keys() == before[1].keys()
    assert loop.time() == pytest.approx(time.monotonic(), abs=1)
    assert any(not one.cancelled() and one._callback is print for one in loop._scheduled)
    await asyncio.wait_for(left, 1)  # what was left of its time, and not a day


async def test_on_one_loop_time_never_goes_back() -> None:
    loop = asyncio.get_running_loop()
    app = app_that(lambda: asyncio.sleep(0))
    async with TestWorker(app) as t:
        await t.advance(hours=1)
        ended = loop.time()

    async with TestWorker(app):
        assert loop.time() >= ended


async def test_time_moves_on_only() -> None:
    async with TestWorker(app_that(lambda: asyncio.sleep(0))) as t:
        with pytest.raises(ConfigError, match="time only moves on"):
            await t.advance()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_on_uvloop_the_kit_says_what_is_missing() -> None:
    code = (
        "import uvloop\n"
        "from omni_worker import App\n"
        "from omni_worker.testing import TestWorker\n"
        "async def main():\n"
        "    async with TestWorker(App('a')): pass\n"
        "uvloop.run(main())\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert "ConfigError: TestWorker moves the clock of asyncio's own event loop" in done.stderr
    assert "uvloop" in done.stderr


async def test_a_timer_a_moment_after_another_runs_before_time_moves_on() -> None:
    seen: list[float] = []

    async def twice() -> None:
        loop = asyncio.get_running_loop()
        for seconds in (1.0, 4e-7):
            began = loop.time()
            await asyncio.sleep(seconds)
            seen.append(loop.time() - began)

    await ran(twice)

    assert seen == pytest.approx([1.0, 0.0], abs=0.001)

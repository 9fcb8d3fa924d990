"""The word to a process manager, over channels of the test's own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

import pytest

from omni_worker.process.health import Report
from omni_worker.process.notify import Notify, from_line, pm2_kill_timeout, to_line

from ..waiting import until


def channel() -> tuple[socket.socket, Notify]:
    """PM2's end, and ours as it is found in the environment."""
    theirs, ours = socket.socketpair()
    environment = {"NODE_CHANNEL_FD": str(ours.detach())}
    notify = Notify(environment)
    assert environment == {}  # a handler's children must not take it for theirs
    return theirs, notify


async def test_pm2_hears_ready_as_one_json_line() -> None:
    theirs, notify = channel()

    notify.ready()

    assert theirs.recv(100) == b'"ready"\n'
    notify.close()
    theirs.close()


async def test_pm2s_shutdown_is_understood_in_pieces_and_among_other_words() -> None:
    theirs, notify = channel()
    asked: list[str] = []
    notify.listen(asked.append)

    theirs.sendall(b'{"cmd":"NODE_HANDLE"}\n"shut')
    await asyncio.sleep(0)
    theirs.sendall(b'down"\n')

    await until(lambda: asked == ["PM2's shutdown"])
    notify.close()
    theirs.close()


async def test_a_worker_goes_on_when_pm2_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    theirs, notify = channel()
    asked: list[str] = []
    notify.listen(asked.append)

    theirs.close()

    await until(lambda: "PM2 is gone" in caplog.text)
    notify.ready()  # nobody hears it, and nothing breaks
    assert (asked, len(caplog.records)) == ([], 1)
    notify.close()


@pytest.mark.parametrize("number", ["", "none", "9999"])
def test_a_channel_that_is_not_there_is_none(number: str) -> None:
    assert Notify({"NODE_CHANNEL_FD": number}).pm2 is None


def test_a_file_is_no_channel() -> None:
    reader, writer = os.pipe()

    assert Notify({"NODE_CHANNEL_FD": str(writer)}).pm2 is None

    os.close(reader)
    os.close(writer)


async def test_a_worker_stops_when_nobody_reads_its_reports() -> None:
    reader, writer = os.pipe()
    notify = Notify({"OMNI_WORKER_PARENT_FD": str(writer)})
    asked: list[str] = []
    notify.listen(asked.append)
    notify.alive(Report(not_ready=("starting",)))
    assert from_line(os.read(reader, 4_096)) == Report(not_ready=("starting",))

    os.close(reader)
    notify.alive(Report())

    await until(lambda: asked == ["the parent is gone"])
    os.close(writer)


def test_a_report_through_the_pipe_is_one_whole_line() -> None:
    long = Report(not_alive=("ü" * 1_000,) * 50, not_ready=("ü" * 1_000,) * 50)

    line = to_line(long)

    assert len(line) <= 4_096
    assert line.count(b"\n") == 1
    assert from_line(line) is not None
    assert from_line(b"what?\n") is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"kill_timeout": "9000"}, None),  # not under PM2
        ({"pm_id": "0"}, 1.6),
        ({"pm_id": "0", "kill_timeout": "35000"}, 35.0),
        ({"pm_id": "0", "PM2_KILL_TIMEOUT": "5000"}, 5.0),
    ],
)
def test_how_long_pm2_waits(environment: dict[str, str], expected: float | None) -> None:
    assert pm2_kill_timeout(environment) == expected


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "omni_worker")

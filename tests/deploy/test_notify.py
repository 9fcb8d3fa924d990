"""The word to a process manager, over channels of the test's own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

import pytest

from omni_worker.process.channel import WorkerChannel
from omni_worker.process.health import Report, report_of_fact
from omni_worker.process.notify import Notify, pm2_kill_timeout

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


@pytest.mark.parametrize("number", ["", "none", "9999"])
def test_without_a_parent_there_is_no_channel(number: str) -> None:
    assert Notify({"OMNI_WORKER_PARENT_FD": number}).parent is None


async def test_a_worker_stops_when_its_parent_has_ended() -> None:
    theirs, ours = socket.socketpair()
    environment = {"OMNI_WORKER_PARENT_FD": str(ours.detach())}
    notify = Notify(environment)
    assert environment == {}
    asked: list[str] = []
    notify.listen(asked.append)

    theirs.close()

    await until(lambda: asked == ["the parent is gone"])
    notify.alive(Report())  # nothing breaks
    notify.close()


async def test_a_report_of_any_length_reaches_the_parent_whole_and_at_once_when_it_changed() -> (
    None
):
    theirs, ours = socket.socketpair()
    notify = Notify({"OMNI_WORKER_PARENT_FD": str(ours.detach())})
    heard: list[Report | None] = []
    parent = WorkerChannel(theirs, "worker 1", lambda _, value: heard.append(report_of_fact(value)))
    parent.open()
    long = Report(not_alive=("ü" * 1_000,) * 50, not_ready=("ü" * 1_000,) * 50)
    notify.listen(lambda _: None)

    for report in (Report(not_ready=("starting",)), Report(not_ready=("starting",)), long):
        notify.alive(report)

    await until(lambda: len(heard) == 2)
    assert heard == [Report(not_ready=("starting",)), long]
    notify.close()
    parent.close()


@pytest.mark.parametrize("value", [None, [], {}, {"notAlive": "x", "notReady": []},
                                   {"notAlive": [1], "notReady": []}])  # fmt: skip
def test_what_is_no_report_is_none(value: object) -> None:
    assert report_of_fact(value) is None


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

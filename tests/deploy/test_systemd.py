"""systemd: a worker says over the notify socket when it is ready, alive and stopping."""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from nats.aio.client import Client

from omni_worker.process.notify import Systemd

from ..processes.support import Stage, publish_foreign
from ..waiting import NotInTime, until
from .support import Running

APP = """
app = App("play")
effect("environment", socket=os.environ.get("NOTIFY_SOCKET"), usec=os.environ.get("WATCHDOG_USEC"))


@app.on("message.received", durable="r1")
async def route(event):
    while not os.path.exists("go-on"):
        time.sleep(0.01)
"""


class Socket:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def hears(self, state: str) -> bool:
        """Whether this was said by now."""
        self.listen()
        return state in self.heard

    def listen(self) -> None:
        """Take in what came."""
        try:
            while True:
                self.heard.append(self._socket.recv(1_000).decode())
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Socket]:
    """A notify socket, of either kind systemd has."""
    with tempfile.TemporaryDirectory(prefix="notify-") as folder:
        address = f"{folder}/notify" if request.param == "file" else f"@{uuid.uuid4()}"
        with closing(Socket(address)) as one:
            yield one


async def test_ready_once_bound_and_stopping_when_asked(stage: Stage, manager: Socket) -> None:
    worker = Running(stage, stage.app(APP), NOTIFY_SOCKET=manager.address)

    await until(lambda: manager.hears("READY=1"))
    await worker.ready()
    assert await worker.stop() == 0

    manager.listen()
    assert manager.heard == ["READY=1", "STOPPING=1"]
    assert [one["socket"] for one in stage.effects("environment")] == [None]


async def test_the_watchdog_is_fed_while_the_loop_turns_and_only_then(
    stage: Stage, manager: Socket, plain: Client
) -> None:
    worker = Running(stage, stage.app(APP), NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="400000")
    await worker.ready()
    await until(lambda: manager.hears("WATCHDOG=1") and manager.heard.count("WATCHDOG=1") > 3)

    await publish_foreign(plain, 1)
    await worker.until_said("the event loop is blocked")
    manager.listen()
    manager.heard.clear()
    with pytest.raises(NotInTime):
        await until(lambda: manager.hears("WATCHDOG=1"), timeout=1.5)

    (stage.folder / "go-on").touch()
    await until(lambda: manager.hears("WATCHDOG=1"))


def test_the_watchdog_is_that_of_the_process_it_names(tmp_path: Path) -> None:
    with closing(Socket(str(tmp_path / "n"))) as manager:
        for pid, expected in ((str(os.getpid()), 1), ("1", 0), ("", 1)):
            environment = {
                "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2", "WATCHDOG_PID": pid
            }  # fmt: skip
            systemd = Systemd.found(environment)

            assert systemd is not None
            systemd.alive()

            manager.listen()
            assert (manager.heard.count("WATCHDOG=1"), environment) == (expected, {})
            manager.heard.clear()


def test_without_a_socket_nobody_is_told() -> None:
    assert Systemd.found({}) is None
    assert Systemd.found({"NOTIFY_SOCKET": "vsock:2:9"}) is None

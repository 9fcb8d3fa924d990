"""The Procfile: under a process manager both processes start, work, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from omni_worker import EventBus
from omni_worker.nats_server import LOOPBACK

from .ports import free_port
from .waiting import wait_until

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent
PATIENCE = 30.0  # seconds


class Honcho:
    """`honcho start`, with what it printed so far."""

    def __init__(self, port: int) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "NATS_URL"}
        self.process = subprocess.Popen(
            [str(SCRIPTS / "honcho"), "start", "--no-colour"],
            cwd=ROOT,
            env=environment
            | {
                "NATS_PORT": str(port),
                "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed = ""
        self.stopped = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Until it has printed this."""
        wait_until(lambda: text in self.printed, PATIENCE, what=text, seen=lambda: self.printed)

    def stop(self) -> int:
        """SIGTERM, then its exit code."""
        self.stopped = True
        self.process.send_signal(signal.SIGTERM)  # nothing happens if it is gone already
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line


@pytest.fixture
def port() -> int:
    """One that is free now."""
    return free_port()


@pytest.fixture
def honcho(port: int) -> Iterator[Honcho]:
    """It ends with the test, however that ends."""
    running = Honcho(port)
    try:
        yield running
    finally:
        if not running.stopped:
            running.stop()


async def test_the_procfile_runs_a_server_and_a_worker_and_stops_both(
    honcho: Honcho, port: int
) -> None:
    honcho.wait_for('"message": "ready"')
    async with EventBus(f"nats://{LOOPBACK}:{port}") as bus:
        await bus.publish("message.failed", FAILED, channel="whatsapp", instance="wa-001")
    honcho.wait_for("dead letter: chat c1 is closed")

    honcho.stop()

    assert '"message": "stopped"' in honcho.printed
    wait_until(lambda: not is_open(port), PATIENCE, what="the end of the server")


FAILED = {"chatId": "c1", "error": "blocked", "retryable": False}


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket()) as one:
        return one.connect_ex((LOOPBACK, port)) == 0

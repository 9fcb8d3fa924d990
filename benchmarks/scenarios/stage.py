"""The stage of a scenario: a nats-server, one system's worker, and a look at what became of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
from nats.js.api import StreamConfig

from omni_worker.nats_server import NatsServer

from ..processes import interpreter

SUBJECT = "message.received.whatsapp.wa-1"
COMMANDS = {
    "FastStream": ["-m", "benchmarks.scenarios.fast_stream"],
    "omni-worker": ["-m", "omni_worker", "run", "benchmarks.scenarios.omni:app"],
}


class Stage:
    """One system in one scenario. ``settings`` are the WORK_ variables of its worker."""

    def __init__(self, system: str, folder: Path, **settings: object) -> None:
        self.system = system
        self.settings = settings
        self._notes = folder / "notes"
        self._notes.touch()
        self.server = NatsServer(store=folder / "store")
        self._workers: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> Stage:
        self.server.start()
        self.nats = await nats.connect(
            self.server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=_quiet
        )
        self.stream = self.nats.jetstream()
        await self.stream.add_stream(StreamConfig(name="MESSAGE", subjects=["message.>"]))
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        await self.nats.close()
        self.server.stop()

    async def publish(self, count: int, first: int = 0) -> None:
        """Events e-0, e-1, …"""
        for number in range(first, first + count):
            event = {"id": f"e-{number}", "type": "message.received", "payload": {}}
            await self.stream.publish(SUBJECT, json.dumps(event).encode(), timeout=30)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the worker."""
        worker = subprocess.Popen(
            [interpreter(), *COMMANDS[self.system]],
            env={
                **os.environ, "NATS_URL": self.server.url, "WORK_NOTES": str(self._notes),
                **{f"WORK_{name.upper()}": str(value) for name, value in self.settings.items()},
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._workers.append(worker)
        return worker

    def noted(self, what: str) -> list[tuple[float, str]]:
        """When and which: of every run that began, or ended."""
        lines = [line.split() for line in self._notes.read_text().splitlines()]
        return [(float(when), id) for when, kind, id in lines if kind == what]

    async def consumer(self) -> dict[str, Any] | None:
        """The server's word on consumer r1; None when there is none."""
        answer = await self.nats.request("$JS.API.CONSUMER.INFO.MESSAGE.r1", b"", timeout=5)
        info: dict[str, Any] = json.loads(answer.data)
        return None if "error" in info else info

    async def letters(self) -> int:
        """How many events the stream SYSTEM holds."""
        answer = await self.nats.request("$JS.API.STREAM.INFO.SYSTEM", b"", timeout=5)
        return int(json.loads(answer.data).get("state", {}).get("messages", 0))

    async def until(self, condition: Callable[[], object], timeout: float = 60.0) -> bool:
        """Wait for it; says whether it came."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True


def terminate(worker: subprocess.Popen[bytes]) -> None:
    """Ask it to stop."""
    worker.send_signal(signal.SIGTERM)


async def _quiet(error: Exception) -> None:
    """The client that looks on is cut off on purpose."""

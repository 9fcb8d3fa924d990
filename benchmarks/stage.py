"""The stage: servers filled with loads, kept for the rounds and the cases that share them."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats
from nats.js.client import JetStreamContext

from omni_worker.nats_server import LOOPBACK, NatsServer

from .filling import fill
from .loads import Load

T = TypeVar("T")


class Filled:
    """A server whose stream holds one load."""

    def __init__(self, load: Load) -> None:
        self.server = NatsServer(arguments=["--http_port", "-1", "-a", LOOPBACK]).start()
        try:
            asyncio.run(fill(self.server.url, load))
        except BaseException:
            self.server.stop()
            raise

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.server.url

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self.server.process is not None
        return self.server.process.pid

    def messages_in(self) -> int:
        """How many messages clients have sent to the server by now."""
        log = self.server.log_file.read_text()
        port = log.partition("http monitor on ")[2].split()[0].rpartition(":")[2]
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/varz", timeout=5) as answer:
            found: int = json.load(answer)["in_msgs"]
            return found

    def ask(self, question: Callable[[JetStreamContext], Awaitable[T]]) -> T:
        """Ask the server something over a connection of its own."""

        async def asked() -> T:
            client = await nats.connect(self.url)
            try:
                return await question(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(asked())


class Stage:
    """Filled servers by load. ``keep`` says which loads are still needed."""

    def __init__(self) -> None:
        self._filled: dict[Load, Filled] = {}

    def filled(self, load: Load) -> Filled:
        """The server with this load, filled when it is first asked for."""
        if load not in self._filled:
            self._filled[load] = Filled(load)
        return self._filled[load]

    def keep(self, loads: set[Load]) -> None:
        """Stop the servers of all other loads."""
        for load in [one for one in self._filled if one not in loads]:
            self._filled.pop(load).server.stop()

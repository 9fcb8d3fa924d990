"""Servers for the suite: shared by all tests of a file, and emptied before each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nats.aio.client import Client

from omni_worker.nats_server import LOOPBACK, NatsServer

from ..ports import free_port
from ..processes.support import api

OLDEST = Path(__file__).parents[2] / ".venv" / "nats-server-2.10.26" / "bin" / "nats-server"
NODES = 3


def oldest() -> NatsServer:
    """The oldest server we promise; `make install` puts it into the virtual environment."""
    assert OLDEST.is_file(), f"{OLDEST} is missing: make install"
    return NatsServer(binary=str(OLDEST))


@contextmanager
def cluster(folder: Path) -> Iterator[list[NatsServer]]:
    """Three nodes on loopback. Clients stay with the node they were given, so that a proxy in
    front of it can cut them off.
    """
    ports = [free_port() for _ in range(NODES)]
    routes = ",".join(f"nats://{LOOPBACK}:{port}" for port in ports)
    nodes = [
        NatsServer(
            store=folder / f"n{number}",
            arguments=[
                *("--server_name", f"n{number}", "--cluster_name", "suite", "--no_advertise"),
                *("--cluster", f"nats://{LOOPBACK}:{port}", "--routes", routes),
            ],
        )
        for number, port in enumerate(ports)
    ]
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.stop()


async def formed(servers: Sequence[NatsServer]) -> None:
    """Wait until a cluster has a leader that makes streams on all nodes."""
    async with asyncio.timeout(30), _client(servers[0]) as client:
        probe = {"name": "PROBE", "subjects": ["probe"], "num_replicas": len(servers)}
        while "error" in await api(client, "STREAM.CREATE.PROBE", probe):
            await asyncio.sleep(0.05)


async def emptied(server: NatsServer) -> None:
    """No stream is left of the test before, and nothing of its consumers.

    The answer to a stream's deletion comes before the server has removed the state of its
    consumers: new ones of the same names took it over, 60 of 6 000 (measured on 2.15.1). That to a
    consumer's own deletion comes after it: none of 6 000.
    """
    async with _client(server) as client:
        for stream in (await api(client, "STREAM.NAMES")).get("streams") or ():
            for consumer in (await api(client, f"CONSUMER.NAMES.{stream}")).get("consumers") or ():
                await api(client, f"CONSUMER.DELETE.{stream}.{consumer}")
            await api(client, f"STREAM.DELETE.{stream}")


class _client:
    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._client = Client()

    async def __aenter__(self) -> Client:
        await self._client.connect(self._server.url)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

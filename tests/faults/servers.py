"""Servers for faults: a cluster of three on loopback, one that stands still, one that is full."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from nats.aio.client import Client

from omni_worker.nats_server import LOOPBACK, NatsServer

from ..ports import free_port
from ..processes.support import api
from ..waiting import until


def pause(server: NatsServer) -> None:
    """A server that hangs: its connections stay, nobody answers."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)


def resume(server: NatsServer) -> None:
    """It goes on where it was."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGCONT)


def configured(folder: Path, config: str, binary: str | None = None) -> NatsServer:
    """A server with a configuration file; its data stays when it is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.conf").write_text(config)
    arguments = ["--config", str(folder / "server.conf")]
    return NatsServer(port=free_port(), store=folder / "store", binary=binary, arguments=arguments)


class Cluster:
    """Three nodes on loopback. ``url`` names them all, so that any of them may go."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(3)]
        routes = ",".join(f"nats://{LOOPBACK}:{port}" for port in ports)
        self.nodes = {
            f"n{number}": NatsServer(
                store=folder / f"n{number}",
                port=free_port(),
                arguments=[
                    *("--server_name", f"n{number}", "--cluster_name", "faults"),
                    *("--cluster", f"nats://{LOOPBACK}:{port}", "--routes", routes),
                ],
            )
            for number, port in enumerate(ports)
        }
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """As NATS_URL takes them."""
        return ",".join(node.url for node in self.nodes.values())

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # those that are up end with the one that does not come up
            for node in self.nodes.values():
                stack.enter_context(node)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    async def formed(self, client: Client) -> None:
        """Wait until the nodes have a leader that makes streams."""

        async def works() -> bool:
            said = await api(
                client, "STREAM.CREATE.PROBE",
                {"name": "PROBE", "subjects": ["probe"], "num_replicas": 3},
            )  # fmt: skip
            return "error" not in said

        await until(works, 30)
        await api(client, "STREAM.DELETE.PROBE")

    async def leader(self, client: Client, stream: str, consumer: str = "") -> str:
        """Who leads a stream, or one of its consumers; waits for the end of an election."""
        request = f"CONSUMER.INFO.{stream}.{consumer}" if consumer else f"STREAM.INFO.{stream}"
        async with asyncio.timeout(30):
            while True:
                said = await api(client, request)
                if name := (said.get("cluster") or {}).get("leader"):
                    return str(name)
                await asyncio.sleep(0.05)

    async def healed(self, client: Client, stream: str) -> None:
        """Wait until every replica of a stream is back and has caught up."""

        async def current() -> bool:
            cluster = (await api(client, f"STREAM.INFO.{stream}")).get("cluster") or {}
            replicas = cluster.get("replicas") or []
            return len(replicas) == 2 and all(one.get("current") for one in replicas)

        await until(current, 30)

"""A world for the promises: the real engine on memory and on a real nats-server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from omni_worker import EventBus, Settings
from omni_worker.nats_server import NatsServer
from omni_worker.transports.base import Message, Transport
from omni_worker.transports.infos import ConsumerInfo
from omni_worker.transports.jetstream import JetStreamTransport
from omni_worker.transports.memory import MemoryServer, MemoryTransport


class World:
    """Buses on one server, and a look at what the server holds."""

    def __init__(self, kind: str, server: NatsServer | MemoryServer) -> None:
        self.kind = kind
        self.server = server
        self.buses: list[EventBus] = []

    def transport(self, settings: Settings | None = None) -> Transport:
        if isinstance(self.server, MemoryServer):
            return MemoryTransport(self.server)
        return JetStreamTransport(settings or Settings(urls=self.server.url))

    async def bus(self, name: str = "tests", **settings: Any) -> EventBus:
        url = self.server.url if isinstance(self.server, NatsServer) else "nats://memory:4222"
        given = Settings(urls=url, **settings)
        bus = EventBus(transport=self.transport(given), name=name, settings=given)
        await bus.connect()
        self.buses.append(bus)
        return bus

    async def info(self, stream: str, consumer: str) -> ConsumerInfo:
        """The consumer a handler has its events from: these tests publish to bare subjects."""
        [*_, found] = await self.consumers(stream, consumer)
        return found

    async def consumers(self, stream: str, consumer: str) -> list[ConsumerInfo]:
        """The consumers of one handler, that of the bare subjects last."""
        look = self.buses[0].transport.operators.consumer_info
        found = [await look(stream, name) for name in (consumer, f"{consumer}-bare")]
        return [info for info in found if info is not None]

    async def is_quiet(self, stream: str, consumer: str) -> bool:
        found = await self.consumers(stream, consumer)
        return not any(info.num_pending or info.num_ack_pending for info in found)

    async def store(self, subject: str, body: bytes, id: str = "") -> None:
        """As a foreign program: bytes on a subject."""
        await self.buses[0].transport.publish(Message(subject, body, id), timeout=5)

    async def update_stream(self, name: str, **change: Any) -> None:
        """As an operator: change a stream's configuration."""
        operators = self.buses[0].transport.operators
        info = await operators.stream_info(name)
        assert info is not None
        await operators.update_stream({**info.config.raw, **change})

    async def delete_stream(self, name: str) -> None:
        """As an operator: delete a stream."""
        if isinstance(self.server, MemoryServer):
            self.server.delete_stream(name)
        else:
            transport = self.buses[0].transport
            assert isinstance(transport, JetStreamTransport)
            await transport._api.ask(f"STREAM.DELETE.{name}")

    async def letters(self) -> list[dict[str, Any]]:
        """Every dead letter's whole event, in order."""
        operators = self.buses[0].transport.operators
        info = await operators.stream_info("SYSTEM")
        assert info is not None
        found = []
        for sequence in range(1, info.state.last_sequence + 1):
            message = await operators.message("SYSTEM", sequence)
            if message is not None and message.subject == "system.dead_letter":
                found.append(json.loads(message.body))
        return found


@pytest.fixture(params=["memory", "jetstream"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def real_server(kind: str) -> Iterator[NatsServer | None]:
    if kind == "memory":
        yield None
        return
    with NatsServer() as server:
        yield server


@pytest.fixture
async def world(kind: str, real_server: NatsServer | None) -> AsyncIterator[World]:
    world = World(kind, real_server or MemoryServer())
    yield world
    async with AsyncExitStack() as stack:
        for bus in world.buses:
            stack.push_async_callback(bus.close, 0.0)


def body(id: str, type: str = "custom.thing", payload: Any = None, **extra: Any) -> bytes:
    """An event's bytes as a foreign program writes them."""
    event = {"id": id, "type": type, "payload": payload, "timestamp": 1_769_700_000_000, **extra}
    return json.dumps({"metadata": {}, **event}).encode()

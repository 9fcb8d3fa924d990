"""The memory transport keeps the port's promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from omni_worker.errors import TransportError
from omni_worker.transports.base import Transport
from omni_worker.transports.memory import MemoryServer, MemoryTransport

from .suite import TransportSuite


class MemoryBackend:
    """A server in memory, and the transports connected to it."""

    features = frozenset({"disconnect", "drop_answers", "odd bytes"})

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.transports: list[MemoryTransport] = []

    def unopened(self) -> MemoryTransport:
        return MemoryTransport(self.server)

    async def connect(self) -> MemoryTransport:
        transport = self.unopened()
        await transport.open("suite")
        self.transports.append(transport)
        return transport

    async def store(self, subject: bytes, body: bytes, headers: bytes | None = None) -> None:
        self.server.store(subject, body, headers)

    async def disconnect(self) -> None:
        for transport in self.transports:
            transport.disconnect()

    async def reconnect(self) -> None:
        for transport in self.transports:
            transport.reconnect()

    async def give_up(self, transport: Transport) -> None:
        assert isinstance(transport, MemoryTransport)
        transport.give_up(TransportError("cannot connect after 3 tries"))

    def drop_answers(self, transport: Transport, count: int) -> None:
        assert isinstance(transport, MemoryTransport)
        transport.drop_answers(count)


class TestMemory(TransportSuite):
    """All of the suite."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[MemoryBackend]:
        backend = MemoryBackend()
        yield backend
        for transport in backend.transports:
            await transport.close()

"""The memory transport keeps the port's promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from omni_worker.errors import TransportError
from omni_worker.testing.clock import VirtualTime
from omni_worker.transports.base import Transport
from omni_worker.transports.memory import MemoryServer, MemoryTransport

from ..waiting import until
from .suite import TransportSuite
from .suite.backend import consume, make_consumer, make_stream, publish


class MemoryBackend:
    """A server in memory, and the transports connected to it."""

    features = frozenset({"disconnect", "drop_answers", "odd bytes", "future start", "pins"})
    tries: int | None = None

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.transports: list[MemoryTransport] = []
        self.others: list[MemoryTransport] = []

    async def close(self) -> None:
        for transport in self.transports + self.others:
            await transport.close()

    def unopened(self) -> MemoryTransport:
        return MemoryTransport(self.server)

    async def connect(self) -> MemoryTransport:
        transport = self.unopened()
        await transport.open("suite")
        self.transports.append(transport)
        return transport

    async def beside(self) -> MemoryTransport:
        transport = self.unopened()
        await transport.open("beside")
        self.others.append(transport)
        return transport

    async def store(self, subject: bytes, body: bytes, headers: bytes | None = None) -> None:
        self.server.store(subject, body, headers)
        await asyncio.sleep(0)  # as over a wire: the server has acted on it before we go on

    async def delete_stream(self, name: str) -> None:
        self.server.delete_stream(name)

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
        await backend.close()

    async def test_a_broken_link_loses_what_is_on_its_way(self, backend: MemoryBackend) -> None:
        transport = await backend.connect()
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.2)
        backend.server.store("s.a", b"")
        consumer = backend.server.consumer("S", "c")
        assert consumer is not None
        source, recorder = await consume(transport, 1)
        while not consumer.info()["num_ack_pending"]:
            await asyncio.sleep(0)

        transport.disconnect()
        transport.reconnect()
        await until(lambda: recorder.resumptions == 1)
        source.request(1)

        await recorder.wait(1)
        assert recorder.counts(1) == [2]

    async def test_leases_that_end_together_end_in_the_order_they_were_given(
        self, backend: MemoryBackend
    ) -> None:
        clock = VirtualTime.take()
        try:
            transport = await backend.connect()
            await make_stream(transport)
            await make_consumer(transport, ack_wait=10)
            await publish(transport, 1, 2, 3)
            source, recorder = await consume(transport, 3)
            await clock.move(lambda: True, patience=5)
            recorder.deliveries[0].in_progress()  # no time has passed: and yet it ends last

            source.request(3)
            await clock.move(lambda: False, patience=5, until=clock.now + 11)

            assert recorder.sequences == [1, 2, 3, 2, 3, 1]
        finally:
            clock.release()

    async def test_time_is_the_loops(self) -> None:
        server = MemoryServer()
        server.create_stream({"name": "S", "subjects": ["s.>"]})
        loop = asyncio.get_running_loop()
        before = loop.time()

        first, second = server.clock(), server.clock()

        assert first < second
        assert second - first <= (loop.time() - before) * 1e9 + 1_000
        assert abs(first / 1e9 - time.time()) < 1.0

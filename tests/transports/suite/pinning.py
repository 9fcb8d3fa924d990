"""Pinning: a consumer whose priority group pins a client serves one process at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from omni_worker.transports.base import Source, Transport

from ...waiting import until
from .backend import (
    SECOND,
    Backend,
    Recorder,
    consumer_config,
    info,
    make_consumer,
    make_stream,
    needs,
    publish,
    settled,
)

TIMEOUT = 2  # seconds

PINS = {
    "priority_groups": ["active"],
    "priority_policy": "pinned_client",
    "priority_timeout": TIMEOUT * SECOND,
}


class Reader(Recorder):
    """A receiver that requests again what ended, and remembers when it is served."""

    def __init__(self) -> None:
        super().__init__()
        self.served: list[bool | int] = []  # turns, and how much came before each

    def replenish(self, source: Source) -> None:
        source.request(10 - source.outstanding)

    def resumed(self, source: Source) -> None:
        self.replenish(source)

    def take_turn(self, source: Source, is_served: bool) -> None:
        self.served += [is_served, len(self.deliveries)]


async def read(transport: Transport) -> tuple[Source, Reader]:
    """A source on the consumer c that stands by, or is served."""
    reader = Reader()
    source = await transport.consume("S", "c", reader, served=reader.take_turn)
    source.request(10)
    await transport.flush(1.0)
    return source, reader


async def make_pinned(transport: Transport, **config: Any) -> None:
    """A consumer that serves one process at a time."""
    await make_stream(transport)
    await make_consumer(transport, **{**PINS, **config})


async def change(transport: Transport, **config: Any) -> None:
    """Write the configuration of c."""
    await transport.operators.update_consumer("S", consumer_config(**config))


class Pinning:
    """Promises of ``served`` and ``is_served``."""

    async def test_one_reader_is_served_and_the_others_stand_by(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "pins")
        await make_pinned(transport)
        one, first = await read(transport)
        other, second = await read(await backend.beside())

        await publish(transport, *range(30))

        await until(lambda: len(first.deliveries) == 10)
        one.request(20)
        await first.wait(30)
        assert second.deliveries == []
        assert (first.served, second.served) == ([True, 0], [])
        assert (one.is_served, other.is_served) == (True, False)
        assert first.deliveries[0].raw_headers is not None
        assert b"Pin-Id" not in first.deliveries[0].raw_headers

    async def test_a_reader_that_asks_for_nothing_keeps_its_turn(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "pins")
        await make_pinned(transport)
        _, first = await read(transport)
        await publish(transport, *range(10))
        await first.wait(10)
        _, second = await read(await backend.beside())
        await publish(transport, "more")

        now = asyncio.get_running_loop().time
        begun = now()
        await until(lambda: now() - begun > 2 * TIMEOUT)

        assert second.deliveries == []

    async def test_when_the_source_closes_the_next_one_is_served_at_once(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "pins")
        await make_pinned(transport, priority_timeout=60 * SECOND)
        one, first = await read(transport)
        other, second = await read(await backend.beside())
        await publish(transport, 1)
        await first.wait(1)

        await one.stop()
        first.deliveries[0].nak()
        await publish(transport, 2)
        assert second.deliveries == []
        await one.close()

        await second.wait(2)
        assert second.served == [True, 0]
        assert other.is_served

    async def test_when_a_link_stays_broken_the_next_one_is_served(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "pins")
        needs(backend, "disconnect")
        await make_pinned(transport, ack_wait=1.0, priority_timeout=SECOND)
        one, first = await read(transport)
        await publish(transport, 1)
        await first.wait(1)
        beside = await backend.beside()
        other, second = await read(beside)

        await backend.disconnect()
        await publish(beside, 2)
        await second.wait(2)
        await backend.reconnect()
        await until(lambda: first.served[:4] == [True, 0, False, 1])

        assert second.served[:2] == [True, 0]
        assert not one.is_served
        for delivery in second.deliveries:
            delivery.ack()
        await settled(beside)
        await other.close()
        await publish(beside, 3)
        await until(lambda: len(first.deliveries) == 2)

    async def test_a_group_may_come_and_go_while_a_consumer_is_read(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "pins")
        await make_stream(transport)
        await make_consumer(transport)
        one, first = await read(transport)
        beside = await backend.beside()
        other, second = await read(beside)

        async def both_wait() -> bool:
            return (await info(transport)).num_waiting == 2

        await until(both_wait)  # its server has the request of each; in a cluster it may come late
        await publish(transport, 1, 2)
        await until(lambda: len(first.deliveries) == len(second.deliveries) == 1)

        await change(transport, **PINS)
        await publish(transport, 3, 4)

        await until(lambda: len(first.deliveries) + len(second.deliveries) == 4)
        assert sorted([len(first.deliveries), len(second.deliveries)]) == [1, 3]

        await change(transport)
        await publish(transport, 5, 6)

        await until(lambda: len(first.deliveries) + len(second.deliveries) == 6)
        assert (one.is_served, other.is_served) == (True, True)

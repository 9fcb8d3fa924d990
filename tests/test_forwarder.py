"""The forwarder: many events that are due at once go out in order, without a wait between them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omni_worker import EventBus
from omni_worker.errors import PermissionDenied, TransportError
from omni_worker.schedules import forwarder
from omni_worker.schedules.messages import due_consumer
from omni_worker.transports.base import Message, Stored
from tests.promises.conftest import World, kind, real_server, world
from tests.test_schedules import published, read, stored
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]

CHUNK = 10


class Held:
    """Chunks on their way: each is confirmed when it is let go, or refused."""

    def __init__(self, bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chunks: list[list[Message]] = []
        self.answers: asyncio.Queue[Exception | None] = asyncio.Queue()
        self._publish = bus.transport.publish_many
        monkeypatch.setattr(forwarder, "CHUNK", CHUNK)
        monkeypatch.setattr(bus.transport, "publish_many", self.publish_many)

    async def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> Sequence[Stored | Exception]:
        taken = list(messages)
        if taken[0].subject != "custom.late":  # a schedule that is being written
            return await self._publish(taken, timeout=timeout)
        self.chunks.append(taken)
        answer = await asyncio.wait_for(self.answers.get(), 10.0)
        if answer is not None:
            return [answer] * len(taken)
        return await self._publish(taken, timeout=timeout)


async def due_at_once(bus: EventBus, count: int) -> None:
    """Schedule events that are due at the same moment, in the order of their numbers."""
    at = datetime.now(UTC) + timedelta(seconds=1)
    for number in range(count):
        await bus.publish("custom.late", number, at=at)


async def settled(bus: EventBus) -> bool:
    consumer = due_consumer(bus.name)
    info = await bus.transport.operators.consumer_info(consumer.stream, consumer.name)
    return info is not None and not (info.num_pending or info.num_ack_pending)


async def test_the_next_chunk_goes_out_while_others_wait_for_their_confirmations(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await world.bus("shop")
    held = Held(bus, monkeypatch)
    await due_at_once(bus, 3 * CHUNK)

    await until(lambda: sum(map(len, held.chunks)) == 3 * CHUNK)  # and none is confirmed
    before = await stored(bus, "custom.late")
    for _ in held.chunks:
        held.answers.put_nowait(None)

    assert before == []
    due = [message.id for chunk in held.chunks for message in chunk]
    assert len(await published(bus, count=3 * CHUNK)) == 3 * CHUNK
    assert [read(one)["id"] for one in await stored(bus, "custom.late")] == due
    await until(lambda: settled(bus))


async def test_chunks_that_are_refused_come_again_once_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "SOON", 0.1)
    monkeypatch.setattr(forwarder, "LATER", 0.1)
    bus = await world.bus("shop")
    held = Held(bus, monkeypatch)
    await due_at_once(bus, 3 * CHUNK)
    await until(lambda: sum(map(len, held.chunks)) == 3 * CHUNK)

    before = len(held.chunks)
    for number in range(before):
        held.answers.put_nowait(TransportError("no") if number % 2 else None)
    for _ in range(6 * CHUNK):
        held.answers.put_nowait(None)

    assert sorted(await published(bus, count=3 * CHUNK)) == list(range(3 * CHUNK))
    await until(lambda: settled(bus))
    assert len(await stored(bus, "custom.late")) == 3 * CHUNK


async def test_a_denied_process_rests_once_everything_on_its_way_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, other = await world.bus("shop"), await world.bus("shop")
    held = Held(bus, monkeypatch)
    await due_at_once(bus, 2 * CHUNK)
    await until(lambda: sum(map(len, held.chunks)) == 2 * CHUNK)

    held.answers.put_nowait(PermissionDenied("custom.late: no right"))
    await until(lambda: bus.schedules.forwarder._is_to_rest)
    is_reading = bus.schedules.forwarder._source is not None
    for _ in held.chunks[1:]:
        held.answers.put_nowait(None)
    await until(lambda: bus.schedules.forwarder._source is None)
    await other.schedules.forwarder.look()

    assert is_reading
    payloads: list[Any] = await published(other, count=2 * CHUNK)
    assert sorted(payloads) == list(range(2 * CHUNK))
    await until(lambda: settled(other))


async def test_a_stop_waits_for_every_chunk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await world.bus("shop")
    held = Held(bus, monkeypatch)
    await due_at_once(bus, 3 * CHUNK)
    await until(lambda: sum(map(len, held.chunks)) == 3 * CHUNK)

    stopping = asyncio.ensure_future(bus.schedules.forwarder.stop())
    for _ in held.chunks:
        held.answers.put_nowait(None)
    await stopping

    assert len(await stored(bus, "custom.late")) == 3 * CHUNK
    await until(lambda: settled(bus))


async def passes(seconds: float) -> None:
    """Let so much time pass."""
    now = asyncio.get_running_loop().time
    begun = now()
    await until(lambda: now() - begun > seconds)


async def test_what_is_on_its_way_for_long_does_not_come_to_another_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, other = await world.bus("shop"), await world.bus("shop")
    held = Held(bus, monkeypatch)
    await due_at_once(bus, CHUNK)
    await until(lambda: sum(map(len, held.chunks)) == CHUNK)
    await other.schedules.forwarder.look()

    await passes(3 * due_consumer("shop").ack_wait)
    before = await stored(other, "custom.late")
    for _ in held.chunks:
        held.answers.put_nowait(None)

    assert before == []
    assert sorted(await published(other, count=CHUNK)) == list(range(CHUNK))
    await until(lambda: settled(other))


async def test_what_comes_again_while_it_is_on_its_way_is_published_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "RENEW", 60.0)
    bus = await world.bus("shop")
    held, received = Held(bus, monkeypatch), list[int]()
    receive = bus.schedules.forwarder.receive
    monkeypatch.setattr(
        bus.schedules.forwarder, "receive",
        lambda delivery: (received.append(delivery.count), receive(delivery)),
    )  # fmt: skip
    await due_at_once(bus, CHUNK)

    await until(lambda: received.count(2) == CHUNK)
    for _ in range(2 * CHUNK):
        held.answers.put_nowait(None)

    assert sorted(await published(bus, count=CHUNK)) == list(range(CHUNK))
    await until(lambda: settled(bus))
    assert sum(map(len, held.chunks)) == CHUNK

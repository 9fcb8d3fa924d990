"""Late consumers: what a widened consumer passed, and which one reads that."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from omni_worker import Event, EventBus, Settings, bus
from omni_worker.bus.late_subjects import LateReader
from omni_worker.errors import PermissionDenied
from omni_worker.handler_consumers import PlannedConsumers
from omni_worker.handlers import Handler
from omni_worker.operations.orphans import orphans
from omni_worker.operations.recreate import look_at_remaking, remake
from omni_worker.topology import (
    ConsumerSpec,
    StreamConsumers,
    claim,
    consumer_config,
    has_late,
    late_consumer,
    widened,
    with_until,
    without_late,
)
from omni_worker.topology.additions import Passed
from omni_worker.transports.base import Message, Receiver, Source
from omni_worker.transports.infos import read_consumer_config
from omni_worker.transports.memory import MemoryServer, MemoryTransport

from .promises.conftest import body
from .waiting import until

SPEC = ConsumerSpec(
    stream="FIRST", name="w", app="a", filters=("first.>",), ack_wait=30.0, handler="w"
)
WIDE = replace(SPEC, filters=("first.>", "second.>"))
EDITED = read_consumer_config(consumer_config(replace(SPEC, ack_wait=300.0)))


@pytest.fixture
async def transport() -> MemoryTransport:
    """A stream whose consumer is widened, and another one that reads what it passed."""
    transport = MemoryTransport(MemoryServer())
    await transport.open("tests")
    operators = transport.operators
    await operators.create_stream({"name": "FIRST", "subjects": ["first.>", "second.>"]})
    main = await operators.create_consumer("FIRST", consumer_config(SPEC))
    step = claim(late_consumer(WIDE, main.config, 1), "p")
    late = await operators.create_consumer("FIRST", step.config)
    await operators.update_consumer("FIRST", widened(main.config, late.config.filters))
    await operators.update_consumer("FIRST", with_until(late.config, 1))
    return transport


def test_a_late_consumer_has_the_ack_wait_that_leases_follow() -> None:
    late = late_consumer(WIDE, EDITED, start=1)

    assert late.ack_wait == 300.0


async def test_a_recreated_consumer_keeps_the_word_that_another_one_reads_what_it_passed(
    transport: MemoryTransport,
) -> None:
    await remake(transport, await look_at_remaking(transport, WIDE))

    info = await transport.operators.consumer_info("FIRST", "w")
    assert info is not None
    assert has_late(info.config)


@pytest.mark.parametrize(("is_tagged", "expected"), [(True, []), (False, ["w-late"])])
async def test_a_late_consumer_that_no_consumer_names_is_listed(
    transport: MemoryTransport, is_tagged: bool, expected: list[str]
) -> None:
    operators = transport.operators
    main = await operators.consumer_info("FIRST", "w")
    assert main is not None
    if not is_tagged:
        await operators.update_consumer("FIRST", without_late(main.config))
    standing = [info.config for info in await operators.streams()]
    wanted = PlannedConsumers(
        handler=Handler.__new__(Handler),
        is_shared=True,
        consumers=(StreamConsumers(main=WIDE),),
        copies={},
        unserved=(),
        doubts=(),
    )

    found = await orphans(operators, "a", standing, [wanted])

    assert [info.name for info in found] == expected


async def test_a_subscription_that_ends_begins_to_read_no_late_consumer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus, "REFRESH", 3600.0)
    transport = MemoryTransport(MemoryServer())
    begins, goes_on = asyncio.Event(), asyncio.Event()
    consume, opened, seen = transport.consume, list[Source](), list[str]()

    async def slow(stream: str, name: str, receiver: Receiver, **served: Any) -> Source:
        source = await consume(stream, name, receiver, **served)
        if name.endswith("-late"):
            opened.append(source)
            begins.set()
            await goes_on.wait()
        return source

    async def handle(event: Event[Any]) -> None:
        seen.append(event.id)

    monkeypatch.setattr(transport, "consume", slow)
    await transport.open("tests")
    await transport.operators.create_stream({"name": "FIRST", "subjects": ["first.>"]})
    one = EventBus(transport=transport, name="a", settings=Settings())
    await one.connect()
    subscription = await one.subscribe("*.synced", handle, durable="w")
    wider = {"name": "FIRST", "subjects": ["first.>", "second.>"]}
    await transport.operators.update_stream(wider)
    for type in ("second.synced", "first.synced"):
        await transport.publish(Message(type, body(type, type), type), timeout=5)
    await until(lambda: seen == ["first.synced"])
    looking = asyncio.ensure_future(one._subscriptions.refresh(busy_only=False))
    await begins.wait()

    await subscription.unsubscribe()
    goes_on.set()
    await looking

    assert [source.outstanding for source in opened] == [0]
    assert [subscription.state_of(source) for source in opened] == [None]
    await one.close()


async def test_a_late_consumer_that_may_not_be_read_is_reported(
    transport: MemoryTransport,
) -> None:
    async def handle(event: Event[Any]) -> None: ...

    one = EventBus(transport=transport, name="a", settings=Settings())
    await one.connect()
    subscription = await one.subscribe("custom.thing", handle, durable="r")
    reader = LateReader(subscription, Passed(until=1, but=()))
    await reader.begin(transport, "FIRST", "w-late")
    [source] = [one for one in subscription._states if one.consumer == "w-late"]

    reader.lost(source, PermissionDenied("no right"))

    assert subscription.stalls == [
        "consumer w-late on FIRST, of new subjects, cannot be read: no right"
    ]
    await one.close()

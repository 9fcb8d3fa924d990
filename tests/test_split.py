"""A handler's two consumers on a stream, `r1` and `r1-bare`: planned, made, and kept as one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from omni_worker import Event, EventBus
from omni_worker.errors import TopologyError
from omni_worker.handler_consumers import clash, planned_consumers, shown_consumers
from omni_worker.handlers import Handler, declare
from omni_worker.nats_server import NatsServer
from omni_worker.schemas import SchemaRegistry
from omni_worker.settings import Settings
from omni_worker.topology import (
    SEVEN,
    UpdateConsumer,
    consumer_config,
    joined,
    loses_events,
    main_name,
    overlapping,
    plan_consumer,
)
from omni_worker.transports.memory import MemoryServer, MemoryTransport

from .transports.servers import oldest
from .waiting import until


async def handle(event: Event[Any]) -> None: ...


def handler(*types: str, channel: Any = None, subject: Any = None, **options: Any) -> Handler:
    return declare(
        handle, app="shop", types=types, channel=channel, subject=subject, options=options
    )


def planned(*types: str, **options: Any) -> dict[str, tuple[str, ...]]:
    """Names of the consumers with their filters, in the order they are made."""
    found = planned_consumers(handler(*types, **options), SchemaRegistry(), Settings(), SEVEN)
    return {spec.name: spec.filters for spec in found.specs}


@pytest.mark.parametrize(
    ("types", "options", "consumers"),
    [
        (["message.sent"], {}, {"d-bare": ("message.sent",), "d": ("message.sent.>",)}),
        (["message.sent"], {"channel": "a"}, {"d": ("message.sent.a.>",)}),
        (["message.sent"], {"order_by": str}, {"d": ("message.sent", "message.sent.>")}),
        (["message.sent", "message.read"], {},
         {"d-bare": ("message.read", "message.sent"), "d": ("message.read.>", "message.sent.>")}),
        (["message.*"], {}, {"d-bare": ("message.*",), "d": ("message.*.>",)}),
        (["message.*", "message.sent"], {}, {"d-bare": ("message.*",), "d": ("message.*.>",)}),
        (["custom.>"], {}, {"d": ("custom.>",)}),
        (["custom.a", "custom.a.b"], {}, {"d-bare": ("custom.a",), "d": ("custom.a.>",)}),
        ([], {"subject": "message.sent"}, {"d": ("message.sent",)}),
    ],
)  # fmt: skip
def test_bare_subjects_that_no_wildcard_covers_have_a_consumer_of_their_own(
    types: list[str], options: dict[str, Any], consumers: dict[str, tuple[str, ...]]
) -> None:
    found = planned(*types, durable="d", **options)

    assert found == consumers
    assert list(found) == list(consumers)  # the bare one is made first


def test_both_are_tagged_with_the_handler_and_the_main_one_with_the_split() -> None:
    [one] = planned_consumers(
        handler("message.sent", durable="d"), SchemaRegistry(), Settings(), SEVEN
    ).consumers
    assert one.bare is not None

    bare, main, whole = (
        consumer_config(spec)["metadata"] for spec in (one.bare, one.main, joined(one))
    )

    assert {bare["omni-worker.handler"], main["omni-worker.handler"]} == {"d"}
    assert bare["omni-worker.pattern"] == "message.sent message.sent.>"
    assert main["omni-worker.split"] == "d-bare"
    assert "omni-worker.split" not in bare | whole


def test_the_two_have_the_main_one_s_name_for_people() -> None:
    sources = [("CUSTOM", "d-bare"), ("CUSTOM", "d"), ("MESSAGE", "d")]

    assert shown_consumers(handler("custom.a", durable="d"), sources) == [
        ("CUSTOM", "d"), ("MESSAGE", "d"),
    ]  # fmt: skip
    assert main_name("x-bare", "x-bare") == "x-bare"
    assert main_name("x-bare-bare", "x-bare") == "x-bare"
    assert main_name("shop-q-12345678-bare", None) == "shop-q-12345678"


def test_a_durable_that_is_another_s_second_consumer_is_refused() -> None:
    one, other = handler("message.sent", durable="x"), handler("custom.a", durable="x-bare")

    assert "choose another name" in (clash(one, other, SchemaRegistry()) or "")
    assert "choose another name" in (clash(other, one, SchemaRegistry()) or "")


def test_three_servers_lose_events_of_overlapping_filters() -> None:
    assert [loses_events(one) for one in ((2, 10, 26), (2, 11, 0), (2, 11, 1))] == [True] * 3
    assert not loses_events((2, 11, 3))
    assert overlapping(["message.sent", "message.sent.>"]) == ("message.sent", "message.sent.>")
    assert overlapping(["message.read", "message.sent.>"]) is None


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus(transport=MemoryTransport(MemoryServer()), name="shop") as bus:
        yield bus


async def test_a_consumer_of_an_older_version_keeps_all_filters_and_nothing_is_doubled(
    bus: EventBus,
) -> None:
    seen: list[Any] = []
    [one] = planned_consumers(
        handler("custom.a", durable="d"), SchemaRegistry(), Settings(), SEVEN
    ).consumers
    await bus.transport.operators.create_consumer("CUSTOM", consumer_config(joined(one)))
    await bus.publish("custom.a", 1)

    await bus.subscribe("custom.a", lambda event: seen.append(event.payload), durable="d")
    await bus.publish("custom.a", 2)
    await bus.publish("custom.a", 3, channel="c", instance="i")
    await until(lambda: len(seen) == 3)

    assert sorted(seen) == [1, 2, 3]
    assert await bus.transport.operators.consumer_info("CUSTOM", "d-bare") is None


async def test_what_the_bare_consumer_has_is_left_to_it_though_events_are_unanswered(
    bus: EventBus,
) -> None:
    [one] = planned_consumers(
        handler("custom.a", durable="d"), SchemaRegistry(), Settings(), SEVEN
    ).consumers
    info = await bus.transport.operators.create_consumer("CUSTOM", consumer_config(joined(one)))
    left = replace(info, num_ack_pending=1)  # by a process that was killed while it made two
    less = replace(one.main, filters=("custom.a.c.>",))

    narrow, wide = plan_consumer(one.main, left), plan_consumer(less, left)

    assert isinstance(narrow, UpdateConsumer)
    assert narrow.config["filter_subject"] == "custom.a.>"
    assert isinstance(wide, UpdateConsumer)
    assert wide.config["filter_subjects"] == ["custom.a", "custom.a.>"]


async def test_two_processes_that_start_at_once_share_the_two_consumers() -> None:
    server = MemoryServer()
    seen: list[Any] = []
    first, second = (EventBus(transport=MemoryTransport(server), name="shop") for _ in range(2))
    async with first, second:
        await asyncio.gather(
            *(
                one.subscribe("custom.a", lambda event: seen.append(event.payload), durable="d")
                for one in (first, second)
            )
        )
        for number in range(50):
            await first.publish("custom.a", number)
            await first.publish("custom.a", 100 + number, channel="c", instance="i")
        await until(lambda: len(seen) >= 100)

    assert sorted(seen) == [*range(50), *range(100, 150)]


async def test_the_oldest_server_handles_every_event_once_and_refuses_to_lose_some() -> None:
    seen: list[Any] = []
    with oldest() as server:
        async with EventBus(server.url, name="shop") as bus:
            for number in range(500):
                there = {"channel": "c", "instance": "i"} if number % 7 else {}
                await bus.publish("custom.a", number, **there)
            await bus.subscribe(
                "custom.a", lambda event: seen.append(event.payload), durable="d",
                start_from="first",
            )  # fmt: skip
            await until(lambda: len(seen) >= 500)
            with pytest.raises(TopologyError, match="loses events then"):
                await bus.subscribe("custom.a", handle, durable="o", order_by=lambda event: "k")

    assert sorted(seen) == list(range(500))


async def test_with_provisioning_off_one_consumer_with_all_filters_is_read(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    [one] = planned_consumers(
        handler("custom.a", durable="d"), SchemaRegistry(), Settings(), SEVEN
    ).consumers
    assert one.bare is not None
    off = Settings(provision="off", urls=nats_server.url)
    async with EventBus(nats_server.url, name="shop") as made:
        create = made.transport.operators.create_consumer
        await create("CUSTOM", consumer_config(joined(one)))
        async with EventBus(name="shop", settings=off) as bus:
            read = await bus.subscribe("custom.a", handle, durable="d")
            assert [source.consumer for source in read.sources] == ["d"]
        await made.transport.operators.delete_consumer("CUSTOM", "d")

        await create("CUSTOM", consumer_config(one.main))
        async with EventBus(name="shop", settings=off) as bus:
            with pytest.raises(TopologyError, match="leaves custom"):
                await bus.subscribe("custom.a", handle, durable="d")


@pytest.mark.parametrize(
    ("types", "options"), [(["custom.>"], {}), (["custom.a"], {"order_by": lambda event: "k"})]
)
async def test_a_bare_consumer_s_events_are_not_taken_over_unasked(
    bus: EventBus, types: list[str], options: Any
) -> None:
    first = await bus.subscribe("custom.a", handle, durable="d")
    await first.unsubscribe()

    with pytest.raises(TopologyError, match="needs one consumer"):
        await bus.subscribe(types, handle, durable="d", **options)


# --- where a new handler begins ------------------------------------------------------------------


async def test_a_new_handler_says_once_that_stored_events_are_left_out(
    bus: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "omni_worker")
    await bus.subscribe("custom.a", handle, durable="empty")  # no event is stored yet
    await bus.publish("custom.a")
    await bus.publish("custom.a", channel="c", instance="i")

    first = await bus.subscribe("custom.a", handle, durable="new")
    await first.unsubscribe()
    await bus.subscribe("custom.a", handle, durable="new")
    await bus.subscribe("custom.a", handle, durable="all", start_from="first")
    await bus.subscribe("custom.a", handle)  # without a durable: it is live only

    assert [one for one in caplog.messages if "begins behind" in one] == [
        "consumer new is new and begins behind CUSTOM #2;"
        ' start_from="first" reads what is stored before'
    ]

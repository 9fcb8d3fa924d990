"""Handler consumers: names, streams and filters from a declaration and what exists, as data."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker.events import Event
from omni_worker.handler_consumers import clash, consumer_name, copies_of, planned_consumers
from omni_worker.handlers import Handler, declare
from omni_worker.schemas import SchemaRegistry
from omni_worker.settings import Settings
from omni_worker.topology import SEVEN, queue_consumer_name


async def handle(event: Event[Any]) -> None: ...


async def another(event: Event[Any]) -> None: ...


def handler(*types: str, call: Any = handle, **options: Any) -> Handler:
    return declare(call, types=types, app="shop", options=options)


def test_a_consumer_is_called_by_its_durable_its_queue_or_its_function_and_a_mark() -> None:
    queued = handler("message.sent", queue="q")

    assert consumer_name(handler("message.sent", durable="d"), "x") == "d"
    assert consumer_name(queued, "x") == queue_consumer_name("shop", "q", queued.filters)
    assert consumer_name(handler("message.sent"), "x") == "shop-handle-x"
    assert consumer_name(handler("message.sent")) == "shop-handle-*"


def test_each_stream_has_a_consumer_with_its_own_filters() -> None:
    planned = planned_consumers(
        handler("message.sent", "custom.order", durable="d"), SchemaRegistry(), Settings(), SEVEN
    )

    assert [(spec.stream, spec.name, spec.filters) for spec in planned.specs] == [
        ("MESSAGE", "d-bare", ("message.sent",)),
        ("MESSAGE", "d", ("message.sent.>",)),
        ("CUSTOM", "d-bare", ("custom.order",)),
        ("CUSTOM", "d", ("custom.order.>",)),
    ]
    assert planned.name == "d"
    assert planned.is_shared
    assert planned.unserved == ()


def test_types_with_a_stream_of_their_own_are_read_from_the_copy() -> None:
    class Order(BaseModel): ...

    registry = SchemaRegistry()
    registry.register("custom.order", Order, stream="ORDERS")
    reader = handler("custom.order", "custom.push", durable="d")

    planned = planned_consumers(reader, registry, Settings(), SEVEN)

    assert copies_of(reader, registry) == planned.copies == {"ORDERS": ("custom.order",)}
    assert {one.stream: one.filters for one in planned.consumers} == {
        "CUSTOM": ("custom.push", "custom.push.>"),
        "ORDERS": ("custom.order", "custom.order.>"),
    }


def test_what_no_stream_stores_is_named() -> None:
    planned = planned_consumers(handler("foo.bar"), SchemaRegistry(), Settings(), SEVEN)

    assert planned.specs == ()
    assert planned.unserved == ("foo.bar", "foo.bar.>")


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        (handler("message.sent", durable="d"), handler("message.read", durable="d", call=another),
         "durable='d' is taken in stream MESSAGE by"),
        (handler("message.sent", durable="d"), handler("custom.a", durable="d", call=another), ""),
        (handler("message.sent", queue="q"), handler("message.sent", queue="q", call=another),
         "queue='q' with this pattern is taken by"),
        (handler("message.sent"), handler("message.sent"), "is declared already"),
        (handler("message.sent"), handler("custom.a"), ""),
        (handler("message.sent"), handler("message.sent", call=another), ""),
    ],
)  # fmt: skip
def test_two_handlers_of_one_consumer_cannot_both_be(
    one: Handler, other: Handler, word: str
) -> None:
    said = clash(one, other, SchemaRegistry())

    assert (said is None) == (word == "")
    assert word in (said or "")

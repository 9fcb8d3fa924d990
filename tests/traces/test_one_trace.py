"""One trace: from a publisher through two workers to a dead letter and its retry."""

from __future__ import annotations

from typing import Any

from opentelemetry import baggage, context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from omni_worker import Context, Event
from omni_worker.letters.read import DeadLetter
from tests.promises.conftest import World
from tests.waiting import until

from .conftest import Spans


def events_of(span: ReadableSpan) -> list[str]:
    return [one.name for one in span.events]


async def test_one_trace_from_a_publisher_to_a_dead_letter_and_its_retry(
    world: World, spans: Spans
) -> None:
    publisher, billing, post = await world.bus(), await world.bus(), await world.bus()
    is_mended, tenants = False, []

    async def bill(event: Event[Any], ctx: Context) -> None:
        await ctx.publish("custom.bill.made", {"order": event.id})

    async def send(event: Event[Any]) -> None:
        tenants.append(baggage.get_baggage("tenant"))
        if not is_mended:
            raise ConnectionError("the post office is closed")

    await billing.subscribe("custom.order.placed", bill, durable="bill")
    await post.subscribe("custom.bill.made", send, durable="send", max_retries=1, retry_delay=0.01)

    async def letters() -> list[DeadLetter]:
        return [one async for one in publisher.dead_letters.list()]

    token = context.attach(baggage.set_baggage("tenant", "acme"))
    await publisher.publish("custom.order.placed", {"price": 3})
    context.detach(token)
    await until(letters)
    is_mended = True
    await publisher.dead_letters.retry((await letters())[0])
    await until(lambda: len(spans.named("process custom.bill.made")) == 3)

    assert [(one.name, spans.parent_of(one)) for one in spans.all] == [
        ("publish custom.order.placed", None),
        ("process custom.order.placed", "publish custom.order.placed"),
        ("publish custom.bill.made", "process custom.order.placed"),
        ("process custom.bill.made", "publish custom.bill.made"),
        ("process custom.bill.made", "publish custom.bill.made"),
        ("process custom.bill.made", "publish custom.bill.made"),
    ]
    assert len({one.context.trace_id for one in spans.all if one.context}) == 1
    assert tenants == ["acme"] * 3
    first, last, sent_back = spans.named("process custom.bill.made")
    assert [events_of(one) for one in (first, last, sent_back)] == [
        ["exception", "retry"],
        ["exception", "dead_letter"],
        [],
    ]
    outcomes = [(one.attributes or {})["omni_worker.outcome"] for one in (first, last, sent_back)]
    assert outcomes == ["retried", "dead", "handled"]
    assert [one.status.status_code for one in (first, last, sent_back)] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert {one.kind for one in (first, last)} == {SpanKind.CONSUMER}

"""Batches: one span for each call of the handler, linked to the spans of its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import SpanKind, StatusCode

from omni_worker import App, Batch, Context, Draft, Event, EventBus, Settings
from omni_worker.nats_server import NatsServer
from omni_worker.transports.base import Message, Transport
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.promises.conftest import World, body
from tests.waiting import until

from .conftest import Register, Spans, context_of

CALL, RUN = "process_batch custom.row", "process custom.row"


@asynccontextmanager
async def running(app: App, transport: Transport | None = None) -> AsyncIterator[EventBus]:
    """The app, on memory unless it is given another transport."""
    transport = transport or MemoryTransport(MemoryServer())
    settings = Settings(urls="nats://memory:4222")
    async with app.running(transport=transport, settings=settings) as bus:
        yield bus


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


def linked(call: ReadableSpan) -> list[tuple[int, int, dict[str, Any]]]:
    """Trace, span and attributes of each link."""
    return [
        (one.context.trace_id, one.context.span_id, dict(one.attributes or {}))
        for one in call.links
    ]


def links_to(runs: Sequence[ReadableSpan]) -> list[tuple[int, int, dict[str, Any]]]:
    """Links to these spans of events."""
    name = "messaging.message.id"
    return [(trace_of(one), context_of(one), {name: attributes(one)[name]}) for one in runs]


async def published(bus: EventBus, count: int, spans: Spans) -> list[ReadableSpan]:
    """Publish rows; return the spans of their runs in order, once all have ended."""
    await bus.publish_many([Draft(type="custom.row", payload=n) for n in range(count)])
    await until(lambda: len(spans.named(RUN)) == count)
    return sorted(spans.named(RUN), key=lambda one: attributes(one)["omni_worker.sequence"])


# --- the span of a call --------------------------------------------------------------------


async def test_a_call_is_a_span_with_links_to_those_of_its_events(
    world: World, spans: Spans
) -> None:
    app, current = App("shop"), []

    @app.on_batch("custom.row", durable="rows", size=3, wait=60.0)
    async def store(batch: Batch) -> None:
        current.append(trace.get_current_span().get_span_context())

    url = world.server.url if isinstance(world.server, NatsServer) else "nats://memory:4222"
    async with running(app, world.transport(Settings(urls=url))) as bus:
        runs = await published(bus, 3, spans)

    [call] = spans.named(CALL)
    assert linked(call) == links_to(runs)
    assert attributes(call) == {
        "messaging.system": "nats",
        "messaging.operation.name": "process_batch",
        "messaging.operation.type": "process",
        "messaging.destination.template": "custom.row",
        "messaging.consumer.group.name": "rows",
        "messaging.batch.message_count": 3,
        "omni_worker.app": "shop",
        "omni_worker.handler": attributes(runs[0])["omni_worker.handler"],
    }
    assert (call.parent, call.kind) == (None, SpanKind.CONSUMER)
    assert call.status.status_code is StatusCode.UNSET
    assert current == [call.get_span_context()]
    # Each event keeps its own trace.
    assert [spans.parent_of(one) for one in runs] == ["publish custom.row"] * 3
    assert len({trace_of(one) for one in [call, *runs]}) == 4


async def test_what_an_event_causes_is_in_its_trace_and_the_rest_below_the_call(
    spans: Spans,
) -> None:
    app, tracer = App("shop"), spans.provider.get_tracer("database")

    @app.on_batch("custom.row", durable="rows", size=2, wait=60.0)
    async def store(batch: Batch) -> None:
        with tracer.start_as_current_span("insert"):
            for event in batch:
                await batch.context(event).publish("custom.stored", event.payload)
        draft = Draft(type="custom.many", payload=1)
        await batch.context(batch.events[1]).publish_many([draft])
        await app.publish("custom.done", len(batch))

    async with running(app) as bus:
        runs = await published(bus, 2, spans)

    [call], [many] = spans.named(CALL), spans.named("publish custom.many")
    stored = spans.named("publish custom.stored")
    above = [one.parent.span_id for one in [*stored, many] if one.parent is not None]
    assert above == [context_of(one) for one in [*runs, runs[1]]]
    assert [trace_of(one) for one in stored] == [trace_of(one) for one in runs]
    for name in ("insert", "publish custom.done"):
        [below] = spans.named(name)
        assert (spans.parent_of(below), trace_of(below)) == (CALL, trace_of(call))


async def test_the_span_is_current_in_the_thread_of_a_plain_def(spans: Spans) -> None:
    app, current = App("shop"), []

    @app.on_batch("custom.row", durable="rows", size=2, wait=60.0)
    def store(batch: Batch) -> None:
        current.append(trace.get_current_span().get_span_context())
        context = batch.context(batch.events[1])
        context.wait(context.publish("custom.stored", 1))

    async with running(app) as bus:
        runs = await published(bus, 2, spans)

    [call], [stored] = spans.named(CALL), spans.named("publish custom.stored")
    assert current == [call.get_span_context()]
    assert stored.parent is not None
    assert stored.parent.span_id == context_of(runs[1])


async def test_a_span_that_is_current_when_the_app_starts_is_not_above_its_calls(
    spans: Spans,
) -> None:
    app, tracer = App("shop"), spans.provider.get_tracer("deploy")

    @app.on_batch("custom.row", durable="rows", size=1)
    async def store(batch: Batch) -> None: ...

    with tracer.start_as_current_span("start"):
        async with running(app) as bus:
            await published(bus, 1, spans)

    [call] = spans.named(CALL)
    assert call.parent is None


async def test_a_call_that_raises_ends_its_span_as_failed(spans: Spans) -> None:
    app = App("shop")

    @app.on_batch("custom.row", durable="rows", size=4, wait=60.0, max_retries=0)
    async def store(batch: Batch) -> None:
        if 2 in batch.payloads:
            raise ValueError("no login at nats://me:hunter2@host")

    async with running(app) as bus:
        runs = await published(bus, 4, spans)

    calls = spans.named(CALL)
    name, failed, well = "messaging.batch.message_count", StatusCode.ERROR, StatusCode.UNSET
    assert [(attributes(one)[name], one.status.status_code) for one in calls] == [
        (4, failed),
        (2, well),  # the halves
        (2, failed),
        (1, failed),
        (1, well),
    ]
    assert [linked(one) for one in calls] == [
        links_to(some) for some in (runs, runs[:2], runs[2:], runs[2:3], runs[3:])
    ]
    assert attributes(calls[0])["error.type"] == "ValueError"
    assert [one.name for one in calls[0].events] == ["exception"]
    assert "in store" in str((calls[0].events[0].attributes or {})["exception.stacktrace"])
    assert "hunter2" not in calls[0].to_json()


async def test_a_call_cut_off_at_the_end_of_grace_ends_its_span(spans: Spans) -> None:
    app, begun = App("shop"), asyncio.Event()

    @app.on_batch("custom.row", durable="rows", size=1)
    async def store(batch: Batch) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with running(app) as bus:
        await bus.publish("custom.row", 1)
        await begun.wait()
        await bus.close(grace=0.01)
        await until(lambda: spans.named(CALL))

    [call] = spans.named(CALL)
    assert call.status.status_code is StatusCode.ERROR
    assert attributes(call)["error.type"] == "asyncio.exceptions.CancelledError"


async def test_a_large_batch_has_links_to_its_first_events_alone(spans: Spans) -> None:
    app = App("shop")

    @app.on_batch("custom.row", durable="rows", size=200, wait=60.0)
    async def store(batch: Batch) -> None: ...

    async with running(app) as bus:
        runs = await published(bus, 200, spans)

    [call] = spans.named(CALL)
    assert attributes(call)["messaging.batch.message_count"] == 200
    assert linked(call) == links_to(runs[:128])
    assert call.dropped_links == 0


# --- sampling ------------------------------------------------------------------------------


class Mixed:
    """A batch of events of which every second one is in a trace that was sampled."""

    def __init__(self) -> None:
        self.app = App("shop")
        self.current: list[trace.SpanContext] = []
        self.caused: dict[Any, dict[str, list[str]]] = {}
        self.done: list[dict[str, list[str]]] = []

        @self.app.on_batch("custom.row", durable="rows", size=4, wait=60.0)
        async def store(batch: Batch) -> None:
            self.current.append(trace.get_current_span().get_span_context())
            for event in batch:
                await batch.context(event).publish("custom.stored", event.payload)
            await self.app.publish("custom.done", len(batch))

        @self.app.on("custom.stored", durable="stored")
        async def note(event: Event[Any], ctx: Context) -> None:
            self.caused[event.payload] = ctx.headers

        @self.app.on("custom.done", durable="done")
        async def end(event: Event[Any], ctx: Context) -> None:
            self.done.append(ctx.headers)

    async def run(self) -> None:
        async with running(self.app) as bus:
            for n in range(4):
                headers = {
                    "traceparent": f"00-{n + 1:032x}-{n + 1:016x}-0{n % 2}",
                    "baggage": f"tenant=t{n}",
                }
                message = Message("custom.row", body(f"e{n}", "custom.row", n), f"e{n}", headers)
                await bus.transport.publish(message, timeout=5)
            await until(lambda: len(self.caused) == 4 and self.done)

    def trace_ids(self) -> list[str]:
        """The traces of what each event caused."""
        return [self.caused[n]["traceparent"][0][3:35] for n in range(4)]


async def test_links_are_to_the_events_that_are_recorded(register: Register) -> None:
    spans, mixed = register(ParentBased(ALWAYS_ON)), Mixed()

    await mixed.run()

    [call], runs = spans.named(CALL), spans.named(RUN)
    assert len(runs) == 2
    assert linked(call) == links_to(sorted(runs, key=trace_of))
    assert attributes(call)["messaging.batch.message_count"] == 4
    # What each event causes is in its trace, its baggage included.
    assert mixed.trace_ids() == [f"{n + 1:032x}" for n in range(4)]
    assert [mixed.caused[n]["baggage"] for n in range(4)] == [[f"tenant=t{n}"] for n in range(4)]
    assert [mixed.caused[n]["traceparent"][0][-1] for n in range(4)] == ["0", "1"] * 2
    assert mixed.done[0]["traceparent"][0][3:35] == f"{trace_of(call):032x}"


async def test_a_call_that_is_not_sampled_has_no_span(register: Register) -> None:
    spans, mixed = register(ParentBased(ALWAYS_OFF)), Mixed()

    await mixed.run()

    assert spans.named(CALL) == []
    assert spans.named("publish custom.done") == []
    assert len(spans.named(RUN)) == len(spans.named("publish custom.stored")) == 2
    assert mixed.trace_ids() == [f"{n + 1:032x}" for n in range(4)]
    [current] = mixed.current
    assert (current.is_valid, current.trace_flags.sampled) == (True, False)
    written = f"00-{current.trace_id:032x}-{current.span_id:016x}-00"
    assert mixed.done[0]["traceparent"] == [written]


# --- nothing about an event changes ----------------------------------------------------------


class Broken(Sampler):
    """A sampler that fails at batches."""

    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        if arguments[2] == CALL:
            raise RuntimeError("broken")
        return SamplingResult(Decision.RECORD_AND_SAMPLE, arguments[4])

    def get_description(self) -> str:
        return "broken"


async def test_a_span_that_fails_stops_no_batch(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    spans, app, seen = register(Broken()), App("shop"), []

    @app.on_batch("custom.row", durable="rows", size=2, wait=60.0)
    async def store(batch: Batch) -> None:
        seen.append(batch.payloads)

    async with running(app) as bus:
        runs = await published(bus, 2, spans)

    assert seen == [[0, 1]]
    assert [attributes(one)["omni_worker.outcome"] for one in runs] == ["handled"] * 2
    assert "the span of a batch failed; nothing else changes" in caplog.text

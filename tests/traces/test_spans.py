"""Spans: which are made, what they hold, and that a tracer changes nothing about an event."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import StatusCode

from omni_worker import Context, Draft, Event, EventBus, InvalidEvent, PublishManyError, Reject
from omni_worker.listeners.opentelemetry.sampling import ASK, Bounds
from omni_worker.transports.base import Message
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.waiting import until

from .conftest import Register, Spans

TRACE, PARENT = "a" * 32, "b" * 16
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Here:
    """A bus on memory, with a handler that publishes on, and one that takes that."""

    def __init__(self, bus: EventBus) -> None:
        self.bus = bus
        self.headers: list[dict[str, list[str]]] = []
        self.current: list[trace.SpanContext] = []

    async def pass_on(self, event: Event[Any], ctx: Context) -> None:
        self.current.append(trace.get_current_span().get_span_context())
        await ctx.publish("custom.second", {"n": 1})

    async def keep(self, event: Event[Any], ctx: Context) -> None:
        self.headers.append(ctx.headers)

    async def send(self, headers: dict[str, str], count: int = 1) -> None:
        """As another program: events with these headers, handled to the end."""
        await self.bus.subscribe("custom.first", self.pass_on, durable="first")
        await self.bus.subscribe("custom.second", self.keep, durable="second")
        for number in range(count):
            body = json.dumps({"id": f"e{number}", "type": "custom.first", "payload": {}})
            message = Message("custom.first", body.encode(), f"e{number}", headers)
            await self.bus.transport.publish(message, timeout=5)
        await until(lambda: len(self.headers) == count)


@pytest.fixture
async def here() -> Any:
    async with EventBus(transport=MemoryTransport(MemoryServer()), name="tests") as bus:
        yield Here(bus)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- which are made ------------------------------------------------------------------------


async def test_a_trace_that_was_not_sampled_goes_on_unsampled(
    register: Register, here: Here
) -> None:
    spans = register(ParentBased(TraceIdRatioBased(1.0)))
    here.bus._hearing.find_tracing(here.bus.publisher)

    await here.send({"traceparent": UNSAMPLED})

    assert spans.all == []
    assert here.headers[0]["traceparent"] == [UNSAMPLED]
    assert here.current[0].trace_id == int(TRACE, 16)
    assert here.current[0].is_remote


@pytest.mark.parametrize("headers", [{}, {"baggage": "tenant=acme"}])
async def test_one_decision_is_that_of_a_whole_trace(
    register: Register, here: Here, headers: dict[str, str]
) -> None:
    spans = register(ParentBased(TraceIdRatioBased(0.5)))
    here.bus._hearing.find_tracing(here.bus.publisher)

    await here.send(headers, count=60)

    names = ["process custom.first", "publish custom.second", "process custom.second"]
    counts = [len(spans.named(name)) for name in names]
    assert 5 < counts[0] < 55
    assert counts == [counts[0]] * 3
    assert len({one.trace_id for one in here.current}) == 60


class Fussy(Sampler):
    """A sampler of a user's own, which looks at attributes."""

    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        seen = arguments[4] if len(arguments) > 4 else named["attributes"]
        wanted = seen["messaging.destination.template"] == "custom.second"
        return SamplingResult(Decision.RECORD_AND_SAMPLE if wanted else Decision.DROP)

    def get_description(self) -> str:
        return "fussy"


async def test_a_sampler_of_ones_own_is_asked(register: Register, here: Here) -> None:
    spans = register(Fussy())
    here.bus._hearing.find_tracing(here.bus.publisher)

    await here.send({})

    assert [one.name for one in spans.all] == ["publish custom.second", "process custom.second"]


def test_only_the_sdks_own_samplers_are_decided_for() -> None:
    class Odd(TraceIdRatioBased):
        def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def bounds(sampler: Sampler) -> Bounds:
        return Bounds.of(Spans(sampler).provider.get_tracer("t"))  # type: ignore[arg-type]

    ratio, half = TraceIdRatioBased(0.5), 1 << 63
    assert bounds(ParentBased(ratio)) == Bounds(half, ASK, 0, ASK, 0)
    assert bounds(ParentBased(ratio, remote_parent_not_sampled=ratio)).remote_unsampled == half
    assert bounds(ratio) == Bounds(half, half, half, half, half)
    assert bounds(ALWAYS_OFF) == Bounds(0, 0, 0, 0, 0)
    assert bounds(Odd(0.5)) == bounds(Fussy()) == Bounds()
    assert bounds(ParentBased(Odd(0.5))).root == ASK
    assert bounds(StaticSampler(Decision.RECORD_ONLY)) == Bounds()


async def test_a_provider_that_a_lifespan_registers_is_found(
    register: Register, here: Here
) -> None:
    spans = register()  # the bus is connected already

    await here.send({"traceparent": SAMPLED, "tracestate": "vendor=1"})

    first = spans.named("process custom.first")[0]
    assert (first.context.trace_id, first.parent.span_id) == (  # type: ignore[union-attr]
        int(TRACE, 16),
        int(PARENT, 16),
    )
    assert here.headers[0]["tracestate"] == ["vendor=1"]


def test_without_a_provider_nothing_is_imported_and_nothing_is_told() -> None:
    code = """
import asyncio, sys
from omni_worker import EventBus
from omni_worker.signals import RunStarted
from omni_worker.transports.memory import MemoryTransport
async def main():
    async with EventBus(transport=MemoryTransport()) as bus:
        async def handle(event): ...
        await bus.subscribe("custom.a", handle, durable="a")
        assert bus.publisher.spans is None and bus.signals.spans is None
        assert bus.signals.batch_spans is None
        assert not bus.signals.hears(RunStarted)
asyncio.run(main())
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr


async def test_the_setting_switches_spans_off(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = register()
    monkeypatch.setenv("OMNI_WORKER_TRACES", "off")

    async with EventBus(transport=MemoryTransport()) as bus:
        await Here(bus).send({"traceparent": SAMPLED})

    assert spans.all == []


# --- what they hold ------------------------------------------------------------------------


async def test_a_span_names_the_declared_pattern_and_the_run(spans: Spans) -> None:
    async def handle(event: Event[Any]) -> None: ...

    async with EventBus(transport=MemoryTransport(), name="shop") as bus:
        await bus.subscribe("custom.*", handle, durable="any", start_from="first")
        sent = await bus.publish("custom.x1", {}, correlation_id="c1")
        await until(lambda: spans.named("process custom.*"))

    run, publish = spans.named("process custom.*")[0], spans.named("publish custom.x1")[0]
    assert attributes(run) == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.template": "custom.*",
        "messaging.consumer.group.name": "any",
        "messaging.message.id": sent.id,
        "messaging.message.conversation_id": "c1",
        "messaging.message.body.size": attributes(run)["messaging.message.body.size"],
        "omni_worker.app": "shop",
        "omni_worker.handler": attributes(run)["omni_worker.handler"],
        "omni_worker.attempt": 1,
        "omni_worker.stream": "CUSTOM",
        "omni_worker.sequence": sent.sequence,
        "omni_worker.outcome": "handled",
    }
    assert attributes(publish) == {
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.template": "custom.x1",
        "messaging.message.id": sent.id,
        "messaging.message.conversation_id": "c1",
        "omni_worker.stream": "CUSTOM",
        "omni_worker.sequence": sent.sequence,
        "omni_worker.duplicate": False,
    }


async def test_a_rejected_run_holds_its_error_without_secrets(spans: Spans) -> None:
    async def handle(event: Event[Any]) -> None:
        raise Reject("no login at nats://me:hunter2@host")

    async with EventBus(transport=MemoryTransport()) as bus:
        await bus.subscribe("custom.a", handle, durable="a", start_from="first")
        await bus.publish("custom.a", {})
        await until(lambda: spans.named("process custom.a"))

    run = spans.named("process custom.a")[0]
    assert attributes(run)["omni_worker.outcome"] == "rejected"
    assert attributes(run)["error.type"] == "omni_worker.outcomes.Reject"
    assert run.status.status_code is StatusCode.ERROR
    assert [one.name for one in run.events] == ["exception", "dead_letter"]
    assert "hunter2" not in run.to_json()
    assert "in handle" in str((run.events[0].attributes or {})["exception.stacktrace"])


async def test_the_dead_letter_of_an_unreadable_event_has_a_span_of_its_own(
    spans: Spans,
) -> None:
    async def handle(event: Event[Any]) -> None: ...

    async with EventBus(transport=MemoryTransport()) as bus:
        await bus.subscribe("custom.a", handle, durable="a", start_from="first")
        message = Message("custom.a", b"no json", "", {"traceparent": SAMPLED})
        await bus.transport.publish(message, timeout=5)
        await until(lambda: spans.named("dead_letter custom.a"))

    [span] = spans.all
    assert span.parent is not None
    assert span.parent.trace_id == int(TRACE, 16)
    assert attributes(span)["omni_worker.dead_letter.id"]


async def test_each_of_many_published_has_its_span(spans: Spans) -> None:
    shared = Draft(type="custom.a", payload={"n": 1})

    async with EventBus(transport=MemoryTransport()) as bus:
        await bus.publish_many([shared, shared])
        with pytest.raises(PublishManyError):
            await bus.publish_many(one for one in [shared, Draft(type="nonsense")])
        with pytest.raises(InvalidEvent):
            await bus.publish("custom.b", {}, id="no\nline")

    assert [one.name for one in spans.all] == [
        "publish custom.a",
        "publish custom.a",
        "publish custom.a",
        "publish nonsense",
        "publish custom.b",
    ]
    assert len({one.context.trace_id for one in spans.all if one.context}) == 5
    failed = [attributes(one).get("error.type") is not None for one in spans.all]
    assert failed == [False, False, False, True, True]
    assert shared.trace_headers is None


async def test_a_given_traceparent_is_the_parent_of_what_is_published(spans: Spans) -> None:
    async with EventBus(transport=MemoryTransport()) as bus:
        await bus.publish_many([Draft(type="custom.a", traceparent=SAMPLED)])

    assert spans.all[0].parent is not None
    assert spans.all[0].parent.span_id == int(PARENT, 16)


# --- nothing about an event changes ----------------------------------------------------------


class Broken(TextMapPropagator):
    """A propagator that fails at everything."""

    def extract(self, *arguments: Any, **named: Any) -> Any:
        raise RuntimeError("broken")

    def inject(self, *arguments: Any, **named: Any) -> None:
        raise RuntimeError("broken")

    @property
    def fields(self) -> set[str]:
        return {"x-odd"}


async def test_a_broken_propagator_stops_no_event(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", Broken())

    async with EventBus(transport=MemoryTransport()) as bus:
        here = Here(bus)
        await here.send({"traceparent": SAMPLED})

    assert here.headers[0]["traceparent"] == [SAMPLED]
    assert "nothing else changes" in caplog.text


async def test_a_run_leaves_the_context_as_it_was(spans: Spans) -> None:
    seen: list[Any] = []

    async def handle(event: Event[Any]) -> None:
        context.attach(context.set_value("left", event.id))  # and never detached
        if event.payload["fail"]:
            raise Reject("no")

    async def look(event: Event[Any]) -> None:
        seen.append(context.get_value("left"))

    async with EventBus(transport=MemoryTransport()) as bus:
        await bus.subscribe("custom.a", handle, durable="a", concurrency=1)
        await bus.subscribe("custom.b", look, durable="b", concurrency=1)
        for fail in (False, True, False):
            await bus.publish("custom.a", {"fail": fail})
            await bus.publish("custom.b", {})
        await until(lambda: len(spans.named("process custom.a")) == 3)
        await until(lambda: len(seen) == 3)

    assert seen == [None] * 3
    roots = [one for one in spans.all if one.parent is None]
    assert {one.name for one in roots} == {"publish custom.a", "publish custom.b"}


async def test_a_run_cut_off_at_the_end_of_grace_ends_its_span(spans: Spans) -> None:
    begun = asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with EventBus(transport=MemoryTransport()) as bus:
        await bus.subscribe("custom.a", handle, durable="a")
        await bus.publish("custom.a", {})
        await begun.wait()
        await bus.close(grace=0.01)

    run = spans.named("process custom.a")[0]
    assert attributes(run)["omni_worker.outcome"] == "handed_back"
    assert [one.name for one in run.events] == ["handed_back", "cut_off", "exception"]

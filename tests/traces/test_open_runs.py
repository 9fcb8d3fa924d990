"""Open runs: each keeps its span however many there are, and one that is never ended is let go."""

from __future__ import annotations

import gc
import weakref
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

from opentelemetry import trace

from omni_worker import Event
from omni_worker.handlers import Handler, declare
from omni_worker.listeners.opentelemetry.runs import RunTraces
from omni_worker.listeners.opentelemetry.source import SpanSource
from omni_worker.outcomes import DONE
from omni_worker.transports.base import Delivery

from .conftest import Spans

SOURCE: Any = SimpleNamespace(stream="CUSTOM", consumer="rows")


async def store(event: Event[Any]) -> None: ...


def handler() -> Handler:
    return declare(store, app="shop", types=["custom.row"], options={"durable": "rows"})


def delivered(number: int) -> tuple[Delivery, Event[Any]]:
    """A delivery and its event."""
    event = Event[Any](id=f"e{number}", type="custom.row", timestamp=1, payload=number, metadata={})
    return Delivery(SOURCE, "custom.row", b"{}", None, b"", number, 1, 1), event


def test_every_one_of_many_open_runs_ends_its_span(spans: Spans) -> None:
    runs, one = RunTraces(SpanSource(trace.get_tracer("tests"))), handler()
    held = [(*delivered(number), copy_context()) for number in range(25_000)]

    for delivery, event, context in held:
        context.run(runs.begin, one, delivery, event, 1)
    for delivery, _, context in held:
        context.run(runs.end, delivery, DONE)

    ids = {
        (span.attributes or {})["messaging.message.id"]
        for span in spans.exporter.get_finished_spans()
    }
    assert len(ids) == 25_000
    assert not any(runs.open_run(delivery) for delivery, _, _ in held)


def test_a_run_that_is_never_ended_goes_with_its_delivery(spans: Spans) -> None:
    runs = RunTraces(SpanSource(trace.get_tracer("tests")))
    delivery, event = delivered(1)
    copy_context().run(runs.begin, handler(), delivery, event, 1)
    run = runs.open_run(delivery)
    assert run is not None
    kept = weakref.ref(run.span)

    del delivery, run
    gc.collect()

    assert kept() is None

"""Batches: one span for each call of a batch handler, with links to the spans of its events."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import Token
from typing import Any

from opentelemetry.context import Context, attach, detach, set_value
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.util.types import AttributeValue

from ...events import Event
from ...handlers import Handler
from ...signals import BatchSpan
from ...transports.base import Delivery
from . import names
from .errors import record
from .parents import EVENTS, NOTHING, context_with
from .runs import Run, RunTraces
from .source import SpanSource

log = logging.getLogger("omni_worker.traces")

MOST_LINKS = 128  # of one span; the SDK keeps as many, unless it is configured otherwise


class BatchTraces:
    """Opens a span for each call of a batch handler: a trace of its own, current in the call."""

    def __init__(self, source: SpanSource, runs: RunTraces) -> None:
        self._source = source
        self._runs = runs

    def begin(
        self, handler: Handler, runs: Sequence[tuple[Delivery, Event[Any]]]
    ) -> BatchSpan | None:
        """Begin the span of a call, and make it the current one."""
        try:
            return self._begin(handler, runs)
        except Exception:
            log.exception("the span of a batch failed; nothing else changes")
            return None

    def _begin(self, handler: Handler, runs: Sequence[tuple[Delivery, Event[Any]]]) -> _Open:
        open_run = self._runs.open_run
        begun = [(event.id, run) for one, event in runs if (run := open_run(one)) is not None]
        span: Span | None = self._source.dropped_root()
        if span is None:
            declared = ", ".join(handler.types or handler.filters)
            attributes: dict[str, AttributeValue] = {
                names.SYSTEM: names.NATS,
                names.OPERATION: "process_batch",
                names.OPERATION_TYPE: "process",
                names.DESTINATION: declared,
                names.GROUP: handler.name,
                names.COUNT: len(runs),
                names.APP: handler.app,
                names.HANDLER: handler.function,
            }
            span = self._source.tracer.start_span(
                f"process_batch {declared}", NOTHING, SpanKind.CONSUMER, attributes, _links(begun)
            )
        contexts = {id: run.context for id, run in begun}
        return _Open(attach(set_value(EVENTS, contexts, context_with(span))), span)


class _Open:
    """The open span of one call."""

    __slots__ = ("_span", "_token")

    def __init__(self, token: Token[Context], span: Span) -> None:
        self._token = token
        self._span = span

    def ended(self, error: BaseException | None) -> None:
        """End it, as failed if the call raised, and leave its context."""
        try:
            detach(self._token)
            if error is not None and self._span.is_recording():
                record(self._span, error)
            self._span.end()
        except Exception:
            log.exception("the span of a batch failed; nothing else changes")


def _links(begun: Sequence[tuple[str, Run]]) -> list[Link]:
    """Return links to the spans of the first events that are recorded: no other can be found."""
    recorded = [(id, run.span) for id, run in begun if run.span is not None]
    return [
        Link(span.get_span_context(), {names.MESSAGE_ID: id}) for id, span in recorded[:MOST_LINKS]
    ]

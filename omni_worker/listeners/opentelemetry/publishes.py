"""Publishes: one span for each event that is published, and its context in the headers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span, SpanKind, get_current_span, set_span_in_context

from ...events import Published
from ...publisher import Draft, PublishSpan
from ...wire import TRACEPARENT
from . import names
from .errors import record
from .parents import EVENTS, Unrecorded, context_of, headers_of
from .source import SpanSource

log = logging.getLogger("omni_worker.traces")


class PublishTraces:
    """Opens a span for each publish, below the span that is current there."""

    def __init__(self, source: SpanSource) -> None:
        self._source = source

    def begin(self, draft: Draft) -> PublishSpan | None:
        """Set the draft's trace headers; return its span, None if nothing records it."""
        try:
            return self._begin(draft)
        except Exception:
            log.exception("a span of a publish failed; nothing else changes")
            return None

    def headers(self) -> dict[str, str]:
        """Return the trace headers of the span that is current, empty if there is none."""
        try:
            is_valid = get_current_span().get_span_context().is_valid
            return headers_of(None) if is_valid else {}
        except Exception:
            log.exception("a propagator failed; nothing else changes")
            return {}

    def _begin(self, draft: Draft) -> PublishSpan | None:
        source, context = self._source, self._parent(draft)
        parent = get_current_span(context).get_span_context()
        if parent.is_valid:
            if source.drops_child_of(parent):
                draft.trace_headers = headers_of(context)
                return None
        elif (root := source.dropped_root()) is not None:
            draft.trace_headers = self._headers_of_root(root, context)
            return None
        attributes = {
            names.SYSTEM: names.NATS,
            names.OPERATION: "publish",
            names.OPERATION_TYPE: "send",
            names.DESTINATION: draft.type,
        }
        span = source.tracer.start_span(
            f"publish {draft.type}", context, SpanKind.PRODUCER, attributes
        )
        draft.trace_headers = headers_of(set_span_in_context(span, context))
        return _Open(span, draft) if span.is_recording() else None

    def _parent(self, draft: Draft) -> Context:
        """Return the context of what is published: the given one, the current, the event's.

        In the call of a batch handler, what an event causes belongs to the trace of that event.
        """
        if draft.traceparent is not None:
            return context_of({TRACEPARENT: [draft.traceparent]})
        current = get_current()
        if (run := _run_of_cause(draft, current)) is not None:
            return run
        if draft.trace_headers and not get_current_span(current).get_span_context().is_valid:
            return context_of({name: [value] for name, value in draft.trace_headers.items()})
        return current

    def _headers_of_root(self, root: Unrecorded, context: Context) -> dict[str, str]:
        if self._source.is_w3c and not context:  # by hand: no state, no baggage
            return {TRACEPARENT: root.traceparent}
        return headers_of(set_span_in_context(root, context))


def _run_of_cause(draft: Draft, current: Context) -> Context | None:
    """Return the context of the run of the event that causes a draft, where a batch is handled."""
    runs = cast("Mapping[object, Context] | None", current.get(EVENTS))
    return None if runs is None else runs.get(draft.metadata.get("causationId"))


class _Open:
    """The open span of one publish."""

    __slots__ = ("_draft", "_span")

    def __init__(self, span: Span, draft: Draft) -> None:
        self._span = span
        self._draft = draft

    def ended(self, published: Published) -> None:
        """End it with the confirmation."""
        try:
            self._span.set_attributes(
                {
                    names.MESSAGE_ID: published.id,
                    names.CONVERSATION: self._draft.correlation_id or published.id,
                    names.STREAM: published.stream,
                    names.SEQUENCE: published.sequence,
                    names.DUPLICATE: published.duplicate,
                }
            )
            self._span.end()
        except Exception:
            log.exception("a span of a publish failed; nothing else changes")

    def failed(self, error: BaseException) -> None:
        """End it with the error."""
        try:
            if self._draft.id is not None:
                self._span.set_attribute(names.MESSAGE_ID, self._draft.id)
            record(self._span, error)
            self._span.end()
        except Exception:
            log.exception("a span of a publish failed; nothing else changes")

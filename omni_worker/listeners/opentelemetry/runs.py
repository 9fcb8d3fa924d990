"""Runs: one span for each run of a handler, current while it runs and until it is answered."""

from __future__ import annotations

import logging
from contextvars import Token
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Span, SpanKind, get_current_span, set_span_in_context
from opentelemetry.util.types import AttributeValue

from ...events import Event, raw_metadata
from ...handlers import Handler
from ...letters.written import RETRY_OF_HEADER
from ...outcomes import Failed, Outcome, Rejected
from ...signals import (
    CutOff,
    DeadLetterDelayed,
    DeadLetterDropped,
    DeadLettered,
    EngineFault,
    EventSignal,
    HandedBack,
    Lapsed,
    Listener,
    Retried,
)
from ...subjects import matches
from ...transports.base import Delivery
from ...transports.headers import parse_headers
from ...transports.returned import identity_of
from . import names
from .errors import record
from .parents import context_of, context_with, parent_of
from .source import SpanSource

log = logging.getLogger("omni_worker.traces")


class Run:
    """An open run: its context, to be left at its end, and its span, if it is recorded."""

    __slots__ = ("context", "has_ended", "is_handed_back", "is_rejected", "span", "token")

    def __init__(self, token: Token[Context], context: Context, span: Span | None) -> None:
        self.token = token
        self.context = context
        self.span = span
        self.has_ended = False  # the handler; the event is not answered yet
        self.is_handed_back = False  # while the handler ran
        self.is_rejected = False


class RunTraces:
    """Opens a span as a run starts; ends it with the run, or with what follows from a failure.

    A failed run stays open until its event is answered, so that what is logged, retried or
    dead-lettered then belongs to it. What follows is emitted in the task of the run, too.

    An open run is kept on its delivery: as many are open as events are held, and one that is never
    ended is forgotten with its event.
    """

    def __init__(self, source: SpanSource) -> None:
        self._source = source
        follows = (
            Retried, DeadLettered, DeadLetterDelayed, DeadLetterDropped, Lapsed, HandedBack,
        )  # fmt: skip
        self.listeners = (
            Listener(self.followed, follows),
            Listener(self.cut_off, (CutOff,)),
            Listener(self.failed, (EngineFault,)),
        )

    def begin(self, handler: Handler, delivery: Delivery, event: Event[Any], attempt: int) -> None:
        """Begin the span of a run, and make it the current one."""
        try:
            source, raw, unrecorded = self._source, delivery.raw_headers, None
            if source.is_w3c and (parent := parent_of(raw)) is not None:
                is_root = parent[0] is None
                unrecorded = source.dropped_root() if is_root else source.dropped_child(parent)
            if unrecorded is not None:
                context, span = context_with(unrecorded), None
            else:
                context, span = self._begin(handler, delivery, event, attempt)
            delivery.span = Run(attach(context), context, span)
        except Exception:
            log.exception("the span of a run failed; nothing else changes")

    def _begin(
        self, handler: Handler, delivery: Delivery, event: Event[Any], attempt: int
    ) -> tuple[Context, Span | None]:
        """Begin a span below the message's own; None if it is not recorded."""
        source = self._source
        headers = parse_headers(delivery.raw_headers)
        context = context_of(headers)
        parent = get_current_span(context).get_span_context()
        if parent.is_valid and source.drops_child_of(parent):
            return context, None
        attributes = _attributes(handler, delivery, event, attempt)
        if retry_of := headers.get(RETRY_OF_HEADER):
            attributes[names.RETRY_OF] = retry_of[0]
        name = f"process {_declared_type(handler, event.type)}"
        span = source.tracer.start_span(name, context, SpanKind.CONSUMER, attributes)
        return set_span_in_context(span, context), span if span.is_recording() else None

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        """End the span of a handled event; that of a failure stays open until it is answered."""
        run = self.open_run(delivery)
        if run is None:
            return
        try:
            if isinstance(outcome, Failed | Rejected):
                run.has_ended = True
                run.is_rejected = isinstance(outcome, Rejected)
                if run.span is not None:
                    record(run.span, outcome.error)
                if run.is_handed_back:
                    self._end(delivery, run, "handed_back")
            else:
                self._end(delivery, run, "handled")
        except Exception:
            log.exception("the span of a run failed; nothing else changes")

    def open_run(self, delivery: Delivery) -> Run | None:
        """Return the run of a delivery, None if it has ended or no span of it could be made."""
        run: Run | None = getattr(delivery, "span", None)
        return run

    def followed(self, fact: EventSignal) -> None:
        """Note what became of a failed run, and end its span."""
        run = self.open_run(fact.delivery)
        name, outcome, attributes = _follows(fact)
        if run is None:
            if isinstance(fact, DeadLettered):
                self._letter_without_run(fact, attributes)
            return
        if run.span is not None:
            run.span.add_event(name, attributes)
        if not run.has_ended:  # handed back, at the end of grace, while it runs
            run.is_handed_back = True
            return
        if outcome == "dead" and run.is_rejected:
            outcome = "rejected"
        self._end(fact.delivery, run, outcome)

    def cut_off(self, fact: CutOff) -> None:
        """Note that a run was cut off at the end of grace."""
        run = self.open_run(fact.delivery)
        if run is not None and run.span is not None:
            run.span.add_event("cut_off")

    def failed(self, fact: EngineFault) -> None:
        """End the span of a run after a fault of the framework."""
        run = None if fact.delivery is None else self.open_run(fact.delivery)
        if fact.delivery is not None and run is not None and run.has_ended:
            self._end(fact.delivery, run, "failed")

    def _end(self, delivery: Delivery, run: Run, outcome: str) -> None:
        del delivery.span
        detach(run.token)
        if run.span is not None:
            run.span.set_attribute(names.OUTCOME, outcome)
            run.span.end()

    def _letter_without_run(
        self, fact: DeadLettered, attributes: dict[str, AttributeValue]
    ) -> None:
        """A span for the dead letter of an event that did not run, or not just now."""
        source, event = self._source, fact.event
        context = context_of(parse_headers(fact.delivery.raw_headers))
        parent = get_current_span(context).get_span_context()
        if source.drops_child_of(parent) if parent.is_valid else source.dropped_root():
            return
        declared = _declared_type(fact.handler, event.type if event is not None else "")
        attributes |= {
            names.DESTINATION: declared,
            names.GROUP: fact.handler.name,
            names.STREAM: fact.stream,
            names.SEQUENCE: fact.sequence,
            names.ERROR_TYPE: fact.error_type,
        }
        if event is not None:
            attributes[names.MESSAGE_ID] = event.id
        source.tracer.start_span(
            f"dead_letter {declared}", context, SpanKind.INTERNAL, attributes
        ).end()


def _attributes(
    handler: Handler, delivery: Delivery, event: Event[Any], attempt: int
) -> dict[str, AttributeValue]:
    identity = identity_of(delivery)
    return {
        names.SYSTEM: names.NATS,
        names.OPERATION: "process",
        names.OPERATION_TYPE: "process",
        names.DESTINATION: _declared_type(handler, event.type),
        names.GROUP: handler.name,
        names.MESSAGE_ID: event.id,
        names.CONVERSATION: _correlation(event),
        names.BODY_SIZE: len(delivery.body),
        names.APP: handler.app,
        names.HANDLER: handler.function,
        names.ATTEMPT: attempt,
        names.STREAM: identity.stream,
        names.SEQUENCE: identity.sequence,
    }


def _correlation(event: Event[Any]) -> str:
    given = raw_metadata(event).get("correlationId")
    return given if isinstance(given, str) else event.id


def _declared_type(handler: Handler, type: str) -> str:
    """The type or pattern of the declaration: an event's own type is any publisher's text."""
    if type in handler.types:
        return type
    fitting = (one for one in handler.types if matches(one, type))
    return next(fitting, next(iter(handler.types or handler.filters)))


def _follows(fact: EventSignal) -> tuple[str, str, dict[str, AttributeValue]]:
    """The name of a span event, the outcome of its run, and the event's attributes."""
    match fact:
        case Retried(attempt=attempt, of=of, after=after):
            return (
                "retry",
                "retried",
                {names.ATTEMPT: attempt, names.ATTEMPTS: of, names.AFTER: after},
            )
        case DeadLettered(letter=letter, attempts=attempts):
            return "dead_letter", "dead", {names.LETTER: letter, names.ATTEMPTS: attempts}
        case DeadLetterDelayed(after=after):
            return "dead_letter_delayed", "dead_letter_delayed", {names.AFTER: after}
        case DeadLetterDropped():
            return "dead_letter_dropped", "dead", {}
        case HandedBack(after=after, reason=reason):
            return "handed_back", "handed_back", {names.AFTER: after, "reason": reason}
    return "lapsed", "lapsed", {}

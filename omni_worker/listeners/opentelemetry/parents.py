"""Parents: the trace context of a message, and spans that record nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from random import getrandbits
from typing import cast

from opentelemetry.context import Context, create_key
from opentelemetry.propagate import extract, get_global_textmap, inject
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from ...errors import InvalidEvent
from ...publisher.stamps import RESERVED
from ...trace_context import BAGGAGE, TRACESTATE
from ...transports.headers import check_header
from ...wire import TRACEPARENT

_USUAL = re.compile(
    rb"NATS/1\.0\r\n(?:Nats-Msg-Id: [^\r\n]*\r\n)?"
    rb"(?:traceparent: 00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})\r\n)?\r\n"
).fullmatch
_W3C = {TRACEPARENT, TRACESTATE, BAGGAGE}


# The span a message was published in, as its header has it: trace id, span id, flags.
Parent = tuple[bytes | None, bytes | None, bytes | None]
ROOT: Parent = (None, None, None)


class Unrecorded(NonRecordingSpan):
    """A span that is not sampled: its context is made when it is asked for, which is seldom."""

    def __init__(self, trace_id: int | bytes, span_id: bytes | None = None) -> None:
        self._trace_id = trace_id
        self._span_id = span_id  # of the remote parent; without one it is a root of our own
        self._made: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """Return the context to be sent on: those who read it drop their spans, too."""
        if self._made is None:
            trace_id, span_id = self._trace_id, self._span_id
            self._made = SpanContext(
                trace_id=trace_id if isinstance(trace_id, int) else int(trace_id, 16),
                span_id=getrandbits(64) or 1 if span_id is None else int(span_id, 16),
                is_remote=span_id is not None,
                trace_flags=TraceFlags(TraceFlags.DEFAULT),
            )
        return self._made

    @property
    def traceparent(self) -> str:
        """The header of its context, without a state."""
        context = self.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-00"

    def __repr__(self) -> str:
        return f"Unrecorded({self.get_span_context()!r})"


def is_w3c() -> bool:
    """Return True if the global propagator reads the W3C headers and no others."""
    fields = get_global_textmap().fields
    return TRACEPARENT in fields and fields <= _W3C


def parent_of(raw: bytes | None) -> Parent | None:
    """Read the headers that our publisher writes, fast: an id, and maybe a traceparent.

    None for any others: `context_of` reads them.
    """
    if raw is None:
        return ROOT
    usual = _USUAL(raw)
    return None if usual is None else cast(Parent, usual.groups())


class _AnyCase(Getter[Mapping[str, list[str]]]):
    """Reads headers, whatever case their names are written in."""

    def get(self, carrier: Mapping[str, list[str]], key: str) -> list[str] | None:
        if (values := carrier.get(key)) is not None:
            return values
        return next((carrier[name] for name in carrier if name.lower() == key.lower()), None)

    def keys(self, carrier: Mapping[str, list[str]]) -> list[str]:
        return list(carrier)


class _Checked(Setter[dict[str, str]]):
    """Writes headers, except for what cannot travel: it must not stop the event."""

    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        with suppress(InvalidEvent):
            check_header(key, value)
            if not key.lower().startswith(RESERVED):
                carrier[key] = value


_ANY_CASE = _AnyCase()
_CHECKED = _Checked()
NOTHING = Context()
_SPAN = next(iter(set_span_in_context(INVALID_SPAN, NOTHING)))  # key of the span in a context
# In the call of a batch handler: the context of the run of each event, by the event's id.
EVENTS = create_key("omni_worker.events")


def context_of(headers: Mapping[str, list[str]]) -> Context:
    """Read the trace context in headers by the global propagator, whatever that reads."""
    return extract(headers, context=NOTHING, getter=_ANY_CASE)


def context_with(span: Span) -> Context:
    """Return a context that holds a span alone; half the price of adding it to an empty one."""
    return Context({_SPAN: span})


def headers_of(context: Context | None) -> dict[str, str]:
    """Write a trace context, the current one if it is None, by the global propagator."""
    headers: dict[str, str] = {}
    inject(headers, context, setter=_CHECKED)
    return headers

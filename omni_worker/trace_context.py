"""Trace context: the W3C headers that a message carries on, whether or not spans are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .wire import TRACEPARENT, read_traceparent

TRACESTATE = "tracestate"
BAGGAGE = "baggage"
LONGEST = 8_192  # characters of one header, as W3C asks for


def trace_headers(headers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the trace context of a message, as far as it is valid, to be sent on.

    ``tracestate`` belongs to a valid ``traceparent``; ``baggage`` goes without one as well.
    """
    carried: dict[str, str] = {}
    traceparent = read_traceparent(headers)
    if traceparent is not None:
        carried[TRACEPARENT] = traceparent
    for name, values in headers.items():
        key = name.lower()
        if key == BAGGAGE or (key == TRACESTATE and traceparent is not None):
            value = ",".join(values)
            if value.isprintable() and value.isascii() and 0 < len(value) <= LONGEST:
                carried[key] = value
    return carried

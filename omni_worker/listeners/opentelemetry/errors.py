"""Errors on spans: as OpenTelemetry names them, as bounded and free of secrets as everywhere."""

from __future__ import annotations

from opentelemetry.trace import Span, Status, StatusCode

from ...letters.written import Failure
from . import names


def error_type(error: BaseException) -> str:
    """Return the qualified name of an exception's class."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else _qualified(kind)


def record(span: Span, error: BaseException) -> None:
    """Note an exception on a span, and that the span failed by it."""
    failure = Failure.of(error, 0)
    span.add_event(
        names.EXCEPTION,
        {
            names.EXCEPTION_TYPE: error_type(error),
            names.EXCEPTION_MESSAGE: failure.error,
            names.EXCEPTION_STACKTRACE: failure.traceback,
        },
    )
    span.set_attribute(names.ERROR_TYPE, error_type(error))
    span.set_status(Status(StatusCode.ERROR, failure.error))


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

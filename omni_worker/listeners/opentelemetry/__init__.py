"""OpenTelemetry: spans of runs, batches and publishes, where a tracer provider is registered.

Without one nothing is imported, listened to or spent.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Literal, Protocol

from ...publisher import PublishSpans
from ...signals import BatchSpans, Listener, RunSpans

Traces = Literal["auto", "off"]


class Tracing(Protocol):
    """Spans for one bus: around runs, batches and publishes, and what is noted on them later."""

    runs: RunSpans
    batches: BatchSpans
    publishes: PublishSpans
    listeners: tuple[Listener, ...]


def find_tracing(traces: Traces) -> Tracing | None:
    """Return spans by the provider that this program has registered, None if there is none."""
    if traces == "off" or not _may_be_registered():
        return None
    from .tracing import tracing_of_provider  # it imports opentelemetry

    return tracing_of_provider()


def _may_be_registered() -> bool:
    """Return False if the program cannot have a provider: nothing of OpenTelemetry is imported."""
    if "opentelemetry.trace" in sys.modules:
        return True
    named = os.environ.get("OTEL_PYTHON_TRACER_PROVIDER")
    return bool(named) and find_spec("opentelemetry") is not None

"""Tracing: spans by the provider that is registered, for one bus."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from opentelemetry.trace import (
    NoOpTracer,
    NoOpTracerProvider,
    ProxyTracerProvider,
    get_tracer_provider,
)

from ...publisher import PublishSpans
from ...signals import BatchSpans, Listener, RunSpans
from .batches import BatchTraces
from .publishes import PublishTraces
from .runs import RunTraces
from .source import SpanSource

NAME = "omni_worker"


class ProviderTracing:
    """Spans by one tracer."""

    def __init__(self, source: SpanSource) -> None:
        runs = RunTraces(source)
        self.publishes: PublishSpans = PublishTraces(source)
        self.runs: RunSpans = runs
        self.batches: BatchSpans = BatchTraces(source, runs)
        self.listeners: tuple[Listener, ...] = runs.listeners


def tracing_of_provider() -> ProviderTracing | None:
    """Return spans by the registered provider, None if there is none or it is switched off."""
    provider = get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        return None
    tracer = provider.get_tracer(NAME, _version())
    return None if isinstance(tracer, NoOpTracer) else ProviderTracing(SpanSource(tracer))


def _version() -> str | None:
    try:
        return version("omni-worker")
    except PackageNotFoundError:  # run from its source
        return None

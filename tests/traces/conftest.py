"""A provider of the real SDK for one test, and the spans that it exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from tests.promises.conftest import kind, real_server, world

__all__ = ["kind", "real_server", "world"]


class Spans:
    """What one provider exported."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        """Every span that has ended, in the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda one: one.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of a name."""
        return [one for one in self.all if one.name == name]

    def parent_of(self, span: ReadableSpan) -> str | None:
        """The name of the span above."""
        if span.parent is None:
            return None
        above = {context_of(one): one.name for one in self.all}
        return above.get(span.parent.span_id, "of another program")


def context_of(span: ReadableSpan) -> int:
    """The id of a span."""
    context = span.get_span_context()
    assert context is not None
    return context.span_id


Register = Callable[..., Spans]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Registers a provider, as a program does it once, until the end of the test."""

    def registered(sampler: Sampler | None = None) -> Spans:
        spans = Spans(sampler)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.provider)
        return spans

    return registered


@pytest.fixture
def spans(register: Register) -> Spans:
    """The spans of a provider that samples everything."""
    return register()

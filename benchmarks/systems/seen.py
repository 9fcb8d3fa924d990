"""omni-worker as an app that is seen: `/metrics` is read, 1 % of traces are recorded.

``extra`` says what is on: metrics, traces; or bare, where neither package can be imported.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from omni_worker import App, Request, Settings
from omni_worker.process.collector import calm_collector

from ..jobs import Figures, Job
from ..loads import TYPE
from .handlers import handler_for
from .measure import Count, Watch, ready

FIRST, EVERY = 1.0, 15.0  # seconds: the first scrape, and the next ones, as Prometheus makes them
SCRAPE = Request(method="GET", path="/metrics")
SAMPLED = 0.01


async def drain(job: Job) -> Figures:
    """Handle what lies in the stream."""
    wanted = job.extra.split()
    if "bare" in wanted:
        for package in ("opentelemetry", "prometheus_client"):
            sys.modules[package] = None  # type: ignore[assignment]
    if "traces" in wanted:
        _trace()
    app = App("benchmark", settings=Settings(urls=job.url))
    count = Count(job)
    app.on(TYPE, durable=job.durable, start_from="first")(handler_for(job, count))
    scrapes = _scraped(app) if "metrics" in wanted else nullcontext()
    calm_collector()  # as omni-worker run does
    async with scrapes:
        await ready()
        watch = Watch()
        async with app.running():
            await count.finished()
            figures = watch.stop()
    return {**figures, "handled": count.handled}


@asynccontextmanager
async def _scraped(app: App) -> AsyncIterator[None]:
    """Read the metrics. What writes them is imported by a scrape before."""
    from omni_worker.metrics import Metrics

    metrics = app.use(Metrics())
    metrics.answer(SCRAPE)

    async def read() -> None:
        await asyncio.sleep(FIRST)
        while True:
            await asyncio.to_thread(metrics.answer, SCRAPE)
            await asyncio.sleep(EVERY)

    reading = asyncio.create_task(read())
    try:
        yield
        if reading.done():
            reading.result()  # it failed
    finally:
        reading.cancel()


def _trace() -> None:
    """Register a provider as programs do, whose spans leave in batches."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(SAMPLED)))
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(provider)

"""omni-worker: everything on, as a worker runs it: leases, retries, prefetch, settled memory."""

from __future__ import annotations

from typing import Any

from omni_worker import Context, Draft, Event, EventBus, Settings
from omni_worker.dispatch import CallNext
from omni_worker.process.collector import calm_collector

from ..jobs import Figures, Job
from ..loads import CHANNEL, TYPE, instance_of, payload_of, types_of
from .handlers import Delays, Received, handler_for
from .measure import Count, Watch, ready

OUT = "custom.benchmark"


def _bus(job: Job) -> EventBus:
    calm_collector()  # as omni-worker run does
    return EventBus(settings=Settings(urls=job.url), name="benchmark")


def _options(job: Job) -> dict[str, Any]:
    """What a price is asked for, by the name of the option."""
    match job.extra:
        case "timeout":
            return {"timeout": 30.0}
        case "order_by":
            return {"order_by": lambda event: event.payload.chatId}
        case "exactly_once":
            return {"exactly_once": True}
        case "channel":
            return {"channel": CHANNEL}
    return {}


async def _middleware(ctx: Context, event: Event[Any], call_next: CallNext) -> None:
    await call_next(ctx, event)


async def drain(job: Job) -> Figures:
    """Handle what lies in the stream."""
    async with _bus(job) as bus:
        if job.extra == "middleware":
            bus.middlewares.append(_middleware)
        await ready()
        count, watch = Count(job), Watch()
        for number, type in enumerate(types_of(job.load)):
            await bus.subscribe(
                type,
                handler_for(job, count),
                durable=job.durable if job.load.types == 1 else f"{job.durable}-{number}",
                start_from="first",
                concurrency=job.concurrency,
                **_options(job),
            )
        await count.finished()
        figures = watch.stop()
    return {**figures, "handled": count.handled, "last": count.last}


async def publish(job: Job) -> Figures:
    """Publish the load, each awaited before the next, or pipelined."""
    load = job.load
    async with _bus(job) as bus:
        await ready()
        watch = Watch()
        if job.settings.get("each"):
            for number in range(load.events):
                await bus.publish(
                    TYPE,
                    payload_of(load, number),
                    channel=CHANNEL,
                    instance=instance_of(load, number),
                )
        else:
            await bus.publish_many(
                Draft(
                    type=TYPE,
                    payload=payload_of(load, number),
                    channel=CHANNEL,
                    instance=instance_of(load, number),
                )
                for number in range(load.events)
            )
        return {**watch.stop(), "handled": load.events}


async def relay(job: Job) -> Figures:
    """One event in, one out from inside the handler, with its derived id."""
    async with _bus(job) as bus:
        await ready()
        count, watch = Count(job), Watch()

        async def handle(event: Event[Received], ctx: Context) -> None:
            await ctx.publish(
                OUT,
                {"chat": event.payload.chatId, "text": event.payload.content.text},
                channel=event.channel,
                instance=event.instance,
            )
            count.up()

        await bus.subscribe(
            TYPE,
            handle,
            durable=job.durable,
            start_from="first",
            concurrency=job.concurrency,
        )
        await count.finished()
        figures = watch.stop()
    return {**figures, "handled": count.handled}


async def latency(job: Job) -> Figures:
    """Handle what another process publishes at a steady rate."""
    async with _bus(job) as bus:
        count = Count(job)
        delays = Delays(count)
        await bus.subscribe(
            TYPE,
            delays.handle,
            durable=job.durable,
            start_from="first",
            concurrency=job.concurrency,
        )
        await ready()
        watch = Watch()
        await count.finished()
        figures = watch.stop()
    return {**figures, **delays.figures(), "handled": count.handled}

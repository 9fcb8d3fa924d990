"""By hand on nats-py: what people write without a framework, and the most nats-py can do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from omni_worker import Event

from ..jobs import Figures, Job
from ..loads import (
    TYPE,
    body_of,
    envelope_of,
    id_of,
    pulled_at_once,
    stream_of,
    subject_of,
)
from .handlers import MODEL, Delays, Sent, handler_for
from .measure import Count, Watch, ready

FETCH = 500
WINDOWS = (500, 1000, 2000, 4000)  # of publish_async: the best one is measured
OUT = "custom.benchmark"


@asynccontextmanager
async def connected(job: Job) -> AsyncIterator[Client]:
    """A connection that ends with the work."""
    client = await nats.connect(job.url)
    try:
        yield client
    finally:
        await client.close()


async def make_consumer(client: Client, job: Job) -> None:
    """A durable pull consumer with the one filter people would write."""
    config = ConsumerConfig(
        durable_name=job.durable,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        max_ack_pending=65_536,
        filter_subject=f"{TYPE}.>",
    )
    await client.jetstream().add_consumer(stream_of(job.load), config)


async def drain(job: Job) -> Figures:
    """Fetch a batch, validate, handle, acknowledge."""
    async with connected(job) as client:
        await make_consumer(client, job)
        stream = client.jetstream()
        subscription = await stream.pull_subscribe_bind(job.durable, stream=stream_of(job.load))
        await ready()
        count = Count(job)
        handle = handler_for(job, count)
        watch = Watch()
        while count.handled < job.load.events:
            for message in await subscription.fetch(FETCH, timeout=5):
                await handle(MODEL.model_validate_json(message.data))
                await message.ack()
        figures = watch.stop()
        await client.flush()
    return {**figures, "handled": count.handled}


async def pull(job: Job) -> Figures:
    """The ceiling: a pull that never runs dry, handled in the subscription's callback."""
    async with connected(job) as client:
        await make_consumer(client, job)
        await ready()
        count = Count(job)
        handle = handler_for(job, count)
        watch = Watch()

        async def on_message(message: Msg) -> None:
            await handle(MODEL.model_validate_json(message.data))
            await message.ack()

        await continuous_pull(client, job, on_message)
        await count.finished()
        figures = watch.stop()
        await client.flush()
    return {**figures, "handled": count.handled}


async def continuous_pull(
    client: Client, job: Job, on_message: Callable[[Msg], Awaitable[None]]
) -> None:
    """Messages of the consumer to ``on_message``; asks for more when half has come."""
    inbox = client.new_inbox()
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(job.load)}.{job.durable}"
    at_once = pulled_at_once(job.load)
    asked = 0

    async def ask(batch: int) -> None:
        nonlocal asked
        asked += batch
        request = {"batch": batch, "expires": 600_000_000_000}
        await client.publish(subject, json.dumps(request).encode(), reply=inbox)

    async def on_any(message: Msg) -> None:
        nonlocal asked
        if not message.reply:
            raise RuntimeError(f"the pull ended: {message.headers}")
        asked -= 1
        await on_message(message)
        if asked <= at_once // 2:
            await ask(at_once - asked)

    await client.subscribe(inbox, cb=on_any)
    await ask(at_once)


async def publish(job: Job) -> Figures:
    """js.publish, each awaited, validated and with an id for the server to dedupe by."""
    load = job.load
    async with connected(job) as client:
        stream = client.jetstream()
        await ready()
        watch = Watch()
        for number in range(load.events):
            event = MODEL.model_validate(envelope_of(load, number))
            await stream.publish(
                subject_of(load, number),
                event.model_dump_json(by_alias=True, exclude_none=True).encode(),
                headers={"Nats-Msg-Id": id_of(number)},
            )
        return {**watch.stop(), "handled": load.events}


async def publish_async(job: Job) -> Figures:
    """js.publish_async of ready bytes: no model, no id, nothing but sending, at its best window."""
    load = job.load
    ready_made = [
        (subject_of(load, number), body_of(load, number)) for number in range(load.events)
    ]
    async with connected(job) as client:
        await ready()
        tries = job.settings["tries"]  # events that each window is tried with beforehand
        rates = {window: await _rate(client, window, ready_made[:tries]) for window in WINDOWS}
        window = max(rates, key=rates.__getitem__)
        watch = Watch()
        await _publish_async(client, window, ready_made)
        sent = load.events + len(WINDOWS) * tries
        return {**watch.stop(), "handled": load.events, "stored": sent, "window": window}


async def _rate(client: Client, window: int, messages: list[tuple[str, bytes]]) -> float:
    watch = Watch()
    await _publish_async(client, window, messages)
    return len(messages) / watch.stop()["seconds"]


async def _publish_async(client: Client, window: int, messages: list[tuple[str, bytes]]) -> None:
    stream = client.jetstream(publish_async_max_pending=window)
    futures = [await stream.publish_async(subject, body) for subject, body in messages]
    for stored in await asyncio.gather(*futures):
        assert stored.seq


async def relay(job: Job) -> Figures:
    """The fetch loop, publishing one event for each that comes before it acknowledges."""
    async with connected(job) as client:
        await make_consumer(client, job)
        stream = client.jetstream()
        subscription = await stream.pull_subscribe_bind(job.durable, stream=stream_of(job.load))
        await ready()
        count, watch = Count(job), Watch()
        while count.handled < job.load.events:
            for message in await subscription.fetch(FETCH, timeout=5):
                event = MODEL.model_validate_json(message.data)
                payload = {"chat": event.payload.chatId, "text": event.payload.content.text}
                await stream.publish(
                    message.subject.replace(TYPE, OUT),
                    json.dumps({"id": f"{event.id}-out", "type": OUT, "payload": payload}).encode(),
                    headers={"Nats-Msg-Id": f"{event.id}-out"},
                )
                await message.ack()
                count.up()
        figures = watch.stop()
        await client.flush()
    return {**figures, "handled": count.handled}


async def latency(job: Job) -> Figures:
    """The continuous pull, handling what another process publishes at a steady rate."""
    model = Event[Sent]
    async with connected(job) as client:
        await make_consumer(client, job)
        count = Count(job)
        delays = Delays(count)

        async def on_message(message: Msg) -> None:
            await delays.handle(model.model_validate_json(message.data))
            await message.ack()

        await continuous_pull(client, job, on_message)
        await client.flush()
        await ready()
        watch = Watch()
        await count.finished()
        figures = watch.stop()
        await client.flush()
    return {**figures, **delays.figures(), "handled": count.handled}

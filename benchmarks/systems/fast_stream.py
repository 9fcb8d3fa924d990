"""FastStream on JetStream: durable pull subscribers, explicit acks, its log of every event off."""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from omni_worker import Event

from ..jobs import Figures, Job
from ..loads import CHANNEL, STREAM, TYPE, envelope_of, id_of, instance_of, subject_of, types_of
from .handlers import MODEL, Received, handler_for
from .measure import Count, Watch, ready

BATCH = 100
TASKS = (100, 1000)  # publishing at once: the better one is measured
TIMEOUT = 30.0  # of a publish; its own half second is short on a busy machine
OUT = "custom.benchmark"


def _broker(job: Job) -> NatsBroker:
    return NatsBroker(job.url, logger=None)


def _subscriber(broker: NatsBroker, job: Job, type: str, durable: str, **options: Any) -> Any:
    return broker.subscriber(
        f"{type}.>",
        durable=durable,
        stream=JStream(STREAM, declare=False),
        config=ConsumerConfig(
            durable_name=durable,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            max_ack_pending=65_536,
        ),
        **options,
    )


def _concurrency(job: Job) -> dict[str, Any]:
    """A batch is handled at once; for more or fewer at once FastStream has workers."""
    if job.concurrency == BATCH:
        return {"pull_sub": PullSub(batch_size=BATCH)}
    if job.concurrency == 1:
        return {"pull_sub": PullSub(batch_size=1)}
    return {"pull_sub": PullSub(batch_size=BATCH), "max_workers": job.concurrency}


async def drain(job: Job) -> Figures:
    """Handle what lies in the stream."""
    broker = _broker(job)
    await broker.connect()
    await ready()
    count, watch = Count(job), Watch()
    for number, type in enumerate(types_of(job.load)):
        durable = job.durable if job.load.types == 1 else f"{job.durable}-{number}"
        _subscriber(broker, job, type, durable, **_concurrency(job))(handler_for(job, count))
    await broker.start()
    await count.finished()
    figures = watch.stop()
    await broker.stop()
    return {**figures, "handled": count.handled}


async def publish(job: Job) -> Figures:
    """Publish the load: each awaited, or many at once by tasks of ours, for it has no batch."""
    load = job.load
    async with _broker(job) as broker:

        async def one(number: int) -> None:
            await broker.publish(
                MODEL.model_validate(envelope_of(load, number)),
                subject_of(load, number),
                stream=STREAM,
                headers={"Nats-Msg-Id": id_of(number)},
                timeout=TIMEOUT,
            )

        async def some(numbers: Any) -> None:
            for number in numbers:
                await one(number)

        async def at_once(tasks: int, first: int, last: int) -> float:
            numbers = iter(range(first, last))
            watch = Watch()
            await asyncio.gather(*(some(numbers) for _ in range(tasks)))
            return watch.stop()["seconds"]

        await ready()
        if job.settings.get("each"):
            watch = Watch()
            await some(range(load.events))
            return {**watch.stop(), "handled": load.events}
        tries = job.settings["tries"]
        best, stored = {}, load.events
        for tasks in TASKS:
            best[await at_once(tasks, stored, stored + tries)] = tasks
            stored += tries
        tasks = best[min(best)]
        watch = Watch()
        await at_once(tasks, 0, load.events)
        return {**watch.stop(), "handled": load.events, "stored": stored, "window": tasks}


async def relay(job: Job) -> Figures:
    """One event in, one out from inside the handler, with an id for the server to dedupe by."""
    broker = _broker(job)
    await broker.connect()
    await ready()
    count, watch = Count(job), Watch()

    async def handle(event: Event[Received]) -> None:
        number = count.handled
        await broker.publish(
            {
                "id": f"{event.id}-out",
                "type": OUT,
                "payload": {"chat": event.payload.chatId, "text": event.payload.content.text},
            },
            f"{OUT}.{CHANNEL}.{instance_of(job.load, number)}",
            stream="CUSTOM",
            headers={"Nats-Msg-Id": f"{event.id}-out"},
            timeout=TIMEOUT,
        )
        count.up()

    _subscriber(broker, job, TYPE, job.durable, **_concurrency(job))(handle)
    await broker.start()
    await count.finished()
    figures = watch.stop()
    await broker.stop()
    return {**figures, "handled": count.handled}

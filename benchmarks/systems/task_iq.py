"""taskiq on its pull-based JetStream broker: the events as arguments of its tasks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from taskiq.receiver import Receiver
from taskiq_nats import PullBasedJetStreamBroker

from ..jobs import Figures, Job
from ..loads import TASK, TASKS, envelope_of, subject_of
from .handlers import handler_for
from .measure import Count, Watch, ready

BATCH = 100
AT_ONCE = 100  # async tasks of a worker, as its command line has by default


def _broker(job: Job, subject: str) -> PullBasedJetStreamBroker:
    return PullBasedJetStreamBroker(
        [job.url],
        subject=subject,
        stream_name=TASKS,
        durable=job.durable,
        pull_consume_batch=BATCH,
        consumer_config=ConsumerConfig(
            durable_name=job.durable,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            max_ack_pending=65_536,
        ),
    )


async def drain(job: Job) -> Figures:
    """Handle what lies in the stream."""
    broker = _broker(job, "taskiq.>")
    broker.is_worker_process = True
    count = Count(job)
    broker.register_task(handler_for(job, count), task_name=TASK)
    await broker.startup()
    receiver = Receiver(
        broker,
        executor=ThreadPoolExecutor(),
        max_async_tasks=AT_ONCE,
        max_prefetch=BATCH,
        run_startup=False,
    )
    stop = asyncio.Event()
    await ready()
    watch = Watch()
    listening = asyncio.create_task(receiver.listen(stop))
    await count.finished()
    figures = watch.stop()
    stop.set()
    await listening
    await broker.shutdown()
    return {**figures, "handled": count.handled}


async def publish(job: Job) -> Figures:
    """Send the load as tasks, each awaited; it knows no ids to dedupe by."""
    broker = _broker(job, subject_of(job.load, 0))
    task = broker.register_task(handler_for(job, Count(job)), task_name=TASK)
    broker.stream_config.subjects = ["taskiq.>"]
    await broker.startup()
    await ready()
    watch = Watch()
    for number in range(job.load.events):
        await task.kiq(envelope_of(job.load, number))
    figures = watch.stop()
    await broker.shutdown()
    return {**figures, "handled": job.load.events}

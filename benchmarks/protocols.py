"""Protocols: how the processes of one measured run work together, and that nothing was lost.

The protocols of single questions are in `latency` and `resting`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from nats.js.api import ConsumerInfo
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from .jobs import Figures, Job
from .loads import Load, stream_of
from .processes import PATIENCE, Failed, Measured, cpu_of, cpu_of_machine
from .stage import Filled, Stage

Protocol = Callable[[Stage, Job], Figures]

OUT_STREAM = "CUSTOM"  # where relays publish
_LAST_ACKS = 10.0  # seconds for them to arrive


def needed(job: Job) -> Load:
    """The load that has to lie in the stream before this job."""
    return job.load if job.work in ("drain", "pull", "relay", "start") else emptied(job.load)


def emptied(load: Load) -> Load:
    """The same streams without events."""
    return Load(events=0, tasks=load.tasks)


def drained(stage: Stage, job: Job) -> Figures:
    """One process handles all that lies in the stream."""
    filled = stage.filled(needed(job))
    figures = run_one(filled, job)
    check(job, "handled", figures["handled"])
    filled.ask(lambda stream: end_consumers(stream, job))
    return figures


def relayed(stage: Stage, job: Job) -> Figures:
    """The same, and each event led to another one, stored once."""
    figures = drained(stage, job)
    stored = stage.filled(needed(job)).ask(lambda stream: _renew(stream, OUT_STREAM))
    check(job, "published", stored)
    return figures


def published(stage: Stage, job: Job) -> Figures:
    """One process publishes the load."""
    filled = stage.filled(needed(job))
    figures = run_one(filled, job)
    stored = filled.ask(lambda stream: _renew(stream, stream_of(job.load)))
    check(job, "stored", stored, expected=figures.pop("stored", job.load.events))
    return figures


def shared(processes: int) -> Protocol:
    """Several processes on one durable; the runner sees when the stream is drained."""

    def run(stage: Stage, job: Job) -> Figures:
        filled = stage.filled(needed(job))
        job = replace(job, url=filled.url, shared=True)
        members = [Measured(job) for _ in range(processes)]
        try:
            each = _together(filled, job, members)
        finally:
            for member in members:
                member.__exit__(None, None, None)
        return each

    return run


def _together(filled: Filled, job: Job, members: list[Measured]) -> Figures:
    for member in members:
        member.ready()
    costs = Costs(filled)
    for member in members:
        member.tell()
    filled.ask(lambda stream: _in_time(settled(stream, job), job, PATIENCE))
    for member in members:
        member.tell()
    each = [member.figures() for member in members]
    check(job, "handled", sum(one["handled"] for one in each))
    filled.ask(lambda stream: end_consumers(stream, job))
    cpu = sum(one["cpu"] for one in each)
    seconds = max(one["last"] for one in each) - min(one["began"] for one in each)
    return {"seconds": seconds, "cpu": cpu, "handled": job.load.events, **costs.figures(cpu)}


class Costs:
    """What a run costs besides the measured process: the server's CPU, and what others use."""

    def __init__(self, filled: Filled) -> None:
        self._filled = filled
        self._server = cpu_of(filled.pid)
        self._machine = cpu_of_machine()
        self._began = time.monotonic()

    def figures(self, measured: float) -> Figures:
        """``others``: cores used by neither the server nor the measured process."""
        server = cpu_of(self._filled.pid) - self._server
        machine = cpu_of_machine() - self._machine
        elapsed = time.monotonic() - self._began
        return {
            "server_cpu": server,
            "others": max(0.0, (machine - server - measured) / elapsed),
        }


def run_one(filled: Filled, job: Job) -> Figures:
    with Measured(replace(job, url=filled.url)) as process:
        process.ready()
        costs = Costs(filled)
        process.tell()
        figures = process.figures()
    return {**figures, **costs.figures(figures["cpu"])}


def check(job: Job, what: str, found: float, expected: float | None = None) -> None:
    wanted = job.load.events if expected is None else expected
    if found != wanted:
        raise Failed(f"{job.system}: {found:.0f} {what}, {wanted:.0f} expected")


async def _consumers(stream: JetStreamContext, job: Job) -> list[ConsumerInfo]:
    all_of_it: Iterable[ConsumerInfo] = await stream.consumers_info(stream_of(job.load))
    return [one for one in all_of_it if one.name.startswith(job.durable)]


async def settled(stream: JetStreamContext, job: Job) -> None:
    """Wait until every event was delivered, nothing is pending and every ack has arrived."""
    while True:
        found = await _consumers(stream, job)
        # Counted in events, not in consumers: a handler's are made one after the other, and
        # the first one may have nothing to deliver while the second is not there yet.
        delivered = sum(one.delivered.consumer_seq for one in found if one.delivered)
        if delivered >= job.load.events and not any(
            one.num_pending or one.num_ack_pending for one in found
        ):
            return
        await asyncio.sleep(0.1)


async def end_consumers(stream: JetStreamContext, job: Job) -> None:
    """What was handled was acknowledged as well: nothing is pending. Then they go."""
    await _in_time(settled(stream, job), job, _LAST_ACKS)
    for one in await _consumers(stream, job):
        await stream.delete_consumer(stream_of(job.load), one.name)


async def _in_time(settling: Awaitable[None], job: Job, seconds: float) -> None:
    try:
        await asyncio.wait_for(settling, seconds)
    except TimeoutError:
        raise Failed(f"{job.system}: events are left without an ack") from None


async def _renew(stream: JetStreamContext, name: str) -> int:
    """Make the stream anew, so that it knows no ids; returns how many messages it held."""
    try:
        info = await stream.stream_info(name)
    except NotFoundError:
        return 0
    await stream.delete_stream(name)
    await stream.add_stream(info.config)
    return info.state.messages

"""Filling: a load into the streams of a server, every event confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from omni_worker import EventBus

from .loads import TASKS, Load, body_of, id_of, stream_of, subject_of

_WINDOW = 4000  # events on their way
_PATIENCE = 60.0


async def fill(url: str, load: Load) -> None:
    """Store the load in its stream, every event confirmed. Raises when the count is wrong."""
    if not load.tasks:
        async with EventBus(url):  # makes the streams as a worker of ours would
            pass
    client = await nats.connect(url)
    try:
        if load.tasks:
            await client.jetstream().add_stream(name=TASKS, subjects=["taskiq.>"])
        await _publish(client, load)
        info = await client.jetstream().stream_info(stream_of(load))
    finally:
        await client.close()
    if info.state.messages != load.events:
        raise RuntimeError(f"{info.state.messages} of {load.events} events were stored")


async def _publish(client: Client, load: Load) -> None:
    """At most a window on its way; confirmations are counted, not read."""
    confirmed = 0
    room, done = asyncio.Event(), asyncio.Event()

    async def on_confirmed(_: Msg) -> None:
        nonlocal confirmed
        confirmed += 1
        room.set()
        if confirmed == load.events:
            done.set()

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=on_confirmed)
    for sent, (subject, body, headers) in enumerate(_messages(load)):
        while sent - confirmed >= _WINDOW:
            room.clear()
            await asyncio.wait_for(room.wait(), _PATIENCE)
        await client.publish(subject, body, reply=inbox, headers=headers)
    if load.events:
        await asyncio.wait_for(done.wait(), _PATIENCE)


def _messages(load: Load) -> Iterator[tuple[str, bytes, dict[str, str] | None]]:
    for number in range(load.events):
        headers = {"Nats-Msg-Id": id_of(number)} if load.headers and not load.tasks else None
        yield subject_of(load, number), body_of(load, number), headers

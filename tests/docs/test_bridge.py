"""The bridge of docs/from-faststream.md, between old publishers on a real server and an app."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import BaseModel

from omni_worker import App, Event, EventBus
from omni_worker.nats_server import NatsServer
from omni_worker.settings import Settings

from ..processes.support import plain_client
from ..waiting import until
from .blocks import BLOCKS


class Order(BaseModel):
    customer: str


async def test_bare_payloads_become_events_once_also_when_the_bridge_reads_them_twice(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    app, seen = App("shop"), list[str]()

    @app.on("custom.order.placed", durable="orders", start_from="first")
    async def place(event: Event[Order]) -> None:
        seen.append(f"{event.id} {event.payload.customer}")

    client = await plain_client(nats_server.url)
    jetstream = client.jetstream()
    await jetstream.add_stream(name="ORDERS", subjects=["orders.>"])
    for body in (b'{"customer": "ana"}', b"no JSON", b'{"customer": "bob"}'):
        await jetstream.publish("orders.placed", body)

    async with app.running(settings=Settings(urls=(nats_server.url,))) as bus:
        for _ in range(2):  # the second time as if it had been killed before its acks
            async with bridging(jetstream, bus, tmp_path):
                await until(lambda: has_answered(jetstream, 3))
            await jetstream.delete_consumer("ORDERS", "bridge")
        await until(lambda: len(seen) == 2)

    stored = (await jetstream.stream_info("CUSTOM")).state.messages
    assert (sorted(seen), stored) == (["ORDERS-1 ana", "ORDERS-3 bob"], 2)
    await client.close()


@asynccontextmanager
async def bridging(jetstream: JetStreamContext, bus: EventBus, folder: Path) -> AsyncIterator[None]:
    """Run the `bridge` of the page until the block ends."""
    [block] = [one for one in BLOCKS if one.title == "bridge.py"]
    (folder / "bridge.py").write_text(block.code)
    bridge = runpy.run_path(str(folder / "bridge.py"))["bridge"]
    task = asyncio.ensure_future(bridge(jetstream, bus))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def has_answered(jetstream: JetStreamContext, sequence: int) -> bool:
    """Return True when the bridge has answered for the messages up to this one."""
    try:
        info = await jetstream.consumer_info("ORDERS", "bridge")
    except NotFoundError:
        return False
    return info.ack_floor is not None and info.ack_floor.stream_seq >= sequence

"""Exactly once as far as physics goes: effects that are events are never doubled; order per key."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter

import pytest

from omni_worker.nats_server import NatsServer

from ..processes.support import api, stored
from .accounts import by_key, out_of_order
from .links import Link
from .scene import Scene

# The effect is an event; `begun` and `handled` only watch.
ONCE = """
app = App("router")

@app.on("message.received", durable="r1", start_from="first", concurrency=8, ack_wait=1{more})
async def route(event, ctx):
    effect("begun", id=event.id, attempt=ctx.attempt)
    await asyncio.sleep(0.01)
    await ctx.publish("custom.reply.queued", {{"to": event.id}})
    await ctx.publish("custom.reply.queued", {{"to": event.id}})  # the same again: a second event
    effect("handled", id=event.id)
"""

ORDERED = """
app = App("router")

@app.on("message.received", durable="r1", start_from="first", concurrency=20, ack_wait={ack_wait},
        prefetch={prefetch}, retry_delay=0.05, order_by=lambda event: event.payload["chatId"])
async def route(event, ctx):
    effect("begun", id=event.id, key=event.payload["chatId"], attempt=ctx.attempt)
    await asyncio.sleep(0.005)
    if event.id.endswith("7") and ctx.attempt == 1:
        raise ValueError("not yet")
    effect("handled", id=event.id, key=event.payload["chatId"])
"""


async def _outputs(scene: Scene) -> Counter[str]:
    """How many events each event led to."""
    return Counter(
        json.loads(one.data)["payload"]["to"] for one in await stored(scene.plain, "CUSTOM")
    )


async def test_effects_that_are_events_are_stored_once_whoever_is_killed(
    scene: Scene, nats_server: NatsServer
) -> None:
    source = ONCE.format(more=", exactly_once=True")
    workers = [await scene.run(source), await scene.run()]
    async with scene.publishing(every=0.25):
        for kills in range(6):
            await scene.more_handled(60)
            if kills % 3 == 2:
                nats_server.kill()
                nats_server.start()
                continue
            victim = random.randrange(2)
            workers[victim].kill()
            workers[victim] = scene.spawn()
    await scene.handled(len(scene.confirmed), timeout=60)
    await scene.settled()

    account = await scene.ends(
        "exactly_once, two workers: 4 × worker kill -9, 2 × server kill -9",
        "effects are events: every one stored once",
    )
    outputs = await _outputs(scene)
    assert outputs == {id: 2 for id in account.published}


async def test_derived_ids_alone_store_every_event_once(
    scene: Scene, nats_server: NatsServer
) -> None:
    workers = [await scene.run(ONCE.format(more="")), await scene.run()]
    async with scene.publishing(every=0.25):
        for kills in range(6):
            await scene.more_handled(60)
            if kills % 3 == 2:
                nats_server.kill()
                nats_server.start()
                continue
            victim = random.randrange(2)
            workers[victim].kill()
            workers[victim] = scene.spawn()
    await scene.handled(len(scene.confirmed), timeout=60)
    await scene.settled()

    account = await scene.ends(
        "derived ids of ctx.publish alone, through the same kills",
        "handlers ran twice, their events are stored once",
    )
    assert await _outputs(scene) == {id: 2 for id in account.published}


async def test_exactly_once_runs_once_where_acks_are_lost_beside_another_worker(
    scene: Scene, nats_server: NatsServer
) -> None:
    async with Link(nats_server.port) as link:
        await scene.run(ONCE.format(more=", exactly_once=True"), url=link.url)
        await scene.run()
        link.swallows_acks = True
        await scene.publish(200)
        await scene.handled(200)
        link.swallows_acks = False
        await scene.settled()

        account = await scene.ends(
            "exactly_once: every ack of one of two workers swallowed",
            f"{link.swallowed} swallowed; the guard answers instead",
        )
        assert account.run_twice == 0


async def test_exactly_once_runs_once_though_a_server_forgets_acks(
    scene: Scene, nats_server: NatsServer
) -> None:
    await scene.run(ONCE.format(more=", exactly_once=True"))
    await scene.run()
    async with scene.publishing(every=0.2):
        for _ in range(3):
            await scene.more_handled(80)
            nats_server.kill()
            nats_server.start()
    await scene.handled(len(scene.confirmed), timeout=60)
    await scene.settled()

    account = await scene.ends("exactly_once: server kill -9 3 ×, two workers")
    assert account.ended_twice == 0


@pytest.mark.parametrize("prefetch", [40, None])
async def test_order_per_key_at_full_concurrency_through_kills(
    scene: Scene, nats_server: NatsServer, prefetch: int | None
) -> None:
    worker = await scene.run(ORDERED.format(ack_wait=1, prefetch=prefetch))
    feed = asyncio.create_task(scene.publish(2_000, every=0.05))
    for kills in range(4):
        await scene.handled(200 * (kills + 1))
        if kills % 2:
            nats_server.kill()
            nats_server.start()
            # The worker still knows what the server forgot of its acks, the next one would not.
            await scene.acked_again()
        else:
            worker.kill()
            worker = await scene.run()
    await feed
    await scene.handled(2_000, timeout=60)
    await scene.settled()

    account = await scene.ends(
        f"order_by, prefetch={prefetch}: 20 keys, retries, 2 × worker and 2 × server kill -9",
        "each key in its order",
    )
    assert len(by_key(scene.stage.effects("handled"))) == 20
    assert out_of_order(scene.stage.effects("handled")) == []
    assert account.ended_twice <= 2 * 20


async def test_order_per_key_through_redeploys_that_wait_for_nobody(
    scene: Scene, nats_server: NatsServer
) -> None:
    """What was handed back is there at once: nobody waits for the end of its lease."""
    worker = await scene.run(ORDERED.format(ack_wait=30, prefetch=None))
    feed = asyncio.create_task(scene.publish(1_500, every=0.05))
    for stops in range(3):
        await scene.handled(300 * (stops + 1))
        assert await worker.stop(20) == 0
        worker = await scene.run()
        await scene.more_handled(10, timeout=10)
    await feed
    await scene.handled(1_500)
    await scene.settled()

    account = await scene.ends("order_by: SIGTERM 3 × under load", "each key in its order")
    assert out_of_order(scene.stage.effects("handled")) == []
    assert account.ended_twice == 0


async def test_order_per_key_where_a_process_stood_still_past_its_leases(
    scene: Scene, nats_server: NatsServer
) -> None:
    worker = await scene.run(ORDERED.format(ack_wait=1, prefetch=None))
    feed = asyncio.create_task(scene.publish(1_500, every=0.05))
    for stops in range(3):
        await scene.handled(300 * (stops + 1))
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(random.choice((0.8, 1.5, 2.5)))  # the fault itself
        worker.signal(signal.SIGCONT)
    await feed
    await scene.handled(1_500)
    await scene.settled()

    account = await scene.ends("order_by: SIGSTOP 3 × around ack_wait", "each key in its order")
    assert out_of_order(scene.stage.effects("handled")) == []
    assert account.ended_twice == 0


async def test_order_per_key_through_a_link_that_is_cut(
    scene: Scene, nats_server: NatsServer
) -> None:
    async with Link(nats_server.port) as link:
        await scene.run(ORDERED.format(ack_wait=1, prefetch=None), url=link.url)
        feed = asyncio.create_task(scene.publish(1_500, every=0.05))
        for cuts in range(4):
            await scene.handled(200 * (cuts + 1))
            link.cut_after(random.randrange(1, 20_000))
        await feed
        await scene.handled(1_500)
        await scene.settled()

        account = await scene.ends("order_by: link cut 4 × mid-message", "each key in its order")
    assert out_of_order(scene.stage.effects("handled")) == []
    assert account.ended_twice == 0


async def test_order_per_key_where_max_deliver_is_set_while_a_dead_process_holds_events(
    scene: Scene, nats_server: NatsServer
) -> None:
    """The server gives up what the dead one held: newer events wait for it all the same."""
    worker = await scene.run(ORDERED.format(ack_wait=3, prefetch=20))
    feed = asyncio.create_task(scene.publish(1_500, every=0.05))
    for kills in range(2):
        await scene.handled(200 * (kills + 1))
        worker.kill()
        worker = await scene.run()
        has = (await api(scene.plain, "CONSUMER.INFO.MESSAGE.r1"))["config"]
        edit = {"stream_name": "MESSAGE", "config": {**has, "max_deliver": 1}, "action": "update"}
        await api(scene.plain, "CONSUMER.CREATE.MESSAGE.r1", edit)
    await feed
    await scene.handled(1_500)
    await scene.settled()

    await scene.ends(
        "order_by: max_deliver set after a worker's kill -9, 2 ×",
        "each key in its order; what the dead one settled in its last seconds ran again",
    )
    assert out_of_order(scene.stage.effects("handled")) == []

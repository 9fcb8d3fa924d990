"""Batches of workers and servers that are killed, and of deploys: 0 lost, doubles have a cause."""

from __future__ import annotations

import asyncio

from omni_worker.nats_server import NatsServer

from ..waiting import until
from .killing import killed_in_turn
from .scene import Scene

# What a batch does is done for each of its events: at once, as by one statement of a database.
BATCHES = """
app = App("router")

@app.on_batch("message.received", durable="r1", start_from="first", {options})
async def store(batch: Batch) -> None:
    for event in batch:
        effect("begun", id=event.id, attempt=batch.context(event).attempt)
    await asyncio.sleep({work})
    for event in batch:
        effect("handled", id=event.id)
"""


def batches(work: float = 0.05, **options: object) -> str:
    given = {"size": 50, "wait": 0.2, "ack_wait": 1, **options}
    shown = ", ".join(f"{key}={value!r}" for key, value in given.items())
    source = BATCHES.format(work=work, options=shown)
    return f"from omni_worker import Batch\n{source}"


async def test_workers_killed_again_and_again_in_the_middle_of_batches(scene: Scene) -> None:
    kills, size = 8, 50

    await killed_in_turn(scene, batches(), kills=kills)

    account = await scene.ends(
        "batches: two workers on one durable, 8 × kill -9 under load",
        "begun again: the batch that ran when its worker was killed",
    )
    assert account.run_twice <= kills * size
    assert account.ended_twice <= kills * size
    assert not account.lettered


async def test_a_server_killed_in_the_middle_of_batches(
    scene: Scene, nats_server: NatsServer
) -> None:
    await scene.run(batches())
    feed = asyncio.create_task(scene.publish(2_000, every=0.1))
    for count in (300, 900):
        await scene.handled(count)
        nats_server.kill()
        nats_server.start()
    ids = await feed
    await scene.handled(len(ids), timeout=60)
    await scene.settled()

    account = await scene.ends(
        "batches: the server killed -9 twice under load", "one process: what came again is known"
    )
    assert account.ended_twice == 0
    assert not account.lettered


async def test_deploys_in_the_middle_of_batches_double_nothing(scene: Scene) -> None:
    worker = await scene.run(batches(wait=0.5, ack_wait=30))
    feed = asyncio.create_task(scene.publish(1_500, every=0.1))

    for deploy in range(4):
        await scene.handled(200 * (deploy + 1))
        following = await scene.run()
        assert await worker.stop() == 0
        worker = following
    ids = await feed
    await scene.handled(len(ids), timeout=60)
    await scene.settled()

    account = await scene.ends("batches: 4 deploys under load", "a stop hands back what waits")
    assert account.run_twice == 0
    assert not account.lettered


KILLER = """
from omni_worker import Batch

app = App("router")

@app.on_batch("message.received", durable="r1", start_from="first", size=500, wait=0.5, ack_wait=1)
async def store(batch: Batch) -> None:
    ids = [event.id for event in batch]
    if "event-000250" in ids:
        effect("killed", size=len(ids))
        os.kill(os.getpid(), signal.SIGKILL)
    for id in ids:
        effect("handled", id=id)
"""


async def test_one_poison_event_among_500_that_kills_its_process(scene: Scene) -> None:
    ids = await scene.publish(500)
    worker = scene.spawn(KILLER)

    def has_ended() -> bool:
        return not worker.is_running or any("dead letter #" in one for one in worker.messages())

    while True:
        await until(has_ended, 60, seen=lambda: len(set(scene.stage.ids("handled"))))
        if worker.is_running:
            break
        worker = scene.spawn()
    await scene.handled(499)
    await scene.settled()

    killed = [one["size"] for one in scene.stage.effects("killed")]
    account = await scene.ends(
        "batches: a poison event among 500 that kills its process",
        f"{len(killed)} processes died of it",
    )
    assert account.lettered == {"event-000250"}
    assert account.handled == set(ids) - {"event-000250"}
    assert len(killed) <= 5  # its attempts and one more
    assert killed[2:] == [1] * (len(killed) - 2)  # twice in company, then alone
    assert account.ended_twice == 0


async def test_one_poison_event_among_500_that_raises(scene: Scene) -> None:
    await scene.run("""
        from omni_worker import Batch

        app = App("router")

        @app.on_batch("message.received", durable="r1", start_from="first", size=500, wait=0.5,
                      retry_delay=0.2)
        async def store(batch: Batch) -> None:
            ids = [event.id for event in batch]
            effect("batch", size=len(ids), poison="event-000250" in ids)
            if "event-000250" in ids:
                raise ValueError("no such row")
            for id in ids:
                effect("handled", id=id)
    """)
    await scene.publish(500)
    await scene.handled(499)
    await scene.settled()

    calls = scene.stage.effects("batch")
    account = await scene.ends(
        "batches: a poison event among 500 that raises",
        f"{len(calls)} calls, {sum(one['poison'] for one in calls)} with it",
    )
    assert account.lettered == {"event-000250"}
    assert account.ended_twice == 0
    assert len(calls) <= 60


CHATS = """
from omni_worker import Batch

app = App("router")

@app.on_batch("message.received", durable="r1", start_from="first", ack_wait=1,
              by=lambda event: event.payload["chatId"], quiet=0.3, wait=2.0)
async def answer(batch: Batch) -> None:
    for event in batch:
        effect("begun", id=event.id, chat=batch.key)
    await asyncio.sleep(0.05)
    for event in batch:
        effect("handled", id=event.id)
"""


async def test_groups_of_chats_under_kills_of_workers_and_server_and_deploys(
    scene: Scene, nats_server: NatsServer
) -> None:
    worker = await scene.run(CHATS)
    feed, killed = asyncio.create_task(scene.publish(2_000, every=0.2)), set()
    for step in range(6):
        await scene.handled(250 * (step + 1), timeout=60)
        if step % 3 == 0:
            worker.kill()
            killed.add(worker.name)
            worker = scene.spawn()
        elif step % 3 == 1:
            following = await scene.run()
            await worker.ready(30)  # while it starts a signal ends it at once
            assert await worker.stop() == 0
            worker = following
        else:
            nats_server.kill()
            nats_server.start()
    ids = await feed
    await scene.handled(len(ids), timeout=60)
    await scene.settled()

    account = await scene.ends(
        "batches by key: 2 × kill -9 of the worker, 2 deploys, 2 × kill -9 of the server",
        "begun again: groups that ran when their worker was killed",
    )
    # Ten groups run at once; each has what a chat said in at most two seconds.
    assert account.ended_twice <= account.run_twice <= 2 * 10 * 100
    assert not scene.run_again_in_one_process()
    ends = [(one["id"], one["worker"]) for one in scene.stage.effects("handled")]
    of_killed = {id for id, name in ends if name in killed}
    assert {id for id, count in account.ended.items() if count > 1} <= of_killed
    assert not account.lettered

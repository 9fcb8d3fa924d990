"""What a worker holds: leases that last, a bounded prefetch, flat memory, and a fair share."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from nats.aio.client import Client

from .support import (
    Stage,
    consumer,
    foreign_event,
    publish_foreign,
    repeated,
    until_settled,
)


async def test_a_handler_longer_than_ack_wait_runs_once(stage: Stage, plain: Client) -> None:
    target = stage.app("""
        app = App("router")

        @app.on("message.received", durable="r1", ack_wait=0.4, concurrency=2)
        async def route(event):
            effect("begun", id=event.id)
            await asyncio.sleep(1.4 if event.id == "event-00000" else 0.5)
            effect("handled", id=event.id)

        @app.on("message.sent", durable="r2", ack_wait=0.4)
        def block(event):
            effect("begun", id=event.id)
            time.sleep(1.4)
            effect("handled", id=event.id)
    """)
    for worker in [stage.spawn(target), stage.spawn(target)]:
        await worker.ready()

    ids = await publish_foreign(plain, 8)
    await plain.jetstream().publish(*foreign_event("message.sent", id="thread"))
    await stage.until_effects(9, "handled")
    for name in ("r1", "r2"):
        await until_settled(plain, name)

    assert sorted([*ids, "thread"]) == sorted(stage.ids("begun")) == sorted(stage.ids())


async def test_never_more_than_concurrency_and_prefetch_are_held(
    stage: Stage, plain: Client
) -> None:
    await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="fixed", concurrency=3, prefetch=5)
            async def fixed(event):
                effect("fixed", id=event.id)
                await asyncio.sleep(0.03)

            @app.on("message.received", durable="adaptive", concurrency=3)
            async def adaptive(event):
                effect("adaptive", id=event.id)
                await asyncio.sleep(0.03)

            @app.on("message.received", durable="none", concurrency=1, prefetch=0)
            def none(event):
                effect("none", id=event.id)
                time.sleep(0.01)
        """)
    )
    highest: Counter[str] = Counter()

    await publish_foreign(plain, 150)
    while len(stage.effects()) < 450:
        for name in ("fixed", "adaptive", "none"):
            info = await consumer(plain, name)
            highest[name] = max(highest[name], info["num_ack_pending"])

    # The server may deliver the next before it has counted the acks that came in front of it: at
    # most as many as run at once.
    assert 8 <= highest["fixed"] <= 8 + 3
    assert 3 < highest["adaptive"] < 100  # far from what a fast handler gets: at most 2 000
    assert highest["none"] <= 1 + 1


async def test_memory_stays_flat_over_a_backlog_and_processes_share_it(
    stage: Stage, plain: Client
) -> None:
    target = stage.app("""
        app = App("router")

        @app.on("message.received", durable="r1", start_from="first")
        async def route(event):
            effect("handled", id=event.id)
    """)
    warm = await stage.run(target)
    assert await warm.stop() == 0
    ids = await publish_foreign(plain, 30_000)

    workers = [stage.spawn(target), stage.spawn(target)]
    early: dict[str, int] = {}
    for worker in workers:
        await worker.ready()
    await stage.until_effects(3_000)
    for worker in workers:
        early[worker.name] = worker.memory()
    await stage.until_effects(len(ids), timeout=60)
    await until_settled(plain, "r1")

    for worker in workers:
        assert worker.memory() - early[worker.name] < 12 * 1024 * 1024
    assert sorted(ids) == sorted(stage.ids())
    assert repeated(stage.ids()) == {}
    shares = Counter(one["worker"] for one in stage.effects())
    assert sorted(shares) == [worker.name for worker in workers]
    assert [await worker.stop() for worker in workers] == [0, 0]


@pytest.mark.parametrize("work", [0, 0.1])
async def test_memory_stays_flat_over_a_backlog_of_large_events(
    stage: Stage, plain: Client, work: float
) -> None:
    """Fast or slow: what is held is bounded in bytes too."""
    target = stage.app(f"""
        app = App("router")

        @app.on("message.received", durable="r1", start_from="first")
        async def route(event):
            await asyncio.sleep({work})
            effect("handled", id=event.id, size=len(event.payload["text"]))
    """)
    warm = await stage.run(target)
    before = warm.memory()
    assert await warm.stop() == 0
    text = "x" * 256 * 1024
    for number in range(400):
        event = foreign_event("message.received", {"text": text}, id=f"{number}")
        await plain.jetstream().publish(*event)

    worker = await stage.run(target)
    highest = 0
    while len(stage.effects("handled")) < 400:
        highest = max(highest, worker.memory())
        await asyncio.sleep(0.01)
    await until_settled(plain, "r1")

    assert highest - before < 20 * 1024 * 1024  # of 100 MiB that wait
    assert repeated(stage.ids()) == {}
    assert {one["size"] for one in stage.effects()} == {len(text)}
    assert "connection lost" not in worker.said()
    assert await worker.stop() == 0


async def test_processes_share_a_queue_without_a_durable(stage: Stage, plain: Client) -> None:
    target = stage.app("""
        app = App("router")

        @app.on("message.received", queue="routers", concurrency=1, prefetch=1)
        async def route(event):
            effect("handled", id=event.id)
            await asyncio.sleep(0.01)
    """)
    workers = [stage.spawn(target), stage.spawn(target)]
    await asyncio.gather(*(worker.ready() for worker in workers))

    ids = await publish_foreign(plain, 100)
    await stage.until_effects(100)

    assert sorted(ids) == sorted(stage.ids())
    assert {one["worker"] for one in stage.effects()} == {"w1", "w2"}


async def test_a_workers_collector_is_calmed_unless_its_app_has_set_it(
    stage: Stage, plain: Client
) -> None:
    for name, sets in (("usual", ""), ("own", "gc.set_threshold(50_000)")):
        target = stage.app(
            f"""
            import gc
            {sets}
            app = App("router")

            @app.on("message.received", durable="{name}", start_from="first")
            async def route(event):
                effect("{name}", passes_after=gc.get_threshold()[0])
            """,
            name,
        )
        await stage.run(target)
    await publish_foreign(plain, 1)
    await stage.until_effects(2)

    assert [one["passes_after"] for one in stage.effects("usual")] == [10_000]
    assert [one["passes_after"] for one in stage.effects("own")] == [50_000]

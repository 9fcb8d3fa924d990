"""Servers that are killed, hang, come late: nothing is lost, and one worker runs nothing twice."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from omni_worker.nats_server import NatsServer

from ..ports import free_port
from ..processes.support import Stage, consumer, foreign_event
from ..waiting import until
from .accounts import Row
from .scene import Scene, load
from .servers import pause, resume


async def test_a_server_killed_while_events_are_published_and_handled(
    scene: Scene, nats_server: NatsServer
) -> None:
    worker = await scene.run(load(work=0.005, concurrency=20))
    feed = asyncio.create_task(scene.publish(3_000, every=0.02))

    for kills in range(5):
        await scene.handled(250 * (kills + 1))
        nats_server.kill()
        await until(lambda: not scene.bus.is_connected)
        nats_server.start()
    await feed
    await scene.handled(3_000, timeout=60)
    await scene.settled()

    account = await scene.ends(
        "server kill -9 and back 5 ×, while publishing and handling",
        f"{scene.duplicates} publishes repeated, stored once",
    )
    assert account.run_twice == 0
    assert worker.messages("error") == []
    assert await worker.stop() == 0


async def test_a_server_killed_beside_two_workers(scene: Scene, nats_server: NatsServer) -> None:
    await scene.run(load(work=0.005, concurrency=10))
    await scene.run()
    feed = asyncio.create_task(scene.publish(3_000, every=0.02))

    for kills in range(3):
        await scene.handled(300 * (kills + 1))
        nats_server.kill()
        await until(lambda: not scene.bus.is_connected)
        nats_server.start()
    await feed
    await scene.handled(3_000, timeout=60)
    await scene.settled()

    await scene.ends(
        "server kill -9 and back 3 ×, two workers on one durable",
        "doubles: acks of its last 100 ms forgotten, redelivered to the other worker",
    )


async def test_a_server_killed_while_a_pull_waits_delivers_at_once_when_it_is_back(
    scene: Scene, nats_server: NatsServer
) -> None:
    await scene.run(load())
    await scene.publish(1)
    await scene.handled(1)
    await scene.settled()
    gaps = []
    for lives in range(5):
        nats_server.kill()
        nats_server.start()
        back = time.monotonic()
        await scene.publish(1)
        await scene.handled(lives + 2)
        gaps.append(time.monotonic() - back)
    await scene.settled()

    account = await scene.ends(
        "idle, a pull outstanding, kill -9 and back 5 ×",
        f"next event after {max(gaps) * 1000:.0f} ms at most",
    )
    assert account.run_twice == 0
    assert max(gaps) < 5  # a missed heartbeat is noticed after ten


async def test_a_server_killed_right_after_acks_forgets_them_and_the_worker_does_not(
    scene: Scene, nats_server: NatsServer
) -> None:
    worker = await scene.run(load(work=0.0, concurrency=50))
    forgotten = 0
    for kills in range(4):
        await scene.publish(300)
        await scene.handled(300 * (kills + 1))  # all are acknowledged this very moment
        worker.signal(signal.SIGSTOP)  # until we have read what the server still knows
        nats_server.kill()
        nats_server.start()
        forgotten += 300 * (kills + 1) - await _floor(scene)
        worker.signal(signal.SIGCONT)
    await scene.settled()

    account = await scene.ends(
        "kill -9 within milliseconds of 300 acks, 4 ×",
        f"its ack floor was {forgotten} events behind, summed",
    )
    assert account.run_twice == 0


async def test_a_retry_waits_its_time_through_a_server_kill(
    scene: Scene, nats_server: NatsServer
) -> None:
    """The server keeps when a retry is due, to the second; its last 100 ms it may forget."""
    worker = await scene.run("""
        app = App("router")

        @app.on("message.received", durable="r1", start_from="first", retry_delay=3)
        async def route(event, ctx):
            effect("begun", id=event.id, attempt=ctx.attempt)
            if ctx.attempt == 1 and event.id < "event-000015":
                raise ValueError("not yet")
            effect("handled", id=event.id)
    """)
    retried = await scene.publish(15)
    await until(
        lambda: len([one for one in worker.lines() if one.get("signal") == "Retried"]) == 15
    )
    asked = time.time()
    await scene.publish(1)  # one more, for the server to write after all these
    state = next(nats_server.store.glob("jetstream/*/streams/MESSAGE/obs/r1/o.dat"))
    await until(lambda: state.stat().st_mtime > asked)
    nats_server.kill()
    nats_server.start()
    await scene.handled(16)
    await scene.settled()

    await scene.ends("retries of 3 s waiting, kill -9 and back")
    begun = {one["id"]: one["at"] for one in reversed(scene.stage.effects("begun"))}
    ended = {one["id"]: one["at"] for one in scene.stage.effects("handled")}
    gaps = [ended[id] - begun[id] for id in retried]
    assert sorted(one["attempt"] for one in scene.stage.effects("begun")) == [1] * 16 + [2] * 15
    assert 3 * 0.9 - 1 <= min(gaps) <= max(gaps) <= 3 * 1.1 + 1
    assert await worker.stop() == 0


async def _floor(scene: Scene) -> int:
    return int((await consumer(scene.plain, "r1"))["ack_floor"]["stream_seq"])


async def test_a_server_killed_while_workers_start(scene: Scene, nats_server: NatsServer) -> None:
    await scene.publish(400)
    source = load()
    for moment in (0.25, 0.35, 0.45):
        worker = scene.spawn(source)
        await asyncio.sleep(moment)  # the fault itself: somewhere in its start
        nats_server.kill()
        nats_server.start()
        await worker.ready(20)
    await scene.handled(400)
    await scene.settled()

    account = await scene.ends("server kill -9 at 3 moments of a worker's start")
    assert account.run_twice <= 3 * 8  # acks forgotten, redelivered to the next worker


async def test_a_server_that_hangs_shortly_changes_nothing(
    scene: Scene, nats_server: NatsServer
) -> None:
    worker = await scene.run(load(work=0.01, ack_wait=1))
    feed = asyncio.create_task(scene.publish(1_500, every=0.05))
    for pauses in range(3):
        await scene.handled(100 * (pauses + 1))
        pause(nats_server)
        await asyncio.sleep(1.2)  # the fault itself: longer than ack_wait
        resume(nats_server)
    await feed
    await scene.handled(1_500)
    await scene.settled()

    account = await scene.ends("server SIGSTOP 3 × 1.2 s, ack_wait 1 s")
    assert account.run_twice == 0
    assert not account.lettered
    assert await worker.stop() == 0


async def test_a_server_started_only_after_its_workers(tmp_path: Path, rows: list[Row]) -> None:
    port = free_port()
    server = NatsServer(port=port, store=tmp_path / "store")
    with Stage(tmp_path, server.url) as stage:
        target = stage.app(load(), "early")
        early = [
            stage.spawn(target, reconnect_delay=0.1, reconnect_max_delay=0.3) for _ in range(2)
        ]
        for worker in early:
            await worker.until_said(": connection refused")
        with server:
            async with Scene(tmp_path, server, rows) as scene:
                for worker in early:
                    await worker.ready()
                await scene.publish(200)
                await scene.handled(200)
                await scene.settled()
                account = await scene.ends("server started only after two workers")
                assert account.run_twice == 0
        for worker in early:
            assert worker.messages("error") == []


async def test_an_outage_longer_than_the_budget_loses_nothing(
    scene: Scene, nats_server: NatsServer
) -> None:
    source = load(work=0.02, concurrency=4, prefetch=8, ack_wait=1)
    first = await scene.run(source, reconnect_max_retries=3)
    await scene.publish(200)
    await scene.handled(20)

    nats_server.kill()
    assert await first.exit() == 1
    nats_server.start()
    await scene.run()
    await scene.handled(200)
    await scene.settled()

    account = await scene.ends(
        "outage longer than the budget, worker exits 1, another is started",
        "doubles: ended while there was nobody to take the ack",
    )
    # What it held and ended meanwhile, and the acks a killed server forgets: those of its
    # last 150 ms, at 200 events a second.
    assert account.run_twice <= 4 + 8 + 30
    assert "connection refused" in first.messages("error")[-1]


async def test_a_foreign_program_publishes_on_through_a_restart_in_order(
    scene: Scene, nats_server: NatsServer
) -> None:
    """SIGTERM of the server (a rolling update of NATS): clients are told, nothing is forgotten."""
    worker = await scene.run(load(work=0.005))
    feed = asyncio.create_task(scene.publish(1_000, every=0.05))
    for restarts in range(3):
        await scene.handled(100 * (restarts + 1))
        nats_server.stop()
        nats_server.start()
    await feed
    await scene.plain.jetstream().publish(*foreign_event("message.received", id="foreign"))
    scene.confirmed.add("foreign")
    await scene.handled(1_001)
    await scene.settled()

    account = await scene.ends("server SIGTERM and back 3 × (update of the server)")
    assert account.run_twice == 0

    async def nothing_redelivered() -> bool:
        return (await consumer(scene.plain, "r1"))["num_redelivered"] == 0

    await until(nothing_redelivered)
    assert await worker.stop() == 0

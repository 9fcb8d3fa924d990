"""Workers that are killed, stopped, blocked: nothing is lost, and doubles have a cause."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

from ..processes.support import Worker, consumer, stored
from ..waiting import until
from .accounts import Row
from .killing import killed_in_turn
from .scene import Scene, load
from .servers import configured


async def test_workers_killed_again_and_again_under_load(scene: Scene) -> None:
    kills = 8

    await killed_in_turn(scene, load(work=0.02, concurrency=10), kills=kills)

    account = await scene.ends(
        "two workers on one durable, 8 × kill -9 under load",
        "begun again: what ran when it was killed",
    )
    # Only what ran when its worker was killed begins twice: 10 at a time.
    assert account.run_twice <= kills * 10 + 8 * 10
    assert not account.lettered


async def test_what_a_killed_worker_ran_begins_elsewhere_after_ack_wait(scene: Scene) -> None:
    first = await scene.run(load(work=0.05, concurrency=4, prefetch=4, ack_wait=1))
    await scene.run()
    feed = asyncio.create_task(scene.publish(600, every=0.3))
    await scene.handled(50)

    first.kill()
    killed = time.monotonic()
    await feed
    await scene.handled(600)
    await scene.settled()

    begun = scene.stage.effects("begun")
    lost = {one["id"] for one in begun if one["worker"] == first.name} - {
        one["id"] for one in scene.stage.effects("handled") if one["worker"] == first.name
    }
    again = [one["at"] - killed for one in begun if one["id"] in lost and one["at"] > killed]
    await scene.ends(
        "kill -9 of one of two workers, ack_wait 1 s",
        f"{len(lost)} ran in it, begun again within {max(again):.1f} s",
    )
    assert 1 <= len(lost) == len(again) <= 4
    assert max(again) < 1 + 2  # what the other worker holds already, and one after the other


async def test_a_worker_that_stands_still_past_ack_wait_answers_nothing_twice(
    scene: Scene,
) -> None:
    app = load(work=0.3, concurrency=4, prefetch=8, ack_wait=0.5)
    first = await scene.run(app)
    ids = await scene.publish(40)
    await scene.handled(4)
    await _acked(scene, 4)  # else these may be stopped between their end and their ack

    first.signal(signal.SIGSTOP)
    second = await scene.run()
    # Everything the stopped one held goes to the other: also what it had begun.
    await until(
        lambda: {one["id"] for one in scene.stage.effects("handled")} >= set(ids), timeout=30
    )
    await scene.settled()
    first.signal(signal.SIGCONT)
    await scene.publish(20)
    await scene.handled(60)
    await scene.settled()

    account = await scene.ends(
        "SIGSTOP past ack_wait, a second worker takes over, SIGCONT",
        "doubles: what ran in the stopped process",
    )
    # What the stopped one had buffered it drops: only what was running ends twice.
    assert account.run_twice <= 4
    assert await first.stop() == 0
    assert await second.stop() == 0


async def _acked(scene: Scene, count: int) -> None:
    async def heard() -> bool:
        return int((await consumer(scene.plain, "r1"))["ack_floor"]["consumer_seq"]) >= count

    await until(heard)


async def test_a_handler_that_blocks_the_loop_past_ack_wait(scene: Scene) -> None:
    worker = await scene.run("""
        app = App("router")

        @app.on("message.received", durable="r1", concurrency=4, ack_wait=0.5, start_from="first")
        async def route(event, ctx):
            effect("begun", id=event.id, attempt=ctx.attempt)
            if event.id == "event-000010" and ctx.attempt == 1:
                time.sleep(2)  # not await: the loop stands still, and every lease with it
            effect("handled", id=event.id)
    """)
    await scene.publish(300)
    await scene.handled(300)
    await scene.settled()

    account = await scene.ends(
        "a handler blocks the loop 4 × ack_wait", "one process: recognised when it came again"
    )
    assert account.run_twice == 0
    assert not account.lettered
    assert any("blocked" in said for said in worker.messages())
    assert await worker.stop() == 0


async def test_a_server_gives_up_a_worker_whose_loop_is_blocked(
    tmp_path: Path, rows: list[Row]
) -> None:
    config = 'ping_interval: "0.5s", ping_max: 1'
    with configured(tmp_path / "server", config) as server:
        async with Scene(tmp_path, server, rows) as scene:
            worker = await scene.run("""
                app = App("router")

                @app.on("message.received", durable="r1", concurrency=4, ack_wait=1,
                        start_from="first")
                async def route(event, ctx):
                    effect("begun", id=event.id, attempt=ctx.attempt)
                    if event.id == "event-000010":
                        time.sleep(4)  # no ping is answered meanwhile
                    effect("handled", id=event.id)
            """)
            await scene.publish(300)
            await scene.handled(300)
            await scene.settled()

            account = await scene.ends("a blocked loop, and the server ends its link")
            assert "connection lost: Stale Connection" in worker.messages()
            assert account.run_twice == 0
            assert not account.lettered
            assert await worker.stop() == 0


async def test_clocks_that_are_an_hour_wrong_change_nothing(scene: Scene) -> None:
    app = """
        clock, nanoseconds = time.time, time.time_ns
        time.time = lambda: clock() + {wrong}
        time.time_ns = lambda: nanoseconds() + {wrong} * 10**9

        app = App("router")

        @app.on("message.received", durable="r1", start_from="first", concurrency=4, ack_wait=1,
                prefetch=8, retry_delay=0.5, exactly_once=True)
        async def route(event, ctx):
            effect("begun", id=event.id, attempt=ctx.attempt)
            await asyncio.sleep(60 if event.id > "event-000{stuck_from}" else 0.01)
            if event.id.endswith("5") and ctx.attempt == 1:
                raise ValueError("not yet")
            await ctx.publish("custom.reply.queued", {{"to": event.id}})
            effect("handled", id=event.id)
    """
    fast = await scene.run(app.format(wrong=3_600, stuck_from=100), "fast")
    slow = await scene.run(app.format(wrong=-3_600, stuck_from=999), "slow")
    await scene.publish(300)
    await until(lambda: _running_in(scene, fast) == 4)
    fast.kill()  # its guards expire, whatever time is written in them
    await scene.handled(300)
    await scene.settled()

    account = await scene.ends("two workers, their clocks 1 h fast and slow, one killed")
    outputs = [json.loads(one.data)["payload"]["to"] for one in await stored(scene.plain, "CUSTOM")]
    assert sorted(outputs) == sorted(account.published)
    assert {one["worker"] for one in scene.stage.effects("handled")} == {fast.name, slow.name}
    ends = {one["id"]: one for one in scene.stage.effects("handled")}
    firsts = {one["id"]: one for one in reversed(scene.stage.effects("begun"))}
    gaps = [ends[id]["at"] - firsts[id]["at"] for id in ends if id.endswith("5")]
    assert 0.45 <= min(gaps) <= max(gaps) < 5
    assert await slow.stop() == 0


def _running_in(scene: Scene, worker: Worker) -> int:
    """How many events it began and will never end."""
    return sum(
        one["worker"] == worker.name and one["id"] > "event-000100"
        for one in scene.stage.effects("begun")
    )


async def test_a_blocked_loop_beside_a_second_worker(scene: Scene) -> None:
    app = """
        app = App("router")

        @app.on("message.received", durable="r1", concurrency=4, ack_wait=0.5, start_from="first")
        async def route(event, ctx):
            effect("begun", id=event.id, attempt=ctx.attempt)
            if event.id == "event-000010" and ctx.attempt == 1 and not os.path.exists("blocked"):
                open("blocked", "w").close()
                time.sleep(2)
            await asyncio.sleep(0.005)
            effect("handled", id=event.id)
    """
    await scene.run(app)
    await scene.run()
    await scene.publish(300)
    await scene.handled(300)
    await scene.settled()
    # Also the blocked one's own late ending: the row counts it.
    await until(lambda: scene.stage.ids("begun").count("event-000010") <= len(
        [one for one in scene.stage.ids("handled") if one == "event-000010"]))  # fmt: skip

    account = await scene.ends(
        "the loop blocked 4 × ack_wait, a second worker beside it",
        "doubles: what ran in the blocked process, or ended in the turn that blocked",
    )
    assert account.run_twice <= 2 * 4
    assert not account.lettered


async def test_a_worker_started_and_killed_before_it_is_ready_harms_nothing(scene: Scene) -> None:
    target = load()
    ids = await scene.publish(300)
    for pause in (0.2, 0.35, 0.5, 0.6, 0.7):
        worker = scene.spawn(target)
        await asyncio.sleep(pause)  # the fault itself: somewhere in its start
        worker.kill()
    await scene.run()
    await scene.handled(len(ids))
    await scene.settled()

    account = await scene.ends("kill -9 at 5 moments of the start")
    assert account.run_twice <= 5 * 8


async def test_a_stop_under_load_costs_nothing(scene: Scene) -> None:
    app = load(work=0.05, concurrency=10)
    one, two = await scene.run(app), await scene.run()
    feed = asyncio.create_task(scene.publish(2_000, every=0.05))
    await scene.handled(150)
    for _ in range(3):
        assert await one.stop() == 0
        one, two = two, await scene.run()
    await feed
    await scene.handled(2_000)
    await scene.settled()

    account = await scene.ends("rolling restarts: 3 × SIGTERM under load")
    assert account.run_twice == 0
    assert not account.lettered
    for worker in scene.stage.workers:
        assert "never ended" not in worker.said()
    assert await one.stop() == await two.stop() == 0

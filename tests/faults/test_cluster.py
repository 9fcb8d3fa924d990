"""Three nodes, R3 streams: leaders are killed, and neither an event nor an ack goes with them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import product
from pathlib import Path

from ..processes.support import Stage, consumer, plain_client
from ..transports.suite.backend import consume, make_consumer, make_stream, publish
from .accounts import Row
from .scene import QUICK, Scene, load
from .servers import Cluster, pause, resume

HELD = 8 + 16  # concurrency and prefetch
ANY = """
app = App("plain")

@app.on("message.received", durable="r1")
async def handle(event):
    effect("handled", id=event.id)
"""
LONGEST_STALL = 30.0  # seconds: an election, a hung link noticed, and 200 to 300 events


async def test_leaders_killed_under_load(tmp_path: Path, rows: list[Row]) -> None:
    with Cluster(tmp_path) as cluster:
        async with _scene(tmp_path, cluster, rows) as scene:
            # ack_wait outlasts an election: nobody can extend a lease while there is no leader.
            await scene.run(load(work=0.005, ack_wait=15, prefetch=16), replicas=3)
            await scene.run(replicas=3)
            stalls = []
            async with scene.publishing(every=0.1):
                for lead in ("r1", "", "r1"):  # the consumer's leader, the stream's
                    await scene.more_handled(300)
                    name = await cluster.leader(scene.plain, "MESSAGE", lead)
                    cluster.nodes[name].kill()
                    killed = time.monotonic()
                    await scene.more_handled(200)
                    stalls.append(time.monotonic() - killed)
                    cluster.nodes[name].start()
                    await cluster.healed(scene.plain, "MESSAGE")
            await scene.handled(len(scene.confirmed), timeout=60)
            await scene.settled()

            account = await scene.ends(
                "3 nodes, R3: consumer's, stream's, consumer's leader kill -9",
                f"2 workers; 200 further events after {max(stalls):.1f} s at most",
            )
            # What was held when its leader died, and its lease or ack with it, may run in the
            # other process again; nothing runs twice in one.
            assert account.run_twice <= 3 * 2 * HELD
            assert not scene.run_again_in_one_process()
            assert not account.lettered
            assert max(stalls) < LONGEST_STALL


async def test_a_worker_started_before_there_is_a_leader_waits_for_one(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    first, *others = cluster.nodes.values()
    with ExitStack() as stack, Stage(tmp_path, cluster.url) as stage:
        stack.enter_context(first)
        worker = stage.spawn(stage.app(ANY), reconnect_max_retries="none")
        await worker.until_said("JetStream does not answer")

        for node in others:
            stack.enter_context(node)

        await worker.ready(timeout=60)
        assert await worker.stop() == 0


async def test_leaders_stopped_in_good_order(tmp_path: Path, rows: list[Row]) -> None:
    """A rolling update of the cluster: SIGTERM, and SIGUSR2 (lame duck), of whoever leads."""
    with Cluster(tmp_path) as cluster:
        async with _scene(tmp_path, cluster, rows) as scene:
            worker = await scene.run(load(work=0.005, ack_wait=15, prefetch=16), replicas=3)
            stalls = []
            async with scene.publishing(every=0.1):
                for how, lead in product((signal.SIGTERM, signal.SIGUSR2), ("r1", "")):
                    await scene.more_handled(300)
                    name = await cluster.leader(scene.plain, "MESSAGE", lead)
                    process = cluster.nodes[name].process
                    assert process is not None
                    process.send_signal(how)
                    asked = time.monotonic()
                    await scene.more_handled(200)
                    stalls.append(time.monotonic() - asked)
                    cluster.nodes[name].stop()
                    cluster.nodes[name].start()
                    await cluster.healed(scene.plain, "MESSAGE")
            await scene.handled(len(scene.confirmed), timeout=60)
            await scene.settled()

            account = await scene.ends(
                "3 nodes, R3: leaders SIGTERM 2 ×, lame duck 2 ×",
                f"200 further events after {max(stalls):.1f} s at most",
            )
            assert account.run_twice == 0
            assert not account.lettered
            assert max(stalls) < LONGEST_STALL / 2  # without a wait for missed heartbeats
            assert worker.messages("error") == []
            assert await worker.stop() == 0


async def test_a_confirmed_ack_outlives_the_leader_that_confirmed_it(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        async with _scene(tmp_path, cluster, []) as scene:
            plain, transport = scene.plain, scene.bus.transport
            await make_stream(transport, num_replicas=3)
            await make_consumer(transport)
            for kills in range(1, 4):
                await publish(transport, *(f"{kills}-{number}" for number in range(20)))
                source, recorder = await consume(transport, 20)
                deliveries = await recorder.wait(20)
                name = await cluster.leader(plain, "S", "c")

                confirmed = await asyncio.gather(*(delivery.confirm() for delivery in deliveries))
                cluster.nodes[name].kill()

                assert all(confirmed)
                await cluster.leader(plain, "S", "c")
                assert (await consumer(plain, "c", "S"))["ack_floor"]["stream_seq"] == 20 * kills
                await source.close()
                cluster.nodes[name].start()
                await cluster.healed(plain, "S")


async def test_a_leader_that_hangs(tmp_path: Path, rows: list[Row]) -> None:
    with Cluster(tmp_path) as cluster:
        async with _scene(tmp_path, cluster, rows) as scene:
            await scene.run(load(work=0.005, ack_wait=30), replicas=3)
            feed = asyncio.create_task(scene.publish(1_500, every=0.05))
            await scene.handled(300)
            name = await cluster.leader(scene.plain, "MESSAGE")
            pause(cluster.nodes[name])
            hung = time.monotonic()
            try:
                await scene.more_handled(300)
            finally:
                stall = time.monotonic() - hung
                resume(cluster.nodes[name])
            await feed
            await scene.handled(1_500, timeout=60)
            await scene.settled()

            account = await scene.ends(
                "3 nodes, R3: the stream's leader hangs (SIGSTOP)",
                f"300 further events after {stall:.1f} s",
            )
            assert account.run_twice == 0
            assert stall < LONGEST_STALL


@asynccontextmanager
async def _scene(tmp_path: Path, cluster: Cluster, rows: list[Row]) -> AsyncIterator[Scene]:
    client = await plain_client(cluster.url)
    try:
        await cluster.formed(client)
    finally:
        await client.close()
    async with Scene(tmp_path, cluster, rows, replicas=3) as scene:
        yield scene


async def test_workers_started_before_the_cluster_has_a_leader(
    tmp_path: Path, rows: list[Row]
) -> None:
    with Cluster(tmp_path) as cluster, Stage(tmp_path, cluster.url) as stage:
        # Not even JetStream's own leader is elected: what is asked now nobody ever answers.
        target = stage.app(load(), "early")
        early = [stage.spawn(target, replicas=3, **QUICK) for _ in range(2)]
        async with _scene(tmp_path, cluster, rows) as scene:
            for worker in early:
                await worker.ready(30)
            await scene.publish(300)
            await scene.handled(300)
            await scene.settled()

            account = await scene.ends("3 nodes, R3: workers started before any leader is elected")
            assert account.run_twice == 0

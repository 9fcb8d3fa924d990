"""Three nodes, R3 streams: leaders are killed, and neither an event nor an ack goes with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ..processes.support import Stage, plain_client
from .accounts import Row
from .scene import QUICK, Scene, load
from .servers import Cluster, pause, resume

HELD = 8 + 16  # concurrency and prefetch


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


async def test_a_leader_that_hangs(tmp_path: Path, rows: list[Row]) -> None:
    with Cluster(tmp_path) as cluster:
        async with _scene(tmp_path, cluster, rows) as scene:
            await scene.run(load(work=0.005, ack_wait=30), replicas=3)
            feed = asyncio.create_task(scene.publish(1_500, every=0.05))
            await scene.handled(300)
            name = await cluster.leader(scene.plain, "MESSAGE")
            pause(cluster.nodes[name])
            try:
                await scene.handled(800, timeout=60)
            finally:
                resume(cluster.nodes[name])
            await feed
            await scene.handled(1_500, timeout=60)
            await scene.settled()

            account = await scene.ends("3 nodes, R3: the stream's leader hangs (SIGSTOP)")
            assert account.run_twice == 0


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

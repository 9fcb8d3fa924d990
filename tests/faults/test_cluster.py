"""Three nodes, R3 streams: leaders are killed, and neither an event nor an ack goes with them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from omni_worker.server import NatsServer

from .accounts import Row
from .scene import Scene, load
from .servers import Cluster, pause, resume


async def test_leaders_killed_under_load(tmp_path: Path, rows: list[Row]) -> None:
    with Cluster(tmp_path) as cluster:
        # Scene speaks to the first node; its url names them all.
        async with _scene(tmp_path, cluster, rows) as scene:
            await scene.run(load(work=0.005, ack_wait=5), replicas=3)
            await scene.run(replicas=3)
            feed = asyncio.create_task(scene.publish(4_000, every=0.05))
            stalls = []
            for kills in range(3):
                await scene.handled(500 * (kills + 1))
                consumer = "" if kills == 1 else "r1"
                name = await cluster.leader(scene.plain, "MESSAGE", consumer)
                cluster.nodes[name].kill()
                killed = time.monotonic()
                seen = len(set(scene.stage.ids()))
                await scene.handled(seen + 100, timeout=60)
                stalls.append(time.monotonic() - killed)
                cluster.nodes[name].start()
                await cluster.healed(scene.plain, "MESSAGE")
            await feed
            await scene.handled(4_000, timeout=60)
            await scene.settled()

            account = await scene.ends(
                "3 nodes, R3: consumer's, stream's, consumer's leader kill -9",
                f"2 workers; 100 further events after {max(stalls):.1f} s at most",
            )
            assert account.run_twice <= 3 * 2 * 8 * 2
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


def _scene(tmp_path: Path, cluster: Cluster, rows: list[Row]) -> Scene:
    return Scene(tmp_path, _Nodes(cluster), rows, replicas=3)


class _Nodes(NatsServer):
    """The cluster as a scene's server: only its url is asked for."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(store=next(iter(cluster.nodes.values())).store)
        self._cluster = cluster

    @property
    def url(self) -> str:
        return self._cluster.urls

"""Links that delay, cut, swallow and go deaf: the server lives, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from omni_worker.nats_server import NatsServer

from ..waiting import until
from .accounts import Row
from .links import Link
from .scene import Scene, load
from .servers import pause, resume

NOTICED = 15.0 + 1.0  # seconds: the third ping is due, and what the machine needs


async def test_a_slow_link_costs_time_only(scene: Scene, nats_server: NatsServer) -> None:
    async with Link(nats_server.port) as link:
        worker = await scene.run(load(work=0.01, concurrency=20), url=link.url)
        link.delay = 0.2
        await scene.publish(1_000)
        await scene.handled(1_000)
        await scene.settled()

        account = await scene.ends("200 ms each way")
        assert account.run_twice == 0
        assert await worker.stop() == 0


BROKEN = ("connection lost", "cannot connect")


async def test_a_link_cut_in_the_middle_of_messages(scene: Scene, nats_server: NatsServer) -> None:
    async with Link(nats_server.port) as link:
        worker = await scene.run(load(work=0.002, concurrency=20), url=link.url)
        feed = asyncio.create_task(scene.publish(3_000, every=0.05))
        for cuts in range(12):
            link.cut_after(random.randrange(200, 20_000))
            await until(lambda cuts=cuts: link.cuts > cuts)
        await feed
        await scene.handled(3_000)
        await scene.settled()

        account = await scene.ends("cut mid-message 12 ×, at random bytes")
        assert account.run_twice == 0
        # A cut while it connects again is a try that failed.
        broken = [one for one in worker.messages() if one.startswith(BROKEN)]
        assert len(broken) >= 12
        assert worker.messages("error") == []
        assert await worker.stop() == 0


async def test_swallowed_acks_are_repaired_by_the_process_that_gave_them(
    scene: Scene, nats_server: NatsServer
) -> None:
    async with Link(nats_server.port) as link:
        worker = await scene.run(load(ack_wait=0.5), url=link.url)
        link.swallows_acks = True
        await scene.publish(500)
        await scene.handled(500)
        await until(lambda: link.swallowed >= 500)
        link.swallows_acks = False
        await scene.settled()

        account = await scene.ends("every ack swallowed, one worker", f"{link.swallowed} swallowed")
        assert account.run_twice == 0
        assert await worker.stop() == 0


async def test_acks_swallowed_beside_another_worker_run_there_again(
    scene: Scene, nats_server: NatsServer
) -> None:
    async with Link(nats_server.port) as link:
        await scene.run(load(ack_wait=0.5, work=0.02), url=link.url)
        await scene.run()
        link.swallows_acks = True
        await scene.publish(200)
        await scene.handled(200)
        link.swallows_acks = False
        await scene.settled()

        await scene.ends(
            "every ack of one of two workers swallowed",
            f"{link.swallowed} swallowed; doubles: redelivered to the other worker",
        )


async def test_a_deaf_link_and_a_hung_server_are_noticed(
    nats_server: NatsServer, tmp_path: Path, rows: list[Row]
) -> None:
    async def deaf() -> None:
        async with (
            Scene(tmp_path / "deaf", nats_server, rows) as scene,
            Link(nats_server.port) as link,
        ):
            worker = await scene.run(load(work=0.01, ack_wait=2), url=link.url)
            await scene.publish(2_000)
            await scene.handled(100)
            link.is_deaf = True
            try:
                await worker.until_said("connection lost", timeout=NOTICED)
            finally:
                link.is_deaf = False
            await scene.handled(2_000)
            await scene.settled()
            account = await scene.ends("the link goes deaf until noticed (nothing arrives, no FIN)")
            assert account.run_twice == 0
            assert sum("connection lost" in said for said in worker.messages()) == 1
            assert await worker.stop() == 0

    async def hung() -> None:
        with NatsServer(store=tmp_path / "hung-store") as server:
            async with Scene(tmp_path / "hung", server, rows) as scene:
                worker = await scene.run(load(work=0.01, ack_wait=2))
                await scene.publish(2_000)
                await scene.handled(100)
                pause(server)
                try:
                    await worker.until_said("connection lost", timeout=NOTICED)
                finally:
                    resume(server)
                await scene.handled(2_000)
                await scene.settled()
                account = await scene.ends("server SIGSTOP until noticed, SIGCONT")
                assert account.run_twice == 0
                assert sum("connection lost" in said for said in worker.messages()) == 1
                assert await worker.stop() == 0

    await asyncio.gather(deaf(), hung())

"""Servers that are full: by the stream's limit, the account's, the file system's."""

from __future__ import annotations

import asyncio
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omni_worker.errors import TransportError
from omni_worker.nats_server import NatsServer

from ..processes.support import api
from ..waiting import until
from .accounts import Row
from .scene import Scene, load
from .servers import configured

FILL = 4_096  # bytes of text in an event


def _large(number: int) -> dict[str, object]:
    return {
        "externalId": f"x{number}", "chatId": "c", "from": "u",
        "content": {"type": "text", "text": "x" * FILL},
    }  # fmt: skip


async def _fill(scene: Scene, count: int) -> tuple[int, str]:
    """Publish until the server takes no more; returns how many it took and what it said."""
    for number in range(count):
        try:
            await scene.bus.publish(
                "message.received", _large(number), channel="whatsapp", instance="wa-1",
                id=f"fill-{number:06}", timeout=1.0,
            )  # fmt: skip
        except TransportError as error:
            return number, str(error)
        scene.confirmed.add(f"fill-{number:06}")
    raise AssertionError(f"the server took all {count}")


async def test_a_stream_at_its_limit_refuses_loudly_and_workers_go_on(scene: Scene) -> None:
    config = (await api(scene.plain, "STREAM.INFO.MESSAGE"))["config"]
    config |= {"max_bytes": 400_000, "discard": "new"}
    assert "error" not in await api(scene.plain, "STREAM.UPDATE.MESSAGE", config)
    took, said = await _fill(scene, 500)
    worker = await scene.run(load())
    await scene.handled(took)
    waiting = asyncio.create_task(
        scene.bus.publish("message.received", _large(0), id="patient", timeout=20)
    )
    refused, _ = await asyncio.wait([waiting], timeout=1)  # the fault itself: there is no room
    assert not refused

    config |= {"max_bytes": 4_000_000}
    assert "error" not in await api(scene.plain, "STREAM.UPDATE.MESSAGE", config)
    scene.confirmed.add((await waiting).id)  # it was tried again until there was room
    await scene.handled(took + 1)
    await scene.settled()

    account = await scene.ends("max_bytes reached, discard new, then raised", _shortly(said))
    assert "maximum bytes exceeded (10077)" in said
    assert account.run_twice == 0
    assert await worker.stop() == 0


async def test_a_servers_store_at_its_limit(tmp_path: Path, rows: list[Row]) -> None:
    server = configured(tmp_path / "server", "jetstream { max_file_store: 600KB }")
    with server:
        async with Scene(tmp_path, server, rows) as scene:
            worker = await scene.run(load())
            took, said = await _fill(scene, 500)
            await scene.handled(took)
            await scene.settled()
            # Operations make room: what is handled may go.
            await api(scene.plain, "STREAM.PURGE.MESSAGE", {"keep": 10})
            scene.destroyed |= scene.confirmed
            await scene.publish(50)
            await scene.handled(took + 50)
            await scene.settled()

            account = await scene.ends("max_file_store reached, then room made", _shortly(said))
            assert "resource" in said.lower() or "insufficient" in said.lower() or "exceed" in said
            assert account.run_twice == 0
            assert await worker.stop() == 0


async def test_a_servers_files_may_not_grow(scene: Scene, nats_server: NatsServer) -> None:
    worker = await scene.run(load())
    await scene.publish(100)
    await scene.handled(100)
    assert nats_server.process is not None
    resource.prlimit(nats_server.process.pid, resource.RLIMIT_FSIZE, (300_000, 300_000))
    took, said = await _fill(scene, 500)

    # What the server did about it differs by version; it comes back without the limit.
    nats_server.kill()
    nats_server.start()
    await scene.publish(100)
    await scene.handled(200 + took)
    await scene.settled()

    account = await scene.ends("server's files limited (RLIMIT_FSIZE), restarted", _shortly(said))
    assert account.run_twice == 0
    assert await worker.stop() == 0


@contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs is not allowed here; RLIMIT_FSIZE stands for it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk(tmp_path: Path, rows: list[Row]) -> None:
    with _small_disk(tmp_path / "disk", "6m") as disk:
        ballast = disk / "ballast"
        with NatsServer(store=disk / "store") as server:
            async with Scene(tmp_path, server, rows) as scene:
                worker = await scene.run(load(work=0.02))
                await scene.publish(400)
                await scene.handled(20)
                _fill_disk(ballast)
                took, said = await _fill(scene, 2_000)
                await scene.handled(400 + took)  # what is stored is handled meanwhile
                ballast.unlink()
                server.kill()
                server.start()
                await until(lambda: scene.bus.is_connected)
                await scene.publish(100)
                await scene.handled(500 + took)
                await scene.settled()

                account = await scene.ends("disk full, room made, restarted", _shortly(said))
                assert account.run_twice == 0
                assert await worker.stop() == 0


def _fill_disk(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4_096)
        except OSError:
            return


def _shortly(said: str) -> str:
    """The server's part of what a publisher is told."""
    return said.partition(": ")[2].partition(";")[0].replace("not published, ", "").strip()

"""Dev's server: one of its own on the usual port, and nobody else's without being told."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from omni_worker import EventBus
from omni_worker.nats_server import LOOPBACK, NatsServer

from ..ports import free_port
from ..waiting import until
from .support import Project
from .test_reload import MESSAGE, app
from .test_stopping import children


@pytest.fixture
def port() -> int:
    """One that is free."""
    return free_port()


async def test_its_server_takes_the_port_and_keeps_its_data(project: Project, port: int) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--port", str(port))
    assert "data in .omni-worker/dev, kept between runs" in dev.said()
    await publish(f"nats://{LOOPBACK}:{port}", "one")
    await project.stage.until_effects(1, "handled")
    await dev.stop()
    again = await project.dev("--port", str(port))

    sequence = await publish(f"nats://{LOOPBACK}:{port}", "two")

    assert sequence == 2
    await project.stage.until_effects(2, "handled")
    assert project.stage.ids() == ["one", "two"]
    assert await again.stop() == 0


async def test_ephemeral_leaves_nothing_behind(project: Project, port: int) -> None:
    project.write(app(0))
    dev = await project.dev("--port", str(port), "--ephemeral")

    await dev.stop()

    assert not (project.folder / ".omni-worker").exists()


async def test_a_running_nats_server_is_not_touched(
    project: Project, nats_server: NatsServer
) -> None:
    project.write(app(0))
    dev = await project.dev("--port", str(nats_server.port))

    assert f"listens on port {nats_server.port} already: not touched" in dev.said()
    assert f"own on {nats_server.url}" not in dev.said()
    async with EventBus(nats_server.url) as bus:
        consumers = await bus.transport.operators.stream_info("MESSAGE")
    assert consumers is None or consumers.state.consumers == 0


async def test_a_running_nats_server_is_used_when_told_to(
    project: Project, nats_server: NatsServer
) -> None:
    project.write(app(0))
    dev = await project.dev("--port", str(nats_server.port), "--use-running")

    await publish(nats_server.url, "one")

    await project.stage.until_effects(1, "handled")
    assert "using nats-server" in dev.said()
    assert not (project.folder / ".omni-worker").exists()


async def test_use_running_without_a_server_is_said(project: Project, port: int) -> None:
    project.write(app(0))
    dev = project.spawn("--port", str(port), "--use-running")

    assert await dev.exit() == 1
    assert "nothing that speaks NATS listens" in dev.said()


async def test_a_port_taken_by_something_else_is_said(project: Project) -> None:
    project.write(app(0))
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        dev = await project.dev("--port", str(port))

    assert f"port {port} is taken by something that does not speak NATS" in dev.said()


async def test_a_second_dev_in_the_same_project_is_refused(project: Project, port: int) -> None:
    project.write(app(0))
    first = await project.dev("--port", str(port))
    second = project.spawn("--port", str(port))

    assert await second.exit() == 1
    assert f"another dev (pid {first.process.pid}) runs in this project" in second.said()


async def test_a_server_that_crashes_is_started_again_with_its_data(
    project: Project, port: int
) -> None:
    project.write(app(0, "r1"))
    dev = await project.dev("--port", str(port))
    url = f"nats://{LOOPBACK}:{port}"
    await publish(url, "one")
    server = next(
        pid
        for pid in children(dev.process.pid)
        if Path(f"/proc/{pid}/comm").read_text().startswith("nats-server")
    )

    os.kill(server, signal.SIGKILL)

    await dev.until_said("started again")
    await publish(url, "two")
    await until(lambda: {"one", "two"} <= set(project.stage.ids()))


async def test_payloads_are_shown_only_when_asked_for(project: Project, port: int) -> None:
    project.write(app(0))
    dev = await project.dev("--port", str(port), "--payloads")
    await publish(f"nats://{LOOPBACK}:{port}", "one")
    await dev.until_said(json.dumps(MESSAGE)[:50])
    await dev.stop()
    silent = await project.dev("--port", str(port))

    await publish(f"nats://{LOOPBACK}:{port}", "two")

    await silent.until_said("→ message.received whatsapp/wa-001  ✓ route")
    assert "ana" not in silent.said()
    assert "\x1b" not in silent.said()


async def publish(url: str, id: str) -> int:
    """One event from another program; returns its sequence."""
    async with EventBus(url, name="publisher") as bus:
        published = await bus.publish(
            "message.received", MESSAGE, channel="whatsapp", instance="wa-001", id=id
        )
    return published.sequence

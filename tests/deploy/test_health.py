"""Health: probes are green when all is well, and red within seconds, with the reason, when not."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess

from nats.aio.client import Client

from omni_worker.nats_server import NatsServer

from ..processes.support import (
    PROGRAM,
    Stage,
    api,
    clean_environment,
    make_stream,
    publish_foreign,
)
from .support import Running, probe, probe_fully, until_probed

APP = """
app = App("play")


def wait_for(name):
    effect("begun")
    while not os.path.exists(name):
        time.sleep(0.01)


@app.on("message.received", durable="r1")
async def route(event):
    wait_for("go-on")
    effect("handled")
"""


async def run(stage: Stage, port: int, source: str = APP, **env: str) -> Running:
    """A worker that answers probes, once it is ready."""
    worker = Running(stage, stage.app(source), "--health-port", str(port), **env)
    await worker.ready()
    return worker


def check(port: int, *options: str) -> subprocess.CompletedProcess[str]:
    """`omni-worker check`."""
    return subprocess.run(
        [PROGRAM, "check", "--health-port", str(port), *options],
        env=clean_environment(), text=True, capture_output=True, timeout=20, check=False,
    )  # fmt: skip


async def test_a_worker_that_is_well_is_green(stage: Stage, free_port: int) -> None:
    worker = await run(stage, free_port)

    assert probe(free_port, "/healthz") == (200, [])
    code, said = probe_fully(free_port, "/readyz")
    assert (code, said["status"], said["pid"]) == (200, "ok", worker.pid)
    [handler] = said["handlers"]
    assert handler["handler"] == "r1"
    assert handler["consumers"] == [{"stream": "MESSAGE", "consumer": "r1"}]


async def test_before_it_is_connected_it_is_alive_and_not_ready(
    stage: Stage, free_port: int
) -> None:
    target = stage.app(APP)
    Running(stage, target, "--health-port", str(free_port), url="nats://127.0.0.1:1")

    assert await until_probed(free_port, "/readyz", 503) == "starting"

    assert probe(free_port, "/healthz") == (200, [])


async def test_a_blocked_loop_is_red_and_said_with_the_handlers_name(
    stage: Stage, free_port: int, plain: Client
) -> None:
    worker = await run(stage, free_port)

    await publish_foreign(plain, 1)
    reasons = await until_probed(free_port, "/healthz", 503)

    assert re.fullmatch(
        r"the event loop is blocked for \d\.\d s by handler r1 \(play.py:\d+ in wait_for\)", reasons
    )
    assert probe(free_port, "/readyz")[0] == 503
    await worker.until_said("the event loop is blocked by handler r1 (play.py:")
    (stage.folder / "go-on").touch()
    await until_probed(free_port, "/healthz", 200)
    await until_probed(free_port, "/readyz", 200)
    await worker.until_said("the event loop turns again after")
    assert len([one for one in worker.messages() if "event loop" in one]) == 2


async def test_a_consumer_that_is_gone_is_red(stage: Stage, free_port: int, plain: Client) -> None:
    worker = await run(stage, free_port)

    # A stream of somebody else stands in the way, so it cannot be made again.
    worker.signal(signal.SIGSTOP)
    await api(plain, "STREAM.DELETE.MESSAGE")
    await make_stream(plain, "THEIRS", "message.received.whatsapp.>")
    worker.signal(signal.SIGCONT)
    # The server's words about the two come one after the other.
    await until_probed(free_port, "/readyz", 503, "handler r1: 2 consumers are not bound")

    assert worker.is_running
    # Being stopped by somebody is not being blocked by a handler.
    assert not [one for one in worker.messages() if "event loop" in one]


async def test_a_lost_server_is_red_until_it_is_back(
    stage: Stage, free_port: int, nats_server: NatsServer
) -> None:
    await run(stage, free_port, OMNI_WORKER_RECONNECT_MAX_DELAY="0.5",
              OMNI_WORKER_RECONNECT_MAX_RETRIES="1000")  # fmt: skip

    nats_server.kill()
    await until_probed(free_port, "/readyz", 503, f"not connected to {nats_server.url}")
    assert probe(free_port, "/healthz")[0] == 200  # a blip is no reason to be restarted
    await until_probed(free_port, "/healthz", 503, f"not connected to {nats_server.url}")

    nats_server.start()
    await until_probed(free_port, "/healthz", 200)
    await until_probed(free_port, "/readyz", 200)


async def test_a_server_that_hangs_is_red(
    stage: Stage, free_port: int, nats_server: NatsServer
) -> None:
    await run(stage, free_port)
    assert nats_server.process is not None

    nats_server.process.send_signal(signal.SIGSTOP)  # the connection stands, and nobody speaks
    try:
        reasons = await until_probed(free_port, "/healthz", 503)
    finally:
        nats_server.process.send_signal(signal.SIGCONT)

    assert "handler r1: nothing heard of consumer r1 on MESSAGE for" in reasons
    await until_probed(free_port, "/healthz", 200)


async def test_a_lapsed_lease_is_red(stage: Stage, free_port: int, plain: Client) -> None:
    source = """
app = App("play")


@app.on("message.received", durable="r1", ack_wait=1, concurrency=1, prefetch=0)
async def route(event):
    time.sleep(2)
    effect("begun")
    while not os.path.exists("go-on"):
        await asyncio.sleep(0.01)
"""
    await run(stage, free_port, source)

    await publish_foreign(plain, 1)
    await stage.until_effects(1, "begun")

    assert "handler r1: 1 lease lapsed" in await until_probed(free_port, "/healthz", 503, "lapsed")
    (stage.folder / "go-on").touch()
    await until_probed(free_port, "/healthz", 200)


async def test_a_worker_that_stops_is_alive_and_not_ready(
    stage: Stage, free_port: int, plain: Client
) -> None:
    source = APP.replace("time.sleep(0.01)", "pass").replace(
        'wait_for("go-on")', 'effect("begun")\n    await asyncio.sleep(3)'
    )
    worker = await run(stage, free_port, source)
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "begun")

    stopping = asyncio.create_task(worker.stop())

    assert await until_probed(free_port, "/readyz", 503) == "stopping"
    assert probe(free_port, "/healthz") == (200, [])
    assert await stopping == 0


async def test_check_is_for_exec_probes(stage: Stage, free_port: int) -> None:
    assert check(free_port).returncode == 1
    assert "no worker answers on 127.0.0.1" in check(free_port).stderr

    Running(stage, stage.app(APP), "--health-port", str(free_port), url="nats://127.0.0.1:1")
    await until_probed(free_port, "/readyz", 503)

    alive, ready = check(free_port), check(free_port, "--ready")
    assert (alive.returncode, alive.stderr) == (0, "")
    assert re.fullmatch(r"alive, pid \d+, for \d+ s\n", alive.stdout)
    assert (ready.returncode, ready.stdout, ready.stderr) == (1, "", "omni-worker: starting\n")


async def test_a_taken_port_is_said_and_ends_it(stage: Stage, free_port: int) -> None:
    await run(stage, free_port)

    second = Running(stage, "play:app", "--health-port", str(free_port))

    assert await second.exit() == 1
    assert f"--health-port {free_port} on 127.0.0.1" in second.said()

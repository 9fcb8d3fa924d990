"""Long retries, with workers and servers killed at each point of their way."""

from __future__ import annotations

from typing import Any

from omni_worker.nats_server import NatsServer
from omni_worker.schedules.retries import due_filter, waiting_filter
from omni_worker.topology import OWN_STREAM

from ..waiting import until
from .scene import Scene

AGAIN = "router-again"
QUICK: dict[str, Any] = {"long_retry": 0.5}

# The first worker dies at a named place; `failing` says how often each event fails.
APP = """
import pathlib

app = App("router")


def die_once():
    mark = pathlib.Path(__file__).with_name("died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


{dies}


@app.on("message.received", durable="r1", start_from="first", ack_wait=1, concurrency={concurrency},
        retry=RetryPolicy(retries=2, delay={delay}, factor=1, jitter=0))
async def route(event, ctx):
    effect("begun", id=event.id, attempt=ctx.attempt)
    if ctx.attempt <= {failing}:
        raise Retry("it is down")
    effect("handled", id=event.id)
"""

STORED = """
from omni_worker.long_retries import HandlerRetries

keep = HandlerRetries.keep

async def keep_and_die(self, *given, **options):
    kept = await keep(self, *given, **options)
    die_once()
    return kept

HandlerRetries.keep = keep_and_die
"""
NOTED = """
from omni_worker.long_retries import HandlerRetries

keep = HandlerRetries.keep

async def die_and_keep(self, *given, **options):
    die_once()
    return await keep(self, *given, **options)

HandlerRetries.keep = die_and_keep
"""
SHORT_LEASE = """
from omni_worker.schedules import retries

retries.AGAIN_ACK_WAIT = 1.0
"""
DELIVERED = """
from omni_worker.due_retries import DueRetries

read = DueRetries._read

def read_and_die(self, delivery):
    die_once()
    return read(self, delivery)

DueRetries._read = read_and_die
"""


def app(dies: str, *, failing: int = 1, delay: float = 3, concurrency: int = 8) -> str:
    return APP.format(dies=dies, failing=failing, delay=delay, concurrency=concurrency)


async def stored(scene: Scene, filter: str) -> int:
    operators, found, after = scene.bus.transport.operators, 0, 0
    if await operators.stream_info(OWN_STREAM.name) is None:
        return 0
    while message := await operators.next_message(OWN_STREAM.name, after + 1, filter):
        found, after = found + 1, message.sequence
    return found


async def is_settled(scene: Scene) -> bool:
    look = scene.bus.transport.operators.consumer_info
    found = [await look("MESSAGE", "r1"), await look(OWN_STREAM.name, AGAIN)]
    return not any(one and (one.num_pending or one.num_ack_pending) for one in found)


def runs(scene: Scene) -> list[tuple[str, int]]:
    return sorted((one["id"], one["attempt"]) for one in scene.stage.effects("begun"))


async def until_begun(scene: Scene, count: int) -> None:
    await until(lambda: len(scene.stage.effects("begun")) >= count, timeout=60)


async def test_killed_between_schedule_and_ack_the_event_is_recognised(scene: Scene) -> None:
    worker = scene.spawn(app(STORED), **QUICK)
    [id] = await scene.publish(1)
    await until(lambda: not worker.is_running)
    assert await stored(scene, waiting_filter("router")) == 1

    await scene.run(**QUICK)
    await scene.handled(1)
    await until(lambda: is_settled(scene))

    assert runs(scene) == [(id, 1), (id, 2)]
    assert await stored(scene, due_filter("router")) == 1


async def test_killed_between_schedule_and_ack_and_started_when_it_was_due(scene: Scene) -> None:
    worker = scene.spawn(app(STORED, delay=1), **QUICK)
    [id] = await scene.publish(1)
    await until(lambda: not worker.is_running)
    await until(lambda: stored(scene, due_filter("router")))

    await scene.run(**QUICK)
    await scene.handled(1)
    await until(lambda: is_settled(scene))

    assert runs(scene) == [(id, 1), (id, 2)]


async def test_killed_before_the_schedule_the_event_itself_comes_again(scene: Scene) -> None:
    worker = scene.spawn(app(NOTED), **QUICK)
    [id] = await scene.publish(1)
    await until(lambda: not worker.is_running)
    assert await stored(scene, waiting_filter("router")) == 0

    await scene.run(**QUICK)
    await scene.handled(1)

    await until(lambda: is_settled(scene))
    assert runs(scene) == [(id, 1), (id, 2)]


async def test_killed_when_it_is_due_and_before_it_runs_it_comes_again(scene: Scene) -> None:
    worker = scene.spawn(app(SHORT_LEASE + DELIVERED, delay=1), **QUICK)
    [id] = await scene.publish(1)
    await until(lambda: not worker.is_running)

    await scene.run(**QUICK)
    await scene.handled(1)
    await until(lambda: is_settled(scene))

    assert runs(scene) == [(id, 1), (id, 2)]


async def test_workers_killed_again_and_again_while_retries_wait_and_come_back(
    scene: Scene,
) -> None:
    source = app(SHORT_LEASE, failing=2, delay=1, concurrency=8)
    workers = [await scene.run(source, **QUICK), await scene.run(**QUICK)]
    ids = await scene.publish(400, every=0.1)

    for kills in range(6):
        await until_begun(scene, 150 * (kills + 1))
        workers[kills % 2].kill()
        workers[kills % 2] = scene.spawn(**QUICK)
    await scene.handled(len(ids), timeout=60)
    await until(lambda: is_settled(scene), timeout=60)

    assert {one["id"] for one in scene.stage.effects("handled")} == set(ids)
    extra = len(runs(scene)) - 3 * len(ids)
    assert 0 <= extra <= 6 * 2 * 8 + 6 * 8, f"{extra} runs more than three each"


async def test_a_server_killed_while_retries_wait_loses_none(
    scene: Scene, nats_server: NatsServer
) -> None:
    await scene.run(app("", delay=2), **QUICK)
    ids = await scene.publish(50)
    await until(lambda: stored(scene, waiting_filter("router")))
    await until(lambda: len(runs(scene)) >= 50)

    nats_server.kill()
    nats_server.start()
    await scene.handled(50)

    assert {one["id"] for one in scene.stage.effects("handled")} == set(ids)
    assert max(attempt for _, attempt in runs(scene)) <= 3

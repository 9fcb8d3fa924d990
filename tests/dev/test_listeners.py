"""Listeners: `dev` and `run --log-level debug` print their lines beside a user's own listener."""

from __future__ import annotations

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer

from .support import Project

APP = """
from omni_worker.signals import Signal

app = App("router")


@app.listen
def count(signal: Signal) -> None:
    effect(type(signal).__name__)


@app.on("custom.note", durable="notes")
async def note(event):
    if event.payload == "never":
        raise Reject("no")
    await app.publish("custom.noted", {})
"""


async def test_dev_shows_each_event_beside_a_users_listener(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(APP)
    dev = await project.dev(url=nats_server.url)

    await bus.publish("custom.note", {})

    await dev.until_said("custom.note  ✓ note")
    await project.stage.until_effects(1, "RunFinished")


async def test_run_on_level_debug_logs_each_run_beside_a_users_listener(
    project: Project, bus: EventBus, nats_server: NatsServer
) -> None:
    project.write(APP)
    worker = project.stage.spawn("play:app", "--log-level", "debug", url=nats_server.url)
    await worker.ready()

    await bus.publish("custom.note", {})
    await bus.publish("custom.note", "never")

    await worker.until_said("handled")
    await worker.until_said("dead letter")
    await project.stage.until_effects(2, "RunFinished")
    await project.stage.until_effects(1, "DeadLettered")
    await project.stage.until_effects(2, "PublishConfirmed")  # a note, and the dead letter
    assert {"Connected", "Ready"} <= {one["what"] for one in project.stage.effects()}
    assert await worker.stop() == 0

"""A worker killed while a consumer of ours is deleted and recreated: the next one goes on there."""

from __future__ import annotations

import pytest

from ..processes.support import api
from .scene import Scene

# A worker that dies at one moment of what follows from a look at its consumer. The first look is
# after event 19: what another process settles between a look and a death is not known to the next.
APP = """
from omni_worker import bus
from omni_worker.transports.jetstream.api import Api

bus.REFRESH = 1_000.0
app = App("router")

def die_at(name, when):
    done = getattr(Api, name)

    async def die(self, *what):
        if when == "after":
            await done(self, *what)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(Api, name, die)

@app.on("message.received", durable="r1", ack_wait=1, retry_delay=0.1)
async def route(event, ctx):
    number = int(event.id.removeprefix("event-"))
    if number == 0:
        raise Retry(after=50)  # so that the server's ack floor stays low
    if number % 10 == 1 and ctx.attempt == 1:
        raise RuntimeError("once")
    effect("handled", id=event.id)
    if number == 9:
        {mortal}
    if number == 19:
        bus.REFRESH = 1.0
"""


@pytest.mark.parametrize(
    "moment", ["before delete", "after delete", "before create", "after create"]
)
async def test_a_worker_killed_while_it_recreates_its_consumer_loses_and_doubles_nothing(
    scene: Scene, moment: str
) -> None:
    when, what = moment.split()
    worker = await scene.run(APP.format(mortal=f"die_at('{what}_consumer', '{when}')"))
    await scene.publish(10)
    await scene.handled(9)

    if what == "delete":  # by us: what is delivered from now on and fails never comes again
        info = await api(scene.plain, "CONSUMER.INFO.MESSAGE.r1")
        edited = {**info["config"], "max_deliver": 1}
        update = {"stream_name": "MESSAGE", "config": edited, "action": "update"}
        await api(scene.plain, "CONSUMER.CREATE.MESSAGE.r1", update)
        await scene.publish(10)
    else:
        await scene.plain.jetstream().delete_consumer("MESSAGE", "r1")
    assert await worker.exit() == -9
    await scene.publish(10)
    after = await scene.run(APP.format(mortal="pass"))

    await scene.handled(29 if what == "delete" else 19)
    account = await scene.account()
    assert account.waiting == {"event-000000"}
    assert account.ended_twice == 0
    assert await after.stop() == 0

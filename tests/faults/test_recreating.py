"""A worker killed while a consumer of ours is deleted and recreated: the next one goes on there."""

from __future__ import annotations

import pytest

from ..processes.support import api
from ..waiting import until
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


# Event 1 fails, events 2 to 9 run until the process is killed, and nobody looks at the consumer.
LIMITED = """
from omni_worker import bus

bus.REFRESH = {refresh}
app = App("router")

@app.on("message.received", durable="r1", ack_wait={lease}, retry_delay=0.1)
async def route(event, ctx):
    number = int(event.id.removeprefix("event-"))
    effect("begun", id=event.id)
    if {mortal} and number == 1:
        raise RuntimeError("once")
    while {mortal} and number > 1:
        await asyncio.sleep(1)  # it hangs until it is killed
    effect("handled", id=event.id)
"""


@pytest.mark.parametrize(("next_one", "lease"), [("at once", 4), ("later", 1)])
async def test_what_max_deliver_stranded_comes_again_though_no_process_lives_that_saw_it(
    scene: Scene, next_one: str, lease: int
) -> None:
    worker = await scene.run(LIMITED.format(refresh=1_000.0, lease=lease, mortal=True))
    await scene.publish(1)
    await scene.handled(1)
    info = await api(scene.plain, "CONSUMER.INFO.MESSAGE.r1")
    edited = {**info["config"], "max_deliver": 1}
    update = {"stream_name": "MESSAGE", "config": edited, "action": "update"}
    await api(scene.plain, "CONSUMER.CREATE.MESSAGE.r1", update)
    await scene.publish(9)
    await scene.stage.until_effects(10, "begun")
    worker.kill()

    if next_one == "later":
        await until(lambda: is_pending(scene, 0))
    after = await scene.run(LIMITED.format(refresh=1.0, lease=lease, mortal=False))
    if next_one == "at once":  # what is acked now moves the floor past all that was given up
        await until(lambda: is_pending(scene, 0))
        await scene.publish(5)

    await scene.handled(15 if next_one == "at once" else 10)
    account = await scene.account()
    assert account.waiting == set()
    assert account.ended_twice == 0
    assert await after.stop() == 0


async def is_pending(scene: Scene, count: int) -> bool:
    """Return True if so many deliveries are not answered."""
    info = await api(scene.plain, "CONSUMER.INFO.MESSAGE.r1")
    return bool(info["num_ack_pending"] == count)

"""Events that were running when their process died: who waits for them, and how often they run."""

from __future__ import annotations

import asyncio
import signal
import time
from itertools import pairwise
from typing import Any

import pytest

from ..processes.support import Worker, api
from ..waiting import until
from .scene import Scene, load

READING = """
def look(n):
    if n == 3:
        {death}
    return n

class Thing(BaseModel):
    n: int
    {validator}

app = App("router")

@app.on("custom.thing", durable="r1", start_from="first", ack_wait=1, concurrency=4,
        retry_delay=0.1{order})
async def route(event: Event[Thing]):
    effect("handled", id=event.id)
"""
VALIDATOR = "from pydantic import field_validator; _ = field_validator('n')(lambda v: look(v))"
ORDER = ", order_by=lambda event: look(event.payload.n)"


async def test_after_one_kill_everything_goes_on_side_by_side(scene: Scene) -> None:
    worker = await scene.run(load(work=1.0, concurrency=50, ack_wait=3))
    await scene.publish(100)
    await scene.stage.until_effects(50, "begun")

    worker.kill()
    killed = time.monotonic()
    await scene.run()
    await scene.publish(100)
    await scene.handled(200, timeout=60)
    await scene.settled()

    last = max(one["at"] for one in scene.stage.effects("handled")) - killed
    account = await scene.ends(
        "kill -9: concurrency 50, a handler of 1 s", f"all 200 within {last:.1f} s"
    )
    assert last < 20
    assert not account.lettered


async def test_after_the_kill_of_one_of_two_workers_new_events_go_on_beside_what_it_held(
    scene: Scene,
) -> None:
    victim = await scene.run(load(work=1.0, concurrency=50, ack_wait=3))
    await scene.run()
    await scene.publish(100)
    async with scene.publishing(every=0.2, count=4):  # a fifth of what both can handle
        await until(lambda: len(_running(scene, victim)) >= 20)
        held = _running(scene, victim)
        victim.kill()
        killed, old = time.monotonic(), set(scene.confirmed)
        await until(lambda: old <= set(scene.stage.ids("handled")), 60)
    await scene.settled()

    begun: dict[str, float] = {}
    for one in scene.stage.effects("begun"):
        begun.setdefault(one["id"], one["at"])
    took = max(one["at"] for one in scene.stage.effects("handled") if one["id"] in old) - killed
    wait = max(begun[id] - scene.confirmed_at[id] for id in scene.confirmed - old)
    account = await scene.ends(
        "kill -9 of one of two workers at a fifth of what both can handle",
        f"the {len(held)} it held within {took:.1f} s; new ones wait {wait:.1f} s at most",
    )
    assert took < 20
    assert wait < 10
    assert not account.lettered


def _running(scene: Scene, worker: Worker) -> set[str]:
    """Events that a worker began and did not end."""
    begun, ended = (
        {one["id"] for one in scene.stage.effects(what) if one["worker"] == worker.name}
        for what in ("begun", "handled")
    )
    return begun - ended


async def test_five_deploys_that_kill_after_16_seconds_spend_no_attempt(scene: Scene) -> None:
    await scene.run(load(work=4.0, ack_wait=2))
    ids = await scene.publish(3)
    for deploy in range(5):
        await scene.stage.until_effects(3 * (deploy + 1), "begun")
        worker = scene.stage.workers[-1]
        worker.signal(signal.SIGINT)
        await asyncio.sleep(1.6)  # what the process manager does
        worker.kill()
        await scene.run()
    await scene.handled(3, timeout=30)
    await scene.settled()

    account = await scene.ends("SIGINT, and SIGKILL 1.6 s later, 5 ×; a handler of 4 s")
    assert not account.lettered
    assert {one["attempt"] for one in scene.stage.effects("begun")} == {1}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("death", "place"),
    [
        ("os._exit(9)", {"validator": VALIDATOR, "order": ""}),
        ("os._exit(9)", {"validator": "", "order": ORDER}),
        ("raise SystemExit(3)", {"validator": VALIDATOR, "order": ""}),
        ("raise SystemExit(3)", {"validator": "", "order": ORDER}),
    ],
    ids=["validator", "order_by", "SystemExit in a validator", "SystemExit in order_by"],
)
async def test_what_kills_its_process_while_it_is_read_ends_as_a_letter(
    scene: Scene, death: str, place: dict[str, str]
) -> None:
    scene.spawn(READING.format(death=death, **place))
    await scene.publish(20, type="custom.thing", payload=lambda n: {"n": n})

    async def is_over() -> bool:
        if not scene.stage.workers[-1].is_running:
            scene.spawn()
        return await _letters(scene) == 1 and len(set(scene.stage.ids())) == 19

    await until(is_over, 60)

    lives = len(scene.stage.workers)
    assert await _letters(scene) == 1
    assert lives <= 4 + 1 + 1  # attempts + 1 deaths, and the one that lives


async def _letters(scene: Scene) -> int:
    return int((await api(scene.plain, "STREAM.INFO.SYSTEM"))["state"]["messages"])


SLOW = """
app = App("router")

@app.on("message.received", durable="r1", start_from="first", ack_wait=1, concurrency=20)
async def route(event, ctx):
    is_slow = int(event.id[-6:]) < 3
    effect("begun", id=event.id, slow=is_slow)
    await asyncio.sleep(1.0 if is_slow else 0.01)
    effect("handled", id=event.id, slow=is_slow)
"""


async def test_while_suspects_of_a_second_death_run_alone_the_others_have_half_of_the_time(
    scene: Scene,
) -> None:
    worker = await scene.run(SLOW)
    await scene.publish(3)
    for death in range(2):
        await scene.stage.until_effects(3 * (death + 1), "begun")
        worker.kill()
        worker = await scene.run()
    async with scene.publishing(every=0.25):
        await until(lambda: len(_of(scene, "handled", slow=True)) == 3, 40)
    await scene.handled(len(scene.confirmed))
    await scene.settled()

    last = [one for one in _of(scene, "begun", slow=True) if one["worker"] == worker.name]
    alone = list(
        zip(
            sorted(one["at"] for one in last),
            sorted(one["at"] for one in _of(scene, "handled", slow=True)),
            strict=True,
        )
    )
    others = [one["at"] for one in _of(scene, "begun", slow=False)]
    between = list(pairwise(alone))
    assert not [at for at in others for begun, ended in alone if begun < at < ended]
    assert [next_begun - ended > 0.9 for (_, ended), (next_begun, _) in between] == [True] * 2
    assert all(any(ended < at < begun for at in others) for (_, ended), (begun, _) in between)
    waits = [one["at"] - scene.confirmed_at[one["id"]] for one in _of(scene, "handled", slow=False)]
    account = await scene.ends(
        "three that ran in both of two kills, a second each",
        f"alone, half of the time; others wait {max(waits):.1f} s at most",
    )
    assert max(waits) < 10
    assert not account.lettered


def _of(scene: Scene, what: str, *, slow: bool) -> list[dict[str, Any]]:
    return [one for one in scene.stage.effects(what) if one["slow"] is slow]

"""Narrowing: an older version's consumer becomes two while events come, also through kills."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nats.aio.client import Client

from ..waiting import until
from .support import Stage, Worker, both, consumer, foreign_event, until_settled

# With order_by there is one consumer; `change` is what narrows, and here it may kill its process.
OLD = 'order_by=lambda event: "all"'
APP = """
from omni_worker import bus
from omni_worker.bus import narrowing
from omni_worker.provision import Provisioner
from omni_worker.transports.infos import filters_of

bus.REFRESH = bus.BUSY_REFRESH = 0.2
narrowing.ALONE_FOR = 0.5
app = App("shop")
change = Provisioner.change_consumer

async def change_or_die(self, spec, info, config):
    if filters_of(config) == info.config.filters:  # it changes who is served
        return await change(self, spec, info, config)
    if os.path.exists("kills"):
        os.unlink("kills")
        effect("died")
        os.kill(os.getpid(), signal.SIGKILL)
    changed = await change(self, spec, info, config)
    effect("narrowed")
    return changed

Provisioner.change_consumer = change_or_die

@app.on("custom.a", durable="r1", {options})
async def handle(event: Event):
    effect("handled", id=event.id)
"""


@dataclass
class Sent:
    """Events of a foreign program: when each was stored, and which are bare, with their place."""

    at: dict[str, float] = field(default_factory=dict)
    bare: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def publishing(client: Client) -> AsyncIterator[Sent]:
    """Store events all the time, every second one without a channel."""
    sent, over, jetstream = Sent(), asyncio.Event(), client.jetstream()

    async def publish() -> None:
        while not over.is_set():
            is_bare = len(sent.at) % 2 == 0
            where = {} if is_bare else {"channel": "c", "instance": f"i{len(sent.at) % 50}"}
            id = f"event-{len(sent.at):05}"
            stored = await jetstream.publish(*foreign_event("custom.a", {}, id=id, **where))
            sent.at[id] = time.monotonic()
            if is_bare:
                sent.bare[id] = stored.seq
            await asyncio.sleep(0.002)

    task = asyncio.create_task(publish())
    try:
        yield sent
    finally:
        over.set()
        await task


async def migrated(client: Client, *workers: Worker) -> None:
    """Wait until there are two consumers, each with its own filters, and all read both."""

    async def are_there() -> bool:
        if len(await both(client, "r1", "CUSTOM")) < 2:
            return False
        main, bare = [await consumer(client, one, "CUSTOM") for one in ("r1", "r1-bare")]
        narrow = main["config"].get("filter_subject") == "custom.a.>"
        return narrow and bare["num_waiting"] + bare["num_ack_pending"] >= len(workers)

    await until(are_there, 30.0, what="two consumers")


async def doubled(stage: Stage, client: Client, sent: Sent) -> dict[str, int]:
    """Every event was handled; which more than once that are not named so, and how often.

    Named are the bare ones that the one consumer delivered after the other began and before it was
    narrowed, and what ran in a killed process.
    """
    await until_settled(client, "r1", "CUSTOM")
    runs = Counter(stage.ids())
    assert set(sent.at) == set(runs)
    [narrowed, *_] = [one["at"] for one in stage.effects("narrowed")]
    start = (await consumer(client, "r1-bare", "CUSTOM"))["config"]["opt_start_seq"]
    between = {
        id for id, sequence in sent.bare.items() if sequence >= start and sent.at[id] < narrowed
    }
    for died in stage.effects("died"):
        between |= {
            one["id"] for one in stage.effects("handled")
            if one["worker"] == died["worker"] and one["at"] > died["at"] - 0.05
        }  # fmt: skip
    return {id: count for id, count in runs.items() if count > 1 and id not in between}


async def test_an_older_version_ends_and_its_consumer_becomes_two_without_a_restart(
    stage: Stage, plain: Client
) -> None:
    old = await stage.run(stage.app(APP.format(options=OLD), "old"))
    async with publishing(plain) as sent:
        await until(lambda: len(stage.ids()) > 50)
        target = stage.app(APP.format(options=""), "new")
        new = [await stage.run(target), await stage.run(target)]
        names = await both(plain, "r1", "CUSTOM")
        await old.stop()
        await migrated(plain, *new)
        more = len(sent.at) + 100
        await until(lambda: len(sent.at) >= more)

    assert names == ["r1"]  # while the older version read it
    assert await doubled(stage, plain, sent) == {}


async def test_a_worker_killed_while_it_makes_two_of_one_consumer_loses_nothing(
    stage: Stage, plain: Client
) -> None:
    old = await stage.run(stage.app(APP.format(options=OLD), "old"))
    async with publishing(plain) as sent:
        await until(lambda: len(stage.ids()) > 50)
        target = stage.app(APP.format(options=""), "new")
        first, second = await stage.run(target), await stage.run(target)
        (stage.folder / "kills").touch()
        await old.stop()
        await until(lambda: bool(stage.effects("died")), 30.0)
        [left] = [one for one in (first, second) if one.name != stage.effects("died")[0]["worker"]]
        await migrated(plain, left)
        more = len(sent.at) + 100
        await until(lambda: len(sent.at) >= more)

    assert await doubled(stage, plain, sent) == {}


async def test_the_only_worker_killed_in_between_leaves_the_rest_to_the_next(
    stage: Stage, plain: Client
) -> None:
    old = await stage.run(stage.app(APP.format(options=OLD), "old"))
    async with publishing(plain) as sent:
        await until(lambda: len(stage.ids()) > 50)
        target = stage.app(APP.format(options=""), "new")
        (stage.folder / "kills").touch()
        first = await stage.run(target)
        await old.stop()
        await first.exit(30.0)
        await stage.run(target)
        await migrated(plain)
        more = len(sent.at) + 100
        await until(lambda: len(sent.at) >= more)

    assert {one["what"] for one in stage.effects()} == {"handled", "died"}  # it starts narrow
    await until_settled(plain, "r1", "CUSTOM")
    assert set(sent.at) == set(stage.ids())

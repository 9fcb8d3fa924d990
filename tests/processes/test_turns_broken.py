"""Turns under faults: the process that is served loses its link, its server or its consumer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker.nats_server import NatsServer

from ..faults.links import Link
from ..ports import free_port
from ..waiting import until
from .support import Stage, api, consumer, foreign_event, plain_client, until_settled
from .test_turns import KEYS, app, groups, handled, publishing, turn_of, violations

# Several keys at once, each run longer than the looks for who is served after a restart.
SLOW = """
app = App("shop")

@app.on("custom.a", durable="r1", channel="c", order_by=lambda event: event.payload["key"],
        ack_wait=30)
async def handle(event: Event):
    effect("begun", key=event.payload["key"], n=event.payload["n"])
    while event.payload["n"] < 7 and not os.path.exists("release"):
        await asyncio.sleep(0.02)  # until the test lets it go, by a file
    effect("handled", key=event.payload["key"], n=event.payload["n"])
"""


def twice(stage: Stage) -> list[int]:
    """Numbers of the events that were handled more than once."""
    ends = Counter(one["n"] for one in stage.effects("handled"))
    return sorted(n for n, count in ends.items() if count > 1)


def twice_in_one(stage: Stage) -> list[tuple[str, int]]:
    """Events that began more than once in one and the same process, which lives on."""
    runs = Counter((one["worker"], one["n"]) for one in stage.effects("begun"))
    return sorted(run for run, count in runs.items() if count > 1)


async def test_a_process_whose_link_is_cut_keeps_its_turn_its_order_and_runs_nothing_twice(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    async with AsyncExitStack() as stack:
        stage = stack.enter_context(Stage(tmp_path, nats_server.url))
        links = [await stack.enter_async_context(Link(nats_server.port)) for _ in range(3)]
        module = app(stage)
        workers = [stage.spawn(module, url=link.url) for link in links]
        for worker in workers:
            await worker.ready()
        plain = await plain_client(nats_server.url)
        async with publishing(plain) as sent:
            active = await turn_of(stage, workers)
            link = links[workers.index(active)]
            for cuts in range(1, 5):
                await stage.until_effects(len(stage.effects("handled")) + 50, "handled")
                link.cut_after(700 * cuts)
                await until(partial(has_cut, link, cuts))
            await stage.until_effects(len(stage.effects("handled")) + 50, "handled")
            count = len(sent)
        await until_settled(plain, "r1", "CUSTOM")
        await plain.close()

        assert sum(map(len, handled(stage).values())) >= count
        assert violations(stage) == []
        assert twice(stage) == []
        assert {one["worker"] for one in stage.effects("handled")} == {active.name}


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_what_a_process_holds_when_its_server_is_started_again_is_handled_in_order(
    tmp_path: Path, how: str
) -> None:
    with (
        NatsServer(store=tmp_path / "store", port=free_port()) as server,
        Stage(tmp_path, server.url) as stage,
    ):
        module = stage.app(SLOW)
        workers = [await stage.run(module, reconnect_delay=0.05) for _ in range(2)]
        plain = await plain_client(server.url)
        await store(plain, range(4 * KEYS))
        await stage.until_effects(KEYS, "begun")

        getattr(server, how)()
        server.start()
        await plain.close()
        plain = await plain_client(server.url)
        # The server knows no turn. With the next event it begins one, here or in the other process.
        await store(plain, range(4 * KEYS, 8 * KEYS))
        await until(lambda: is_pinned(plain))
        (tmp_path / "release").touch()

        await until(lambda: sum(map(len, handled(stage).values())) == 8 * KEYS, 60.0)
        await until_settled(plain, "r1", "CUSTOM")
        await plain.close()
        assert violations(stage) == []
        if how == "stop":  # one that is killed forgets its last deliveries: see guarantees.md
            assert twice(stage) == []
        for worker in workers:
            assert worker.messages("error") == []


async def test_order_holds_when_the_consumer_is_deleted_under_the_process_that_is_served(
    stage: Stage, plain: Client
) -> None:
    module = app(stage)
    workers = [await stage.run(module) for _ in range(3)]
    async with publishing(plain) as sent:
        for _ in range(4):
            await stage.until_effects(len(stage.effects("handled")) + 50, "handled")
            before = await consumer(plain, "r1", "CUSTOM")
            await api(plain, "CONSUMER.DELETE.CUSTOM.r1")
            await until(partial(is_recreated, plain, before))
        await stage.until_effects(len(stage.effects("handled")) + 50, "handled")
    await until_settled(plain, "r1", "CUSTOM")

    assert {n for each in handled(stage).values() for n in each} == set(sent)
    assert violations(stage) == []
    assert twice_in_one(stage) == []
    assert await groups(plain) == ["active"]
    for worker in workers:
        assert not [one for one in worker.messages("error") if "r1" not in one]


def has_cut(link: Link, cuts: int) -> bool:
    """Return True if the link was cut so often."""
    return link.cuts == cuts


async def store(client: Client, numbers: Iterable[int]) -> None:
    """Store events of several keys in turn."""
    for n in numbers:
        payload = {"key": f"k{n % KEYS}", "n": n}
        subject, body = foreign_event(
            "custom.a", payload, id=f"event-{n}", channel="c", instance="i"
        )
        await client.jetstream().publish(subject, body)


async def is_pinned(client: Client) -> bool:
    """Return True if the server serves one process."""
    with suppress(Exception):  # it is being started
        info = await consumer(client, "r1", "CUSTOM")
        return any(one.get("pinned_client_id") for one in info.get("priority_groups") or ())
    return False


async def is_recreated(client: Client, before: dict[str, Any]) -> bool:
    """Return True if a consumer of the name exists that is not the one before."""
    now = await api(client, "CONSUMER.INFO.CUSTOM.r1")
    return "created" in now and now["created"] != before["created"]

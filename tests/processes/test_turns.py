"""Turns: with order_by, of several processes on one durable one is served; the others stand by."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from nats.aio.client import Client

from omni_worker.nats_server import NatsServer

from ..waiting import until
from .support import Stage, Worker, api, consumer, foreign_event, plain_client, until_settled

ACK_WAIT = 3.0
APP = """
from omni_worker import bus
from omni_worker.handlers import Handler

bus.REFRESH = 0.5
if {is_older}:  # as a version that knows no turns
    Handler.one_active = property(lambda handler: False)
app = App("shop")

@app.on("custom.a", durable="r1", {options}, ack_wait=3, concurrency=4)
async def handle(event: Event):
    effect("begun", key=event.payload["key"], n=event.payload["n"])
    await asyncio.sleep(0.02)
    effect("handled", key=event.payload["key"], n=event.payload["n"])
"""
BATCHES = """
from omni_worker import bus

bus.REFRESH = 0.5
app = App("shop")

@app.on_batch("custom.a", durable="r1", channel="c", by=lambda event: event.payload["key"],
              quiet=0.3, wait=2, ack_wait=3)
async def handle(batch):
    for event in batch:
        effect("handled", key=event.payload["key"], n=event.payload["n"])
"""
ORDER = 'order_by=lambda event: event.payload["key"]'
KEYS = 7


def app(stage: Stage, name: str = "new", *, options: str = ORDER, is_older: bool = False) -> str:
    """An app with one handler."""
    return stage.app(APP.format(options=options, is_older=is_older), name)


@asynccontextmanager
async def publishing(plain: Client, *, pause: float = 0.01) -> AsyncIterator[list[int]]:
    """Store events all the time, of several keys in turn."""
    sent: list[int] = []
    over, jetstream = asyncio.Event(), plain.jetstream()

    async def publish() -> None:
        while not over.is_set():
            n = len(sent)
            payload = {"key": f"k{n % KEYS}", "n": n}
            subject, body = foreign_event(
                "custom.a", payload, id=f"event-{n}", channel="c", instance="i"
            )
            try:
                await jetstream.publish(subject, body)
            except Exception:  # the server is being restarted
                await asyncio.sleep(0.1)
                continue
            sent.append(n)
            await asyncio.sleep(pause)

    task = asyncio.create_task(publish())
    try:
        yield sent
    finally:
        over.set()
        await task


def handled(stage: Stage) -> dict[str, list[int]]:
    """For each key the numbers of its events, when each was first handled."""
    found: dict[str, list[int]] = defaultdict(list)
    for effect in stage.effects("handled"):
        if effect["n"] not in found[effect["key"]]:
            found[effect["key"]].append(effect["n"])
    return found


def violations(stage: Stage, among: set[int] | None = None) -> list[tuple[str, list[int]]]:
    """Keys whose events were not handled in their order."""
    found = []
    for key, each in handled(stage).items():
        chosen = [n for n in each if among is None or n in among]
        if chosen != sorted(chosen):
            found.append((key, chosen))
    return found


async def turn_of(stage: Stage, workers: Sequence[Worker]) -> Worker:
    """The worker that handled the newest event."""
    await until(lambda: stage.effects("handled"))
    name = stage.effects("handled")[-1]["worker"]
    return next(one for one in workers if one.name == name)


async def next_after(stage: Stage, since: float) -> float:
    """Seconds until an event is handled by another process than before."""
    before = len(stage.effects("handled"))
    await until(lambda: len(stage.effects("handled")) > before)
    return time.monotonic() - since


async def test_order_holds_over_three_processes_that_are_killed_and_stopped(
    stage: Stage, plain: Client
) -> None:
    module = app(stage)
    workers = [await stage.run(module) for _ in range(3)]
    took: list[tuple[str, float]] = []
    async with publishing(plain) as sent:
        for how in ("kill", "kill", "stop", "kill", "stop"):
            await until(lambda: len(sent) % 50 == 0 and len(sent) > 0)
            active = await turn_of(stage, workers)
            workers.remove(active)
            since = time.monotonic()
            if how == "kill":
                active.kill()
            else:
                await active.stop()
            took.append((how, await next_after(stage, since)))
            workers.append(await stage.run(module))
        count = len(sent)
    await until(lambda: sum(map(len, handled(stage).values())) >= count, 60)

    assert violations(stage) == []
    for how, seconds in took:
        assert seconds < (ACK_WAIT + 5 if how == "kill" else 5), took


async def groups(plain: Client) -> list[str]:
    """The priority groups of the consumer."""
    found: list[str] = (await consumer(plain, "r1", "CUSTOM"))["config"].get("priority_groups", [])
    return found


async def test_turns_begin_when_the_last_process_of_an_older_version_ends(
    stage: Stage, plain: Client
) -> None:
    older, newer = app(stage, "older", is_older=True), app(stage)
    old = [await stage.run(older) for _ in range(2)]
    async with publishing(plain):
        await until(lambda: len(stage.effects("handled")) > 50)
        new = [await stage.run(newer) for _ in range(2)]
        await old[0].stop()
        await new[1].until_said("ready")
        assert await groups(plain) == []
        await old[1].stop()
        await until(lambda: groups_are(plain, ["active"]))
        # What came before the turns began may still be ended by any of them.
        before = len(stage.effects("begun"))
        await until(lambda: len(stage.effects("handled")) > before + 200)
        workers = [one["worker"] for one in stage.effects("begun")[before + 100 :]]
        assert len(set(workers)) == 1
        active = await turn_of(stage, new)
        since, runs = time.monotonic(), len(stage.effects("begun"))
        active.kill()
        assert await next_after(stage, since) < ACK_WAIT + 5
    await until_settled(plain, "r1", "CUSTOM")

    later = [one["n"] for one in stage.effects("begun")[before + 100 :]]
    assert violations(stage, set(later)) == []
    assert runs > before
    for worker in (*old, *new):
        assert worker.messages("error") == []


async def test_turns_end_when_no_version_needs_them(stage: Stage, plain: Client) -> None:
    ordered = await stage.run(app(stage))
    free = await stage.run(app(stage, "free", options="prefetch=10"))
    assert await groups(plain) == ["active"]

    await ordered.stop()
    await until(lambda: groups_are(plain, []))
    other = await stage.run(app(stage, "free", options="prefetch=10"))
    async with publishing(plain):
        await until(lambda: len({one["worker"] for one in stage.effects("handled")}) == 2)
    await until_settled(plain, "r1", "CUSTOM")

    for worker in (ordered, free, other):
        assert worker.messages("error") == []


async def groups_are(plain: Client, wanted: list[str]) -> bool:
    return await groups(plain) == wanted


async def test_order_holds_when_the_server_is_started_again(tmp_path: Path) -> None:
    with NatsServer(store=tmp_path / "store") as server, Stage(tmp_path, server.url) as stage:
        module, port = app(stage), server.port
        workers = [await stage.run(module) for _ in range(3)]
        plain = await plain_client(server.url)
        async with publishing(plain) as sent:
            await until(lambda: len(stage.effects("handled")) > 100)
            for restart in (server.stop, server.kill):
                restart()
                server.start()
                assert server.port == port
                await stage.until_effects(len(stage.effects("handled")) + 200, "handled")
            count = len(sent)
        await until(lambda: sum(map(len, handled(stage).values())) >= count, 30)
        await plain.close()

        assert violations(stage) == []
        assert len(workers) == 3


async def test_a_turn_that_is_taken_away_costs_neither_order_nor_an_event(
    stage: Stage, plain: Client
) -> None:
    module = app(stage)
    workers = [await stage.run(module) for _ in range(3)]
    async with publishing(plain) as sent:
        for _ in range(10):
            await stage.until_effects(len(stage.effects("handled")) + 50, "handled")
            answer = await api(plain, "CONSUMER.UNPIN.CUSTOM.r1", {"group": "active"})
            assert "error" not in answer
        count = len(sent)
    await until_settled(plain, "r1", "CUSTOM")

    assert sum(map(len, handled(stage).values())) >= count
    assert violations(stage) == []
    assert len({one["worker"] for one in stage.effects("handled")}) > 1
    for worker in workers:
        assert worker.messages("error") == []


async def test_of_batches_by_key_one_process_gathers_all(stage: Stage, plain: Client) -> None:
    module = stage.app(BATCHES)
    workers = [await stage.run(module) for _ in range(2)]
    async with publishing(plain, pause=0.05) as sent:
        await stage.until_effects(30, "handled")
        assert len({one["worker"] for one in stage.effects("handled")}) == 1
        active = await turn_of(stage, workers)
        await active.stop()
        before, since = len(stage.effects("handled")), time.monotonic()
        await stage.until_effects(before + 30, "handled")
        assert time.monotonic() - since < 10
        count = len(sent)
    await until_settled(plain, "r1", "CUSTOM")

    assert sum(map(len, handled(stage).values())) >= count
    assert len({one["worker"] for one in stage.effects("handled")[before:]}) == 1


async def test_without_the_right_to_change_the_consumer_it_is_read_as_before(
    stage: Stage, plain: Client
) -> None:
    older = await stage.run(app(stage, "older", is_older=True))
    await older.stop()
    worker = await stage.run(app(stage), provision="off")
    async with publishing(plain):
        await stage.until_effects(50, "handled")
        said = "serves all processes at once"
        await until(lambda: [one for one in worker.messages("warning") if said in one])

    assert await groups(plain) == []
    assert sum(said in one for one in worker.messages("warning")) == 1
    assert violations(stage) == []


async def test_where_processes_do_not_answer_it_is_said_that_all_are_served(
    stage: Stage, plain: Client
) -> None:
    older = await stage.run(app(stage, "older", is_older=True))
    await older.stop()

    worker = await stage.run(app(stage), service="off")

    said = "OMNI_WORKER_SERVICE"
    await until(lambda: [one for one in worker.messages("warning") if said in one])
    assert await groups(plain) == []

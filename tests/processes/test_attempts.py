"""Attempts survive processes: what kills its worker ends, its neighbours do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from omni_worker import Draft, EventBus
from omni_worker.nats_server import NatsServer

from ..waiting import until
from .support import Stage, Worker

POISON = """
app = App("play")


@app.on("custom.thing", durable="d", start_from="first", concurrency={concurrency}, ack_wait=1,
        max_retries=3, retry_delay=0.1, prefetch=20)
async def handle(event):
    effect("begun", id=event.payload["n"])
    if event.payload["n"] == {poison}:
        os._exit(9)
    await asyncio.sleep(0.01)
    effect("handled", id=event.payload["n"])
"""


async def test_an_event_that_kills_its_process_ends_as_a_letter_and_its_neighbours_are_handled(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with EventBus(nats_server.url, name="tests") as bus:
        await bus.publish_many(Draft(type="custom.thing", payload={"n": n}) for n in range(20))
        with Stage(tmp_path, nats_server.url) as stage:
            target = stage.app(POISON.format(concurrency=4, poison=3))
            lives = 0

            async def done() -> bool:
                return len(set(stage.ids())) == 19 and await _letters(bus) == 1

            while not await done() and lives < 12:
                lives += 1
                worker = stage.spawn(target)

                async def over(worker: Worker = worker) -> bool:
                    return not worker.is_running or await done()

                await until(over, 40)
                if worker.is_running:
                    await worker.stop()
            runs = Counter(stage.ids("begun"))

            assert sorted(set(stage.ids())) == [n for n in range(20) if n != 3]
            assert await _letters(bus) == 1
            assert runs[3] <= 5  # attempts + 1
            assert lives <= 6


@pytest.mark.alone
async def test_a_redeploy_spends_no_attempts_and_runs_nothing_one_by_one(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    app = """
    app = App("play")

    @app.on("custom.thing", durable="d", start_from="first", concurrency=8, prefetch=60)
    async def handle(event, ctx):
        effect("begun", id=event.payload["n"], attempt=ctx.attempt)
        await asyncio.sleep(0.2)
        effect("handled", id=event.payload["n"])
    """
    async with EventBus(nats_server.url, name="tests") as bus:
        await bus.publish_many(Draft(type="custom.thing", payload={"n": n}) for n in range(60))
        with Stage(tmp_path, nats_server.url) as stage:
            target = stage.app(app)
            first = await stage.run(target)
            await stage.until_effects(8, "begun")
            assert await first.stop() == 0
            done_by_first = len(stage.ids())
            second = await stage.run(target)
            await stage.until_effects(60, "handled")
            begun = [one for one in stage.effects("begun") if one["worker"] == second.name]
            took = stage.effects("handled")[-1]["at"] - begun[0]["at"]
            assert await second.stop() == 0

            one_by_one = (60 - done_by_first) * 0.2
            assert {one["attempt"] for one in stage.effects("begun")} == {1}
            assert Counter(stage.ids()) == Counter(range(60))
            assert took < one_by_one / 2
            assert "never ended" not in second.said()


async def test_failures_in_one_process_count_in_the_next(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    app = """
    app = App("play")

    @app.on("custom.thing", durable="d", start_from="first", max_retries=3, retry_delay=0.5)
    async def handle(event, ctx):
        effect("begun", id=event.id, attempt=ctx.attempt)
        raise ValueError("always")
    """
    async with EventBus(nats_server.url, name="tests") as bus:
        await bus.publish("custom.thing", {})
        with Stage(tmp_path, nats_server.url) as stage:
            target = stage.app(app)
            first = await stage.run(target)
            await stage.until_effects(2, "begun")
            await first.stop()
            second = await stage.run(target)

            async def lettered() -> bool:
                return await _letters(bus) == 1

            await until(lettered, 20)
            await second.stop()

            assert [one["attempt"] for one in stage.effects("begun")] == [1, 2, 3, 4]


async def _letters(bus: EventBus) -> int:
    info = await bus.transport.operators.stream_info("SYSTEM")
    assert info is not None
    return info.state.messages

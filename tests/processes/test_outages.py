"""Servers that die, come back, come back empty, or do not come back; consumers that are deleted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from omni_worker import EventBus
from omni_worker.nats_server import LOOPBACK, NatsServer
from omni_worker.settings import Settings

from ..ports import free_port
from ..waiting import until
from .support import Stage, api, consumer, foreign_event, publish_foreign, repeated, until_settled

APP = """
app = App("router")

@app.on("message.received", durable="r1", concurrency=8, ack_wait=1)
async def route(event):
    effect("begun", id=event.id)
    await asyncio.sleep(0.002)
    effect("handled", id=event.id)
"""

QUICK = {"reconnect_delay": 0.05, "reconnect_max_delay": 0.2, "reconnect_max_retries": 100}


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """One whose data stays when it is killed."""
    with NatsServer(port=free_port(), store=tmp_path / "store") as server:
        yield server


async def test_a_server_killed_while_events_are_handled_loses_none_and_doubles_none(
    stage: Stage, plain: Client, nats_server: NatsServer
) -> None:
    worker = await stage.run(stage.app(APP), **QUICK)
    ids = await publish_foreign(plain, 3_000)

    for handled in (500, 1_500):
        await stage.until_effects(handled, "handled")
        nats_server.kill()
        await worker.until_said("connection lost")
        nats_server.start()
    await stage.until_effects(len(ids), "handled", timeout=60)
    await until_settled(plain, "r1")

    lost = set(ids) - set(stage.ids())
    # Doubles would be deliveries the server had forgotten the acks of: this process remembers.
    assert (lost, repeated(stage.ids("begun"))) == (set(), {})
    assert await worker.stop() == 0


async def test_events_published_while_the_worker_cannot_connect_are_handled_afterwards(
    stage: Stage, plain: Client, nats_server: NatsServer
) -> None:
    target = stage.app("""
        app = App("router")

        @app.on("message.received", durable="r1")
        async def route(event, ctx):
            effect("begun", id=event.id)
            await eventually_free()
            published = await ctx.publish("custom.reply", {"to": event.id})
            effect("handled", id=event.id, duplicate=published.duplicate)

        async def eventually_free():
            while os.path.exists("hold"):
                await asyncio.sleep(0.01)
    """)
    hold = stage.folder / "hold"
    hold.touch()
    worker = await stage.run(target, **QUICK)
    await plain.jetstream().publish(*foreign_event("message.received", id="one"))
    await stage.until_effects(1, "begun")

    nats_server.kill()
    await worker.until_said("connection lost")
    hold.unlink()  # it publishes while there is no server
    nats_server.start()
    await stage.until_effects(1, "handled")
    await until_settled(plain, "r1")

    assert stage.ids("begun") == stage.ids("handled") == ["one"]
    assert (await api(plain, "STREAM.INFO.CUSTOM"))["state"]["messages"] == 1


async def test_without_a_server_every_try_is_one_line_and_the_last_cause_ends_it(
    stage: Stage,
) -> None:
    url = f"nats://someone:secret@{LOOPBACK}:{free_port()}"
    worker = stage.spawn(
        stage.app(APP), url=url,
        reconnect_max_retries=2, reconnect_delay=0.05, reconnect_max_delay=0.1,
    )  # fmt: skip

    code = await worker.exit()

    assert code == 1
    tries = worker.messages("warning")
    expected = (
        r"cannot connect to nats://[\w.]+:\d+: connection refused: nothing listens there;"
        r" try %d of 3 in 0\.\d s"
    )
    assert len(tries) == 2
    for number, said in enumerate(tries, start=2):
        assert re.fullmatch(expected % number, said), said
    port = url.rpartition(":")[2]
    assert worker.messages("error") == [
        f"cannot connect to nats://{LOOPBACK}:{port} after 3 tries:"
        " connection refused: nothing listens there"
    ]
    assert len(worker.lines()) == 3
    assert "secret" not in worker.said()


async def test_a_wrong_password_is_the_cause_that_is_named(stage: Stage, tmp_path: Path) -> None:
    with NatsServer(arguments=["--user", "someone", "--pass", "right"]) as server:
        url = server.url.replace("nats://", "nats://someone:wrong-one@")
        worker = stage.spawn(
            stage.app(APP), url=url, reconnect_max_retries=1, reconnect_delay=0.05,
        )  # fmt: skip

        code = await worker.exit()

    assert code == 1
    [said] = worker.messages("error")
    assert "authorization violation" in said
    assert "NATS_PASSWORD" in said
    assert "wrong-one" not in worker.said()


async def test_an_outage_longer_than_the_budget_ends_with_its_cause(
    stage: Stage, nats_server: NatsServer, plain: Client
) -> None:
    worker = await stage.run(
        stage.app(APP.replace("0.002", "60")),
        reconnect_max_retries=2, reconnect_delay=0.05, reconnect_max_delay=0.1,
    )  # fmt: skip
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "begun")

    nats_server.kill()
    code = await worker.exit()

    assert code == 1
    assert worker.messages("error")[-1] == (
        f"cannot connect to {nats_server.url} after 3 tries:"
        " connection refused: nothing listens there"
    )


async def test_a_deleted_consumer_is_made_again_and_nothing_is_lost(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(APP), **QUICK)
    ids = await publish_foreign(plain, 2_000)

    await stage.until_effects(400, "handled")
    await plain.jetstream().delete_consumer("MESSAGE", "r1")
    await worker.until_said("is recreated from sequence")
    await stage.until_effects(len(ids), "handled")
    await until_settled(plain, "r1")

    assert set(ids) == set(stage.ids())
    # What ran when the consumer went could not be acknowledged any more; it is recognised, or ran
    # to its end twice: never more than were running.
    assert len(repeated(stage.ids())) <= 8
    tag = (await consumer(plain, "r1"))["config"]["metadata"]
    assert tag["omni-worker.app"] == "router"
    assert await worker.stop() == 0


async def test_a_deleted_consumer_with_retries_waiting_forgets_none_of_them(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1", retry_delay=0.5)
            async def route(event, ctx):
                effect("begun", id=event.id, attempt=ctx.attempt)
                if event.payload.get("fail") and ctx.attempt < 3:
                    raise ValueError("not yet")
                effect("handled", id=event.id)
        """)
    )
    await plain.jetstream().publish(*foreign_event("message.received", {"fail": 1}, id="first"))
    await stage.until_effects(1, "begun")
    await publish_foreign(plain, 20)
    await stage.until_effects(20, "handled")

    await plain.jetstream().delete_consumer("MESSAGE", "r1")
    await stage.until_effects(21, "handled")
    await until_settled(plain, "r1")

    attempts = [one["attempt"] for one in stage.effects("begun") if one["id"] == "first"]
    assert attempts == [1, 2, 3]
    assert repeated(stage.ids()) == {}
    assert await worker.stop() == 0


async def test_a_deleted_stream_is_made_anew_and_read_from_its_start(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(APP), **QUICK)
    first = await publish_foreign(plain, 50)
    await stage.until_effects(50, "handled")

    await plain.jetstream().delete_stream("MESSAGE")
    await worker.until_said("stream MESSAGE is new")
    await plain.jetstream().publish(*foreign_event("message.received", id="after"))
    await stage.until_effects(51, "handled")
    await until_settled(plain, "r1")

    assert [*first, "after"] == sorted(stage.ids(), key=lambda id: (id == "after", id))
    assert await worker.stop() == 0


async def test_a_server_that_comes_back_empty_is_started_over_on(
    stage: Stage, plain: Client, nats_server: NatsServer
) -> None:
    worker = await stage.run(stage.app(APP), **QUICK)
    await publish_foreign(plain, 50)
    await stage.until_effects(50, "handled")

    nats_server.kill()
    shutil.rmtree(nats_server.store / "jetstream")
    nats_server.start()
    await worker.until_said("stream MESSAGE is new", timeout=30)
    await api(plain, "INFO")  # by now this client is connected again as well
    await plain.jetstream().publish(*foreign_event("message.received", id="after"))
    await stage.until_effects(51, "handled")
    await until_settled(plain, "r1")

    assert stage.ids()[-1] == "after"
    assert repeated(stage.ids()) == {}
    names = (await api(plain, "STREAM.NAMES"))["streams"]
    buckets = [name for name in names if name.startswith("KV_")]
    assert len(names) == 7 + len(buckets)  # a bucket is made when it is needed
    assert await worker.stop() == 0


async def test_a_killed_worker_loses_nothing_and_its_events_come_again(
    stage: Stage, plain: Client
) -> None:
    target = stage.app(APP.replace("ack_wait=1", "ack_wait=0.5"))
    worker = await stage.run(target)
    ids = await publish_foreign(plain, 1_000)
    await stage.until_effects(200, "handled")

    worker.kill()
    await stage.run(target)
    await until(lambda: set(stage.ids()) == set(ids), timeout=20)
    await until_settled(plain, "r1")

    # Only what it had handled and not yet acknowledged, or acknowledged in its last moment.
    assert len(repeated(stage.ids())) <= 50


async def test_a_bus_that_only_publishes_never_gives_up_a_lost_link(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    quick = Settings(
        urls=(nats_server.url,), reconnect_delay=0.01, reconnect_max_delay=0.02,
        reconnect_max_retries=1,
    )  # fmt: skip
    async with EventBus(name="web", settings=quick) as bus:
        nats_server.kill()
        await until(lambda: "try 5 in" in caplog.text)
        nats_server.start()
        await until(lambda: bus.is_connected)

        assert (await bus.publish("custom.thing", 1)).stream == "CUSTOM"

        await bus.subscribe("custom.thing", lambda event: None, durable="d")
        nats_server.kill()
        assert "cannot connect" in str(await bus.failed())

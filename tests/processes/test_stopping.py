"""Stopping costs nothing: what runs may finish, what has not begun goes back, at every moment."""

from __future__ import annotations

import signal
import socket
import time

import pytest
from nats.aio.client import Client

from omni_worker.nats_server import LOOPBACK, NatsServer

from ..ports import free_port
from ..waiting import until
from .support import Stage, consumer, foreign_event, publish_foreign, repeated, until_settled

SLOW = """
app = App("router")

@app.on("message.received", durable="r1", concurrency=4, prefetch=50)
async def route(event):
    effect("begun", id=event.id)
    await asyncio.sleep(float(os.environ["OMNI_WORKER_NAP"]))
    effect("handled", id=event.id)
"""


async def test_stopping_finishes_what_runs_and_hands_back_the_rest_at_once(
    stage: Stage, plain: Client
) -> None:
    target = stage.app(SLOW)
    first = await stage.run(target, nap=0.3)
    ids = await publish_foreign(plain, 40)  # fewer than it asked for
    await stage.until_effects(8, "begun")

    asked_at = time.monotonic()
    code = await first.stop()
    took = time.monotonic() - asked_at

    assert code == 0
    assert took < 10
    begun = set(stage.ids("begun"))
    assert begun == set(stage.ids())  # each of them finished
    await stage.run(target, nap=0)
    await stage.until_effects(40, "handled", timeout=15)  # far below ack_wait: they went back
    await until_settled(plain, "r1")
    assert sorted(ids) == sorted(stage.ids("begun")) == sorted(stage.ids())
    second = [one["at"] for one in stage.effects("begun") if one["worker"] == "w2"]
    assert len(second) == 40 - len(begun)
    # What went back was delivered once more: while it went, nobody was asking.
    assert (await consumer(plain, "r1"))["delivered"]["consumer_seq"] == 40 + 40 - len(begun)


async def test_a_handler_longer_than_grace_is_handed_back_with_exit_code_zero(
    stage: Stage, plain: Client
) -> None:
    target = stage.app(SLOW)
    first = await stage.run(target, nap=60, grace=0.3)
    await publish_foreign(plain, 10)
    await stage.until_effects(4, "begun")

    asked_at = time.monotonic()
    code = await first.stop()

    assert code == 0
    assert 0.3 <= time.monotonic() - asked_at < 10
    said = "still running at the end of grace; handed back"
    # Before it, that OMNI_WORKER_NAP is no setting of ours.
    handed_back = first.messages("warning")[1:]
    assert len(handed_back) == 4
    assert all(said in one for one in handed_back)
    await stage.run(target, nap=0)
    await stage.until_effects(10, "handled", timeout=5)
    assert repeated(stage.ids()) == {}


async def test_an_unfinished_handler_keeps_its_lease_through_the_grace_period(
    stage: Stage, plain: Client
) -> None:
    target = stage.app(SLOW)
    first = await stage.run(target, nap=1.5, ack_wait=0.3)
    await publish_foreign(plain, 4)
    await stage.until_effects(4, "begun")

    first.signal(signal.SIGTERM)
    await stage.run(target, nap=0, ack_wait=0.3)
    code = await first.exit()
    await until_settled(plain, "r1")

    assert code == 0
    assert repeated(stage.ids("begun")) == {}
    assert {one["worker"] for one in stage.effects("handled")} == {first.name}


async def test_two_signals_within_a_second_are_one_request(stage: Stage, plain: Client) -> None:
    first = await stage.run(stage.app(SLOW), nap=1.4)
    await publish_foreign(plain, 4)
    await stage.until_effects(4, "begun")

    first.signal(signal.SIGINT)
    await first.until_said("stopping: SIGINT")
    for one in (signal.SIGINT, signal.SIGTERM):
        first.signal(one)
    code = await first.exit()

    assert code == 0
    assert len(stage.effects("handled")) == 4


async def test_a_later_second_signal_stops_at_once_and_hands_back_what_runs(
    stage: Stage, plain: Client
) -> None:
    target = stage.app(SLOW)
    first = await stage.run(target, nap=60)
    await publish_foreign(plain, 10)
    await stage.until_effects(4, "begun")

    first.signal(signal.SIGINT)
    await first.until_said("stopping: SIGINT")
    asked_at = time.monotonic()
    # Process managers signal the whole tree: only a signal after the first second is a second one.
    await until(lambda: time.monotonic() - asked_at > 1.1)
    first.signal(signal.SIGINT)
    again_at = time.monotonic()
    code = await first.exit()

    assert code == 130
    assert time.monotonic() - again_at < 10
    await stage.run(target, nap=0)
    await stage.until_effects(10, "handled", timeout=5)
    assert repeated(stage.ids()) == {}


async def test_a_second_signal_ends_even_what_swallows_every_cancellation(
    stage: Stage, plain: Client
) -> None:
    first = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1")
            async def route(event):
                effect("begun", id=event.id)
                while True:
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        pass
        """)
    )
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "begun")

    first.signal(signal.SIGTERM)
    await first.until_said("stopping: SIGTERM")
    asked_at = time.monotonic()
    await until(lambda: time.monotonic() - asked_at > 1.1)
    first.signal(signal.SIGTERM)

    assert await first.exit(timeout=6) == 130


@pytest.mark.parametrize("one", [signal.SIGTERM, signal.SIGINT])
async def test_stopping_while_there_is_no_server_ends_promptly(
    stage: Stage, one: signal.Signals
) -> None:
    worker = stage.spawn(stage.app(SLOW), url=f"nats://{LOOPBACK}:{free_port()}", nap=0)
    await worker.until_said("cannot connect")

    worker.signal(one)
    asked_at = time.monotonic()
    code = await worker.exit()

    assert code == 0
    assert time.monotonic() - asked_at < 10
    assert worker.lines("error") == []


async def test_stopping_while_the_server_is_silent_ends_promptly(stage: Stage) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        url = f"nats://{LOOPBACK}:{silent.getsockname()[1]}"
        worker = stage.spawn(stage.app(SLOW), url=url, nap=0)
        await until(worker.takes_signals)

        worker.signal(signal.SIGTERM)
        code = await worker.exit(timeout=3)

    assert code == 0


async def test_stopping_with_a_large_backlog_buffered_never_hangs(
    stage: Stage, plain: Client
) -> None:
    target = stage.app(SLOW.replace("prefetch=50", "prefetch=2000"))
    first = await stage.run(target, nap=60, grace=0.2)
    ids = await publish_foreign(plain, 5_000)
    await stage.until_effects(4, "begun")

    asked_at = time.monotonic()
    code = await first.stop()

    assert code == 0
    assert time.monotonic() - asked_at < 10
    await stage.run(target, nap=0)
    await stage.until_effects(5_000, "handled")
    await until_settled(plain, "r1")
    assert sorted(ids) == sorted(stage.ids())


async def test_stopping_during_an_outage_ends_within_grace(
    stage: Stage, plain: Client, nats_server: NatsServer
) -> None:
    worker = await stage.run(stage.app(SLOW), nap=60, grace=0.3)
    await publish_foreign(plain, 60)
    await stage.until_effects(4, "begun")
    nats_server.kill()
    await worker.until_said("connection lost")

    asked_at = time.monotonic()
    code = await worker.stop()

    assert code == 0
    assert time.monotonic() - asked_at < 10


async def test_a_plain_def_handler_in_its_thread_may_finish(stage: Stage, plain: Client) -> None:
    worker = await stage.run(
        stage.app("""
            app = App("router")

            @app.on("message.received", durable="r1")
            def route(event, ctx):
                effect("begun", id=event.id)
                time.sleep(0.4)
                published = ctx.wait(ctx.publish("custom.done", {"id": event.id}))
                effect("handled", id=event.id, stream=published.stream)
        """)
    )
    await plain.jetstream().publish(*foreign_event("message.received", id="one"))
    await stage.until_effects(1, "begun")

    code = await worker.stop()

    assert code == 0
    assert [(one["id"], one["stream"]) for one in stage.effects("handled")] == [("one", "CUSTOM")]
    assert (await consumer(plain, "r1"))["num_ack_pending"] == 0

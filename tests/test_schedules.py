"""Events that are published later: kept by the server, replaced, cancelled, and published once."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import App, ConfigError, Context, Event, EventBus, RetryPolicy, Scheduled
from omni_worker.errors import ApiError, NoStream, PermissionDenied, TransportError
from omni_worker.nats_server import NatsServer
from omni_worker.operations.dry import dry
from omni_worker.operations.trace import trace_event
from omni_worker.schedules.due import due_at
from omni_worker.schedules.keeper import check_version
from omni_worker.schedules.messages import due_consumer, due_subject, schedule_subject
from omni_worker.signals import Listener, NotForwarded
from omni_worker.testing import TestWorker
from omni_worker.topology import NANO, OWN_STREAM
from omni_worker.transports.base import Message, Source, StoredMessage
from tests.faults.servers import configured
from tests.promises.conftest import World, body, kind, real_server, world
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]


class Anything(BaseModel):
    """A payload of no importance."""


async def stored(bus: EventBus, subject: str, stream: str = "CUSTOM") -> list[StoredMessage]:
    """Every message on a subject, in order."""
    found: list[StoredMessage] = []
    while True:
        after = found[-1].sequence + 1 if found else 1
        message = await bus.transport.operators.next_message(stream, after, subject)
        if message is None:
            return found
        found.append(message)


async def published(bus: EventBus, subject: str = "custom.late", count: int = 1) -> list[Any]:
    """The payloads on a subject, once there are so many."""

    async def are_there() -> bool:
        return len(await stored(bus, subject)) >= count

    await until(are_there)
    return [read(one)["payload"] for one in await stored(bus, subject)]


def read(message: StoredMessage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message.body)
    return found


# --- when it is due -------------------------------------------------------------------------


async def test_an_event_is_published_when_it_is_due_and_not_before(world: World) -> None:
    bus = await world.bus("shop")
    came: list[tuple[int, Event[Any]]] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        came.append((bus.transport.clock(), event))

    await bus.subscribe("custom.late", handle, durable="r1")
    began = bus.transport.clock()

    scheduled = await bus.publish(
        "custom.late", {"n": 1}, after=0.4, channel="whatsapp", instance="wa-1", person_id="p"
    )
    await until(lambda: came)

    [(at, event)] = came
    due = round(scheduled.due.timestamp() * 1000)
    assert at - began >= 0.4 * NANO
    assert at - began < 3 * NANO
    assert event.id == scheduled.id
    assert (event.payload, event.channel, event.instance) == ({"n": 1}, "whatsapp", "wa-1")
    assert event.metadata.person_id == "p"
    assert event.metadata.source == "shop"
    assert abs(event.timestamp - due) <= 1


async def test_a_time_may_be_given_and_one_that_is_over_is_due_at_once(world: World) -> None:
    bus = await world.bus()
    at = datetime.now(UTC) - timedelta(days=1)

    scheduled = await bus.publish("custom.late", 1, at=at)

    assert await published(bus) == [1]
    assert scheduled == Scheduled(scheduled.id, at)


async def test_what_is_published_has_the_headers_of_any_other_event(world: World) -> None:
    bus = await world.bus()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    draft_id = (await bus.publish("custom.late", 1, after=0)).id

    await published(bus)
    [plain] = await stored(bus, "custom.late")

    assert plain.headers == {"Nats-Msg-Id": [draft_id]}
    assert parent not in str(plain.headers)


async def test_a_process_that_connects_later_publishes_what_is_due(world: World) -> None:
    first = await world.bus("shop")
    other = await world.bus("another")
    await first.publish("custom.late", 1, after=0.2)
    await first.close()

    async def is_due() -> bool:
        return bool(await stored(other, "omni-worker.due.shop.>", OWN_STREAM.name))

    await until(is_due)
    before = await stored(other, "custom.late")
    began = time.monotonic()
    again = await world.bus("shop")

    assert before == []
    assert await published(again) == [1]
    assert time.monotonic() - began < 8  # a look would find it after ten seconds


async def test_every_connected_process_forwards_and_each_event_once(world: World) -> None:
    buses = [await world.bus("shop") for _ in range(3)]
    await buses[0].publish("custom.late", -1, after=0)
    await buses[1].schedules.forwarder.look()
    await buses[2].schedules.forwarder.look()

    for number in range(60):
        await buses[number % 3].publish("custom.late", number, after=0.3)
    await buses[0].close()

    assert sorted(await published(buses[1], count=61)) == list(range(-1, 60))


# A process that connects and is killed: before it publishes what is due, or before it settles it.
KILLED = """
import asyncio, os, signal, sys
from omni_worker import EventBus
from omni_worker.schedules.forwarder import Forwarder

setattr(Forwarder, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))

async def main():
    async with EventBus(sys.argv[1], name="shop"):
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_killed_before_it_publishes_or_settles_a_forwarder_loses_and_doubles_nothing(
    nats_server: NatsServer,
) -> None:
    async with EventBus(nats_server.url, name="shop") as bus:
        await bus.publish("custom.late", -1, after=0)
        await published(bus)
        at = datetime.now(UTC) + timedelta(seconds=1)
        await asyncio.gather(*(bus.publish("custom.late", one, at=at) for one in range(300)))
        await bus.schedules.forwarder.stop()

        ends = []
        for step in ("_read", "_answer"):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", KILLED, nats_server.url, step
            )
            ends.append(await asyncio.wait_for(process.wait(), 30))
        before = len(await stored(bus, "custom.late"))
        bus.schedules.forwarder.open()
        await bus.schedules.forwarder.look()

        assert ends == [-signal.SIGKILL] * 2
        assert before > 1  # published, and not settled
        payloads = await published(bus, count=301)
        await until(lambda: _is_settled(bus))
        assert sorted(payloads) == list(range(-1, 300))
        assert len(await stored(bus, "custom.late")) == 301


async def _is_settled(bus: EventBus) -> bool:
    consumer = due_consumer(bus.name)
    info = await bus.transport.operators.consumer_info(consumer.stream, consumer.name)
    return info is not None and not (info.num_pending or info.num_ack_pending)


async def test_a_process_without_the_right_to_publish_leaves_it_to_others(tmp_path: Path) -> None:
    users = [
        {"user": "maker", "password": "x"},
        {
            "user": "denied",
            "password": "x",
            "permissions": {"publish": {"deny": ["custom.late"]}},
        },
    ]
    with configured(tmp_path, json.dumps({"authorization": {"users": users}})) as server:
        url = server.url.replace("://", "://{}:x@")
        async with EventBus(url.format("denied"), name="shop") as denied:
            refused: list[NotForwarded] = []
            denied.signals.add(Listener(refused.append, (NotForwarded,)))
            await denied.publish("custom.late", 1, after=0)
            await until(lambda: refused and denied.schedules.forwarder._source is None)
            await denied.schedules.look()

            async with EventBus(url.format("maker"), name="shop") as bus:
                assert await published(bus) == [1]

            assert denied.schedules.forwarder._source is None
            assert [type(one.cause) for one in refused] == [PermissionDenied]


async def test_two_looks_at_once_begin_one_pull(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=60)
    forwarder, begun = bus.schedules.forwarder, []
    await forwarder.stop()
    forwarder.open()
    consume = bus.transport.consume

    async def counted(*arguments: Any) -> Source:
        begun.append(arguments)
        return await consume(*arguments)

    bus.transport.consume = counted  # type: ignore[method-assign]

    await asyncio.gather(forwarder.look(), forwarder.ensure(), forwarder.look())

    assert len(begun) == 1


# --- replacing and cancelling ---------------------------------------------------------------


async def test_a_second_event_of_one_key_replaces_the_first(world: World) -> None:
    bus = await world.bus()

    await bus.publish("custom.late", "first", after=60, key="follow-up:chat 7")
    second = await bus.publish("custom.late", "second", after=0.2, key="follow-up:chat 7")

    assert second.applied
    assert await published(bus) == ["second"]


async def test_a_cancelled_event_is_not_published_and_cancel_says_if_it_was_in_time(
    world: World,
) -> None:
    bus = await world.bus()
    kept = await bus.publish("custom.late", "kept", after=0.5)
    by_id = await bus.publish("custom.late", "by id", after=0.3)
    by_key = await bus.publish("custom.late", "by key", after=0.3, key="k")
    late = await bus.publish("custom.late", "late", after=0)
    await published(bus)

    answers = [
        await bus.cancel(by_id.id),
        await bus.cancel(by_key),
        await bus.cancel("k"),
        await bus.cancel(late),
        await bus.cancel("never there"),
    ]

    assert answers == [True, True, False, False, False]
    assert await published(bus, count=2) == ["late", "kept"]
    assert await bus.cancel(kept) is False


async def test_a_key_that_was_cancelled_can_be_used_again(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=60, key="k")
    await bus.cancel("k")

    again = await bus.publish("custom.late", 2, after=0.1, key="k")

    assert again.applied
    assert await published(bus) == [2]


async def test_an_id_is_scheduled_once(world: World) -> None:
    bus = await world.bus()

    first = await bus.publish("custom.late", 1, after=0.3, id="order-1")
    second = await bus.publish("custom.late", 1, after=60, id="order-1")
    await published(bus)
    third = await bus.publish("custom.late", 1, after=0, id="order-1")

    assert (first.applied, second.applied, third.applied) == (True, False, False)
    assert second.due == third.due == first.due
    assert await published(bus) == [1]


async def test_writers_of_one_key_at_the_same_time_leave_one_event(world: World) -> None:
    buses = [await world.bus("shop") for _ in range(4)]

    await asyncio.gather(
        *(
            buses[number % 4].publish("custom.late", number, after=3, key="k")
            for number in range(12)
        )
    )

    kept = await stored(buses[0], schedule_subject("shop", "k"), OWN_STREAM.name)
    assert len(kept) == 1
    assert await published(buses[0]) == [read(kept[0])["payload"]]


# --- inside a handler -----------------------------------------------------------------------


async def test_in_a_handler_a_second_run_schedules_the_same_event(world: World) -> None:
    bus = await world.bus()
    made: list[Scheduled] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        made.append(await ctx.publish("custom.late", 1, after=0.5))
        if ctx.attempt == 1:
            raise ValueError("once more")

    await bus.subscribe(
        "custom.thing", handle, durable="r1", retry=RetryPolicy(retries=1, delay=0.01)
    )
    await world.store("custom.thing", body("e1"))

    payloads = await published(bus)
    await until(lambda: len(made) == 2)
    assert payloads == [1]
    assert made[0].id == made[1].id
    assert made[1] == Scheduled(made[0].id, made[0].due, applied=False)
    [late] = await stored(bus, "custom.late")
    assert read(late)["metadata"]["causationId"] == "e1"


async def test_an_event_that_is_handled_late_neither_replaces_nor_cancels_what_a_newer_one_did(
    world: World,
) -> None:
    bus = await world.bus()
    order: list[str] = []
    newer_done = asyncio.Event()
    answers: list[Any] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        if event.payload == "older":
            await newer_done.wait()
            answers.append(await ctx.cancel("k"))
        answers.append(
            (await ctx.publish("custom.late", event.payload, after=0.4, key="k")).applied
        )
        order.append(event.payload)
        newer_done.set()

    await bus.subscribe("custom.thing", handle, durable="r1", concurrency=2)
    await world.store("custom.thing", body("e1", payload="older"))
    await world.store("custom.thing", body("e2", payload="newer"))

    assert await published(bus) == ["newer"]
    assert order == ["newer", "older"]
    assert answers == [True, False, False]


async def test_a_cancel_counts_also_before_an_older_event_schedules(world: World) -> None:
    bus = await world.bus()
    answered = asyncio.Event()
    seen: list[Any] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        if event.payload == "answer":
            seen.append(await ctx.cancel("k"))
            answered.set()
        else:
            await answered.wait()
            seen.append((await ctx.publish("custom.late", 1, after=0, key="k")).applied)
            seen.append((await ctx.publish("custom.late", 2, after=0)).applied)

    await bus.subscribe("custom.thing", handle, durable="r1", concurrency=2)
    await world.store("custom.thing", body("e1", payload="question"))
    await world.store("custom.thing", body("e2", payload="answer"))

    assert await published(bus) == [2]
    assert seen == [False, False, True]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_publish_that_was_not_awaited_fails_its_run(world: World) -> None:
    bus = await world.bus()

    async def handle(event: Event[Any], ctx: Context) -> None:
        ctx.publish("custom.late", 1, after=0)  # type: ignore[unused-coroutine]

    subscription = await bus.subscribe("custom.thing", handle, durable="r1", max_retries=0)
    await world.store("custom.thing", body("e1"))

    await until(lambda: subscription.counts.dead_lettered)
    [letter] = await world.letters()
    assert "never awaited" in letter["payload"]["error"]


# --- what stands in the way -----------------------------------------------------------------


async def test_what_could_not_be_published_is_refused_at_once(world: World) -> None:
    bus = await world.bus()
    bus.registry.extend("unheard.of", Anything, stream="NOWHERE", description="")

    with pytest.raises(NoStream, match=r"no stream on the server stores unheard\.of"):
        await bus.publish("unheard.of", {}, after=60)
    with pytest.raises(ConfigError, match="a time without its zone"):
        await bus.publish("custom.late", 1, at=datetime.now())
    with pytest.raises(ConfigError, match="give one of them"):
        await bus.publish("custom.late", 1, at=datetime.now(UTC), after=1)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="give after= or at=, too"):
        await bus.publish("custom.late", 1, key="k")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="key='': expected 1 to 256"):
        await bus.publish("custom.late", 1, after=1, key="")
    assert await stored(bus, "omni-worker.>", OWN_STREAM.name) == []


async def test_an_own_stream_of_an_earlier_version_keeps_schedules_from_now_on(
    world: World,
) -> None:
    bus = await world.bus()
    await bus._provisioner.ensure_own_stream()
    before = await bus.transport.operators.stream_info(OWN_STREAM.name)

    await bus.publish("custom.late", 1, after=0.1)

    assert before is not None
    assert not before.config.raw.get("allow_msg_schedules")
    assert await published(bus) == [1]


async def test_a_stream_that_was_deleted_is_made_again(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=0)
    await published(bus)
    await world.delete_stream(OWN_STREAM.name)

    await bus.publish("custom.late", 2, after=0.1)

    assert await published(bus, count=2) == [1, 2]


async def test_without_the_right_to_make_it_the_error_says_what_is_missing(world: World) -> None:
    bus = await world.bus(provision="off")

    with pytest.raises(TransportError, match="OMNI_WORKER has to keep schedules"):
        await bus.publish("custom.late", 1, after=0.1)


async def test_a_key_that_others_keep_writing_is_given_up_with_what_to_do(world: World) -> None:
    bus = await world.bus()

    async def beaten(message: Message, timeout: float) -> None:
        raise ApiError("wrong last sequence", code=400, err_code=10071)

    bus.schedules._send = beaten  # type: ignore[method-assign, assignment]

    with pytest.raises(TransportError, match=r"schedule 'k' of tests: others .* 20 times .*; try"):
        await bus.publish("custom.late", 1, after=60, key="k")


async def test_an_event_waits_while_its_stream_is_missing(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=0.3)
    await world.delete_stream("CUSTOM")

    async def waits() -> bool:
        info = await bus.transport.operators.consumer_info(
            OWN_STREAM.name, due_consumer("tests").name
        )
        return (
            info is not None
            and info.num_ack_pending == 1
            and bool(bus.schedules.forwarder._refused)
        )

    await until(waits)


async def test_what_is_no_event_of_ours_is_dropped(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=60)
    headers = {"Omni-Worker-Subject": "omni-worker.retry.tests", "Omni-Worker-Id": "x"}
    for given in ({}, headers, {**headers, "Omni-Worker-Subject": "$JS.API.INFO"}):
        subject = due_subject("tests", "x")
        await bus.transport.publish(Message(subject, b"{}", "", given), timeout=5)

    async def is_settled() -> bool:
        name = due_consumer("tests").name
        info = await bus.transport.operators.consumer_info(OWN_STREAM.name, name)
        assert info is not None
        return not (info.num_pending or info.num_ack_pending)

    await until(is_settled)
    assert await stored(bus, "omni-worker.retry.tests", OWN_STREAM.name) == []


async def test_a_deleted_consumer_is_made_again_and_loses_nothing(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=0)
    await published(bus)
    forwarder, name = bus.schedules.forwarder, due_consumer("tests").name
    await bus.publish("custom.late", 2, after=0.2)

    async def is_settled() -> bool:
        await forwarder.look()
        return bool(forwarder._floor)

    await until(is_settled)
    await bus.transport.operators.delete_consumer(OWN_STREAM.name, name)

    async def is_due() -> bool:
        return len(await stored(bus, "omni-worker.due.>", OWN_STREAM.name)) == 2

    await until(is_due)
    await until(lambda: forwarder._source is None)
    await forwarder.look()

    assert await published(bus, count=2) == [1, 2]


async def test_a_dry_run_shows_what_would_be_scheduled_and_changes_nothing(world: World) -> None:
    captured: list[Message] = []
    transport = dry(world.transport(), captured.append)
    bus = EventBus(transport=transport, name="tests")
    await bus.connect()
    world.buses.append(bus)

    scheduled = await bus.publish("custom.late", 1, after=60)

    [message] = captured
    assert message.subject == schedule_subject("tests", scheduled.id)
    assert await bus.transport.operators.stream_info(OWN_STREAM.name) is None
    assert await bus.cancel(scheduled) is False


async def test_a_trace_shows_an_event_once_and_not_its_schedule(world: World) -> None:
    bus = await world.bus()
    await bus.subscribe("custom.late", lambda event: None, durable="r1")
    scheduled = await bus.publish("custom.late", 1, after=0)
    await published(bus)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)

    found = await trace_event(bus.transport, scheduled.id, since=an_hour_ago)

    assert [one.stream for one in found.places] == ["CUSTOM"]
    assert found.returns == []


async def test_a_trace_finds_an_event_that_is_not_published_yet(world: World) -> None:
    bus = await world.bus("shop")
    await bus.subscribe("custom.late", lambda event: None, durable="r1")
    scheduled = await bus.publish("custom.late", 1, after=3600, key="chat-1")
    await bus.publish("custom.late", 2, after=3600)
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)

    found = await trace_event(bus.transport, scheduled.id, since=an_hour_ago)
    begins = await trace_event(bus.transport, scheduled.id[:8], since=an_hour_ago)
    short = await trace_event(bus.transport, scheduled.id[:5], since=an_hour_ago)

    for trace in (found, begins):
        [waiting] = trace.scheduled
        assert (waiting.id, waiting.key, waiting.app) == (scheduled.id, "chat-1", "shop")
        assert waiting.subject == "custom.late"
        assert trace.is_found
        assert not trace.places
    assert not short.is_found


def test_a_server_that_is_too_old_is_named() -> None:
    with pytest.raises(TransportError, match=r"needs nats-server 2\.12\.0 or newer; this one"):
        check_version((2, 11, 8))
    check_version((2, 12, 0))


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), 1e12, "60", True])
def test_a_delay_that_is_none_is_refused(after: Any) -> None:
    with pytest.raises(ConfigError, match=r"publish\(after"):
        due_at(after, None, 0)


def test_a_delay_may_be_a_timedelta() -> None:
    assert due_at(timedelta(minutes=1), None, 5) == 60 * NANO + 5


# --- in virtual time ------------------------------------------------------------------------


async def test_a_follow_up_after_a_day_is_cancelled_by_an_answer() -> None:
    app = App("bot")

    @app.on("custom.chat", durable="chats")
    async def chat(event: Event[Any]) -> None:
        key = f"follow-up:{event.payload['chat']}"
        await app.cancel(key)
        if event.payload["text"] == "question":
            await app.publish("custom.follow_up", event.payload["chat"], after=86_400, key=key)

    async with TestWorker(app) as t:
        for number in (1, 2):
            await t.publish("custom.chat", {"chat": number, "text": "question"})
        await t.settle()
        await t.advance(hours=12)
        await t.publish("custom.chat", {"chat": 1, "text": "answer"})
        await t.settle()
        before = t.published("custom.follow_up")

        await t.advance(hours=12, seconds=1)

        assert before == []
        assert [one.payload for one in t.published("custom.follow_up")] == [2]


async def test_a_schedule_outlives_a_restart_of_its_app() -> None:
    app = App("bot")

    @app.on("custom.chat", durable="chats")
    async def chat(event: Event[Any]) -> None:
        await app.publish("custom.follow_up", 1, after=3600 * 24 * 60)

    async with TestWorker(app) as t:
        await t.publish("custom.chat", 1)
        await t.settle()
        await t.restart()

        await t.advance(days=60, seconds=1)
        await t.settle()

        assert len(t.published("custom.follow_up")) == 1

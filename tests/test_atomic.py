"""Several events all or none: committed by one batch, forwarded from our own stream, each once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import App, ConfigError, Context, Event, EventBus, RetryPolicy, Settings
from omni_worker.errors import (
    ApiError,
    EventTooLarge,
    InvalidPayload,
    NoStream,
    NotConnected,
    PermissionDenied,
    PublishError,
    TransportError,
)
from omni_worker.events import Published
from omni_worker.operations.dry import dry
from omni_worker.operations.trace import trace_event
from omni_worker.schedules import own_stream
from omni_worker.schedules.atomic import Atomic, Committed
from omni_worker.schedules.messages import batch_subject
from omni_worker.signals import Listener, PublishConfirmed, PublishFailed
from omni_worker.testing import TestWorker
from omni_worker.topology import OWN_STREAM
from omni_worker.transports.base import Message, Stored, StoredMessage
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.faults.servers import configured
from tests.promises.conftest import World, body, kind, real_server, world
from tests.test_schedules import stored
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]


class Numbered(BaseModel):
    """A payload with a number."""

    number: int


async def kept(bus: EventBus) -> list[StoredMessage]:
    """Return the committed messages, forwarded or not."""
    if await bus.transport.operators.stream_info(OWN_STREAM.name) is None:
        return []
    return await stored(bus, batch_subject("*", "*"), OWN_STREAM.name)


async def published(bus: EventBus, subject: str, count: int = 1) -> list[Any]:
    """The payloads on a subject, once there are so many."""

    async def are_there() -> bool:
        return len(await stored(bus, subject)) >= count

    await until(are_there)
    return [json.loads(one.body)["payload"] for one in await stored(bus, subject)]


async def block(
    tx: Atomic, *events: tuple[Any, ...], fails: type[BaseException] | None = None
) -> None:
    """Publish (type, payload, further fields) in a block."""
    async with tx:
        for type, payload, *fields in events:
            await tx.publish(type, payload, **(fields[0] if fields else {}))
        if fails is not None:
            raise fails


# --- all ------------------------------------------------------------------------------------


async def test_leaving_the_block_publishes_all_of_its_events(world: World) -> None:
    bus = await world.bus("shop")
    bus.registry.register("custom.number", Numbered)
    came: list[Event[Any]] = []
    await bus.subscribe("custom.>", lambda event: came.append(event), durable="r1")
    await bus.subscribe("message.received", lambda event: came.append(event), durable="r2")

    async with bus.atomic() as tx:
        first = await tx.publish("custom.number", {"number": 1}, person_id="p")
        second = await tx.publish("custom.b", [2], id="order-2")
        before = await kept(bus), tx.committed
    await until(lambda: len(came) == 2)

    assert before == ([], None)
    assert tx.committed == Committed((first, second), applied=True)
    by_id = {event.id: event for event in came}
    assert set(by_id) == {first, "order-2"}
    assert (by_id[first].type, by_id[first].payload) == ("custom.number", {"number": 1})
    assert by_id[first].metadata.person_id == "p"
    assert by_id[first].metadata.source == "shop"
    assert by_id["order-2"].payload == [2]
    [plain] = await stored(bus, "custom.b")
    assert plain.headers == {"Nats-Msg-Id": ["order-2"]}


async def test_events_of_several_streams_are_one_batch(world: World) -> None:
    bus = await world.bus()

    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1)
        await tx.publish("system.connector.recovered", {"n": 2})

    assert await published(bus, "custom.a") == [1]
    await until(lambda: stored(bus, "system.connector.recovered", "SYSTEM"))
    assert len(await kept(bus)) == 2


async def test_one_process_forwards_the_events_of_a_block_in_their_order(world: World) -> None:
    bus = await world.bus()

    for start in (0, 200):
        async with bus.atomic() as tx:
            for number in range(start, start + 200):
                await tx.publish("custom.a", number)

    assert await published(bus, "custom.a", 400) == list(range(400))


async def test_an_empty_block_does_nothing(world: World) -> None:
    bus = await world.bus()

    async with bus.atomic() as tx:
        pass

    assert tx.committed is None
    assert await kept(bus) == []


async def test_the_same_ids_are_committed_once(world: World) -> None:
    bus = await world.bus()
    applied = []

    for _ in range(2):
        async with bus.atomic() as tx:
            await tx.publish("custom.a", 1, id="a")
            await tx.publish("custom.b", 2, id="b")
        assert tx.committed is not None
        applied.append(tx.committed.applied)

    assert applied == [True, False]
    assert len(await kept(bus)) == 2
    assert await published(bus, "custom.b") == [2]


async def test_what_is_committed_waits_for_a_process_of_the_app(world: World) -> None:
    first, other = await world.bus("shop"), await world.bus("another")
    await first.schedules.outbox.prepare()
    await first.schedules.forwarder.stop()
    async with first.atomic() as tx:
        await tx.publish("custom.a", 1)
    await first.close()
    before = await stored(other, "custom.a")

    again = await world.bus("shop")

    assert before == []
    assert await published(again, "custom.a") == [1]


async def test_middlewares_see_the_events_and_listeners_hear_of_the_commit(world: World) -> None:
    bus = await world.bus()
    said: list[str] = []

    def hear(signal: PublishConfirmed | PublishFailed) -> None:
        said.append(f"{type(signal).__name__} {signal.type}")

    async def mark(event: Event[Any], call_next: Any) -> Published:
        event.payload = {"marked": event.payload}
        result: Published = await call_next(event)
        return result

    server = bus.transport
    bus = EventBus(
        transport=world.transport(), listeners=[Listener(hear, (PublishConfirmed, PublishFailed))]
    )
    world.buses.append(bus)
    await bus.connect()
    bus.publish_middleware(mark)
    with pytest.raises(RuntimeError):
        await block(bus.atomic(), ("custom.a", 0), fails=RuntimeError)
    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1)
        before = list(said)

    assert server.is_connected
    assert before == []
    assert said == ["PublishConfirmed custom.a"]
    assert await published(bus, "custom.a") == [{"marked": 1}]


# --- or none --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
async def test_an_exception_in_the_block_publishes_nothing(
    world: World, error: type[BaseException]
) -> None:
    bus = await world.bus()

    tx = bus.atomic()
    with pytest.raises(error):
        await block(tx, ("custom.a", 1), fails=error)

    assert tx.committed is None
    assert await kept(bus) == []


async def test_what_could_not_be_published_is_refused_at_its_line(world: World) -> None:
    bus = await world.bus()
    bus.registry.extend("unheard.of", Numbered, stream="NOWHERE", description="")
    bus.registry.register("custom.number", Numbered)
    wrong: list[tuple[type[Exception], str, str, Any, dict[str, Any]]] = [
        (NoStream, "no stream on the server stores", "unheard.of", {"number": 1}, {}),
        (InvalidPayload, "does not fit its schema", "custom.number", {"number": "x"}, {}),
        (EventTooLarge, "send a reference", "custom.a", "x" * bus.transport.max_payload, {}),
        (ConfigError, r"tx\.publish\(after=…\)", "custom.a", 1, {"after": 1}),
        (ConfigError, r"tx\.publish\(timeout=…\)", "custom.a", 1, {"timeout": 1}),
        (TypeError, "takes no colour=", "custom.a", 1, {"colour": 1}),
    ]

    for kind_, match, type_, payload, fields in wrong:
        with pytest.raises(kind_, match=match):
            await block(bus.atomic(), ("custom.a", 0), (type_, payload, fields))

    assert await kept(bus) == []


async def test_an_event_is_refused_when_it_fits_alone_and_not_with_what_the_block_adds(
    world: World,
) -> None:
    bus = await world.bus()
    headers, room = {"traceparent": "t" * 50}, 300
    event = Message("custom.a", b"x" * (bus.transport.max_payload - room), "id", headers)

    with pytest.raises(EventTooLarge, match="in an atomic block"):
        await bus.schedules.outbox.check(event)
    fits = event._replace(body=event.body[:-400])
    await bus.schedules.outbox.prepare()
    await bus.schedules.outbox.check(fits)

    assert await bus.schedules.outbox.commit([fits] * 2, 5)


async def test_a_block_takes_a_thousand_events(world: World) -> None:
    bus = await world.bus()

    with pytest.raises(ConfigError, match="1000 events in one block"):
        await block(bus.atomic(), *[("custom.a", number) for number in range(1001)])
    nothing = await kept(bus)
    await block(bus.atomic(), *[("custom.a", number) for number in range(1000)])

    assert nothing == []
    assert len(await published(bus, "custom.a", 1000)) == 1000


async def test_a_publish_that_is_not_awaited_commits_nothing(world: World) -> None:
    bus = await world.bus()

    tx = bus.atomic()
    forgotten = tx.publish("custom.a", 2)
    with pytest.raises(ConfigError, match="was called and has not ended"):
        await block(tx, ("custom.a", 1))
    forgotten.close()

    assert await kept(bus) == []


async def test_a_block_is_used_once_and_inside(world: World) -> None:
    bus = await world.bus()

    with pytest.raises(ConfigError, match="write async with"):
        await bus.atomic().publish("custom.a", 1)
    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1)
    with pytest.raises(ConfigError, match="its block is over"):
        await tx.publish("custom.a", 2)
    with pytest.raises(ConfigError, match="entered once"):
        async with tx:
            pass
    with pytest.raises(NotConnected):
        async with App("bot").atomic():
            pass


# --- inside a handler -----------------------------------------------------------------------


async def test_in_a_handler_a_second_run_commits_the_same_events_once(world: World) -> None:
    bus = await world.bus()
    blocks: list[Atomic] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        async with (ctx if len(blocks) % 2 else bus).atomic() as tx:
            await tx.publish("custom.a", 1)
            await tx.publish("custom.a", 1)
        blocks.append(tx)
        if ctx.attempt < 3:
            raise RuntimeError("after the commit")

    retry = RetryPolicy(retries=2, delay=0.01)
    subscription = await bus.subscribe("custom.thing", handle, durable="r1", retry=retry)
    await world.store("custom.thing", body("e1", metadata={"correlationId": "c"}))
    await until(lambda: subscription.counts.handled)

    committed = [one.committed for one in blocks]
    assert [one.applied for one in committed if one is not None] == [True, False, False]
    assert len({one.ids for one in committed if one is not None}) == 1
    assert await published(bus, "custom.a", 2) == [1, 1]
    [first, second] = [json.loads(one.body) for one in await stored(bus, "custom.a")]
    assert first["id"] != second["id"]
    assert first["metadata"]["correlationId"] == "c"
    assert first["metadata"]["causationId"] == "e1"
    assert len(await kept(bus)) == 2


async def test_a_handler_that_fails_in_the_block_publishes_nothing(world: World) -> None:
    bus = await world.bus()

    async def handle(event: Event[Any], ctx: Context) -> None:
        async with ctx.atomic() as tx:
            await tx.publish("custom.a", 1)
            raise RuntimeError("in the block")

    subscription = await bus.subscribe("custom.thing", handle, durable="r1", max_retries=0)
    await world.store("custom.thing", body("e1"))
    await until(lambda: subscription.counts.dead_lettered)

    assert await kept(bus) == []


async def test_in_a_test_worker_what_a_block_publishes_is_handled() -> None:
    app = App("bot")
    paid: list[Any] = []

    @app.on("custom.order", durable="orders")
    async def order(event: Event[Any]) -> None:
        async with app.atomic() as tx:
            await tx.publish("custom.paid", event.payload)
            await tx.publish("custom.sent", event.payload)

    @app.on("custom.paid", durable="paid")
    async def handle(event: Event[Any]) -> None:
        paid.append(event.payload)

    async with TestWorker(app) as t:
        await t.publish("custom.order", 7)
        await t.settle()

        assert paid == [7]
        assert [one.payload for one in t.published("custom.sent")] == [7]


# --- lost answers, and servers in the way ---------------------------------------------------


class Lossy:
    """A transport's ``publish_atomic`` whose answers are lost, or which fails before it begins."""

    def __init__(self, bus: EventBus, *outcomes: Exception | None, stores: bool) -> None:
        self._publish = bus.transport.publish_atomic
        self._outcomes = list(outcomes)
        self._stores = stores
        self.tries = 0
        bus.transport.publish_atomic = self  # type: ignore[method-assign]

    async def __call__(self, messages: Sequence[Message], *, timeout: float) -> Stored:
        self.tries += 1
        outcome = self._outcomes.pop(0) if self._outcomes else None
        if outcome is None:
            return await self._publish(messages, timeout=timeout)
        if self._stores:
            await self._publish(messages, timeout=timeout)
        raise outcome


async def test_a_commit_whose_answer_is_lost_is_found_by_the_next_try(world: World) -> None:
    bus = await world.bus()
    lossy = Lossy(bus, PublishError("lost", event_id=""), stores=True)

    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1)
        await tx.publish("custom.b", 2)

    assert lossy.tries == 2
    assert tx.committed is not None
    assert tx.committed.applied
    assert len(await kept(bus)) == 2


@pytest.mark.parametrize("code", [10176, 10210, 10164])
async def test_a_refusal_that_may_soon_change_is_tried_again(world: World, code: int) -> None:
    bus = await world.bus()
    lossy = Lossy(bus, *[ApiError("no", code=400, err_code=code)] * 2, stores=False)

    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1)

    assert lossy.tries == 3
    assert await published(bus, "custom.a") == [1]


async def test_a_commit_that_stays_without_an_answer_says_that_it_may_be_done(
    world: World,
) -> None:
    bus = await world.bus()
    refused = ApiError("no", code=400, err_code=10999)
    Lossy(bus, PublishError("lost", event_id=""), refused, stores=False)
    tx = bus.atomic(timeout=5)

    with pytest.raises(PublishError, match="the commit of 2 events: lost") as raised:
        await block(tx, ("custom.a", 1, {"id": "a"}), ("custom.b", 2))

    assert raised.value.event_id == "a"
    assert tx.committed is None


async def test_a_refusal_that_stays_is_raised_at_once(world: World) -> None:
    bus = await world.bus()
    lossy = Lossy(bus, ApiError("no", code=400, err_code=10999), stores=False)

    with pytest.raises(ApiError, match="no"):
        async with bus.atomic() as tx:
            await tx.publish("custom.a", 1)

    assert lossy.tries == 1
    assert await kept(bus) == []


async def test_a_commit_waits_for_the_link() -> None:
    transport = MemoryTransport()
    async with EventBus(transport=transport) as bus:
        async with bus.atomic() as tx:
            await tx.publish("custom.a", 1)
            transport.disconnect()
            asyncio.get_running_loop().call_later(0.3, transport.reconnect)

        assert await published(bus, "custom.a") == [1]


async def test_a_stream_that_was_deleted_is_made_again(world: World) -> None:
    bus = await world.bus()
    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1)
    await published(bus, "custom.a")
    await world.delete_stream(OWN_STREAM.name)

    async with bus.atomic() as tx:
        await tx.publish("custom.a", 2)

    assert await published(bus, "custom.a", 2) == [1, 2]


async def test_an_own_stream_with_schedules_takes_batches_from_now_on(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=0)
    await published(bus, "custom.late")
    operators = bus.transport.operators
    before = await operators.stream_info(OWN_STREAM.name)
    assert before is not None
    await operators.update_stream({**before.config.raw, "allow_atomic": False})  # as others made it

    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1)

    assert await published(bus, "custom.a") == [1]
    info = await bus.transport.operators.stream_info(OWN_STREAM.name)
    assert info is not None
    assert info.config.raw["allow_atomic"]
    assert info.config.raw["allow_msg_schedules"]


@pytest.mark.parametrize("is_atomic_first", [True, False])
async def test_a_first_block_and_a_first_schedule_at_once_take_nothing_back_from_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch, is_atomic_first: bool
) -> None:
    one, other = await world.bus("shop"), await world.bus("shop")
    await one._provisioner.ensure_own_stream()
    write, read = own_stream.write_stream, 0
    turns = [asyncio.Event(), asyncio.Event()]

    async def after_both_have_read(operators: Any, change: Any) -> Any:
        nonlocal read
        read += 1
        if read == 2:
            turns[0].set()
        await turns[is_atomic_first != (operators is one.transport.operators)].wait()
        info = await write(operators, change)
        turns[1].set()
        return info

    monkeypatch.setattr(own_stream, "write_stream", after_both_have_read)

    async def commit() -> None:
        async with one.atomic() as tx:
            await tx.publish("custom.a", 1)

    await asyncio.gather(commit(), other.publish("custom.late", 2, after=3600))

    assert await published(one, "custom.a") == [1]
    info = await one.transport.operators.stream_info(OWN_STREAM.name)
    assert info is not None
    assert info.config.raw["allow_atomic"]
    assert info.config.raw["allow_msg_schedules"]


async def test_without_provisioning_the_error_says_what_is_missing(world: World) -> None:
    maker, bus = await world.bus("maker"), await world.bus("shop", provision="off")
    errors = []

    async def commit(by: EventBus) -> None:
        async with by.atomic() as tx:
            await tx.publish("custom.a", 1)

    for prepare in (lambda: asyncio.sleep(0), maker._provisioner.ensure_own_stream,
                    lambda: commit(maker)):  # fmt: skip
        await prepare()
        with pytest.raises(TransportError) as raised:
            await commit(bus)
        errors.append(str(raised.value))

    assert "stream OMNI_WORKER" in errors[0]
    assert "OMNI_WORKER has to take several events all or none" in errors[1]
    assert "update the stream with allow_atomic" in errors[1]
    assert "consumer shop-due on OMNI_WORKER is needed" in errors[2]
    assert all("OMNI_WORKER_PROVISION" in one for one in errors)


async def test_the_rights_that_the_docs_list_are_enough_and_a_missing_one_is_named(
    tmp_path: Path,
) -> None:
    rights = [
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.INFO.OMNI_WORKER",
        "$JS.API.STREAM.MSG.GET.OMNI_WORKER",
        "$JS.API.CONSUMER.INFO.OMNI_WORKER.shop-due",
        "$JS.API.CONSUMER.MSG.NEXT.OMNI_WORKER.shop-due",
        "$JS.ACK.OMNI_WORKER.shop-due.>",
        "custom.a",
    ]
    commits = "omni-worker.due.shop.atomic.>"
    users = [
        {"user": "maker", "password": "x"},
        {"user": "least", "password": "x", "permissions": {"publish": [*rights, commits]}},
        {"user": "less", "password": "x", "permissions": {"publish": rights}},
    ]
    with configured(tmp_path, json.dumps({"authorization": {"users": users}})) as server:
        url = server.url.replace("://", "://{}:x@")
        off = Settings(provision="off")
        async with EventBus(url.format("maker"), name="shop") as maker:
            await block(maker.atomic(), ("custom.a", 0, {"id": "zero"}))
            await published(maker, "custom.a")
            await maker.schedules.forwarder.stop()

            async with EventBus(url.format("least"), name="shop", settings=off) as least:
                await block(least.atomic(), ("custom.a", 1))
                await block(least.atomic(), ("custom.a", 0, {"id": "zero"}))
                assert await published(maker, "custom.a", 2) == [0, 1]

            async with EventBus(url.format("less"), name="shop", settings=off) as less:
                with pytest.raises(PermissionDenied, match=r"omni-worker\.due\.shop\.atomic\."):
                    await block(less.atomic(), ("custom.a", 2))


async def test_an_older_server_is_named_before_the_block_begins() -> None:
    server = MemoryServer(version=(2, 12, 0))

    async with EventBus(transport=MemoryTransport(server)) as bus:
        with pytest.raises(TransportError, match=r"need nats-server 2\.12\.1 or newer; this one"):
            async with bus.atomic():
                pytest.fail("the block began")
        await bus.publish("custom.a", 1)


async def test_a_dry_run_shows_the_events_and_changes_nothing(world: World) -> None:
    captured: list[Message] = []
    bus = EventBus(transport=dry(world.transport(), captured.append), name="tests")
    await bus.connect()
    world.buses.append(bus)

    async with bus.atomic() as tx:
        await tx.publish("custom.a", 1, id="a")
        await tx.publish("custom.b", 2, id="b")

    assert [(one.subject, one.id) for one in captured] == [("custom.a", "a"), ("custom.b", "b")]
    assert await bus.transport.operators.stream_info(OWN_STREAM.name) is None


async def test_a_trace_shows_an_event_once_and_not_its_commit(world: World) -> None:
    bus = await world.bus()
    await bus.subscribe("custom.a", lambda event: None, durable="r1")
    async with bus.atomic() as tx:
        id = await tx.publish("custom.a", 1)
    await published(bus, "custom.a")

    found = await trace_event(bus.transport, id, since=datetime.now(UTC) - timedelta(hours=1))

    assert [one.stream for one in found.places] == ["CUSTOM"]
    assert found.returns == []

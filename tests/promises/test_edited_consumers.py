"""Others change a consumer of ours under us: it is set right, and no event is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omni_worker import Context, Event, EventBus, Retry, binding, bus, dispatch, upkeep
from omni_worker.errors import ApiError
from omni_worker.notes import AttemptNotes, Note
from omni_worker.outcomes import Outcome
from omni_worker.process.health import examine
from omni_worker.signals import (
    ConsumerEdited,
    ConsumerLost,
    ConsumerPaused,
    ConsumerRecreated,
    Listener,
    RecreationFailed,
    Signal,
    Stalled,
    StallEnded,
)
from omni_worker.transports.base import Delivery, Operators
from omni_worker.transports.jetstream import JetStreamTransport

from ..waiting import until
from .conftest import World, body

SECOND = 1_000_000_000
NAME = "d-bare"  # the consumer with the bare subjects, where these events are
CONSUMER_EXISTS = 10_148  # by another configuration


@pytest.fixture
def kind() -> str:
    return "jetstream"  # the server decides what an edit does


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the consumers every 0.2 s, not every 10 s."""
    monkeypatch.setattr(bus, "REFRESH", 0.2)
    monkeypatch.setattr(bus, "BUSY_REFRESH", 0.1)
    monkeypatch.setattr(dispatch, "BODY_DELAY", 0.2)


class Handled:
    """A handler whose every event fails once, and what is signalled about it."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.signals: list[Signal] = []

    async def subscribe(self, bus: EventBus, **options: Any) -> None:
        async def handle(event: Event[Any]) -> None:
            self.runs[event.id] += 1
            if self.runs[event.id] == 1:
                raise RuntimeError("once")
            self.done[event.id] += 1

        bus.signals.add(Listener(self.signals.append))
        await bus.subscribe(
            "custom.thing", handle, durable="d", **{"retry_delay": 0.1, "ack_wait": 5.0, **options}
        )

    def of(self, kind: type[Signal]) -> list[Any]:
        return [one for one in self.signals if isinstance(one, kind)]


async def edit(world: World, **change: Any) -> None:
    """As an operator, or as a program that writes the whole configuration."""
    info = await world.info("CUSTOM", NAME)
    await world.buses[0].transport.operators.update_consumer(
        "CUSTOM", {**info.config.raw, **change}
    )


async def config(world: World) -> dict[str, Any]:
    return dict((await world.info("CUSTOM", NAME)).config.raw)


async def replace(operators: Operators, consumer: dict[str, Any]) -> None:
    """Another consumer of the same name, by one who is faster than the worker sooner or later."""

    async def is_replaced() -> bool:
        await operators.delete_consumer("CUSTOM", NAME)
        try:
            await operators.create_consumer("CUSTOM", consumer)
        except ApiError as error:
            if error.err_code != CONSUMER_EXISTS:
                raise
            return False
        return True

    await until(is_replaced)


async def publish(world: World, *ids: str) -> None:
    for id in ids:
        await world.store("custom.thing", body(id))


EDITS = {
    "max_deliver": {"max_deliver": 1},
    "backoff": {"backoff": [600 * SECOND], "max_deliver": 5},
    "headers_only": {"headers_only": True},
    "ack_wait": {"ack_wait": 86_400 * SECOND},
    "inactive_threshold": {"inactive_threshold": 60 * SECOND},
}


@pytest.mark.parametrize("field", EDITS)
async def test_a_changed_field_is_set_right_reported_once_and_no_event_is_lost(
    world: World, field: str
) -> None:
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)
    await publish(world, "before")
    await until(lambda: handled.done["before"] == 1)
    before = await config(world)

    await edit(world, **EDITS[field])
    await publish(world, "a", "b", "c")

    await until(lambda: handled.done.keys() == {"before", "a", "b", "c"})
    await until(lambda: handled.of(ConsumerEdited))
    ignored = ("deliver_policy", "opt_start_seq", "metadata", "replay_policy")
    await until(lambda: not examine(bus, 0.0).why_not_ready)
    after = await config(world)
    assert {key: value for key, value in after.items() if key not in ignored} == {
        key: value for key, value in before.items() if key not in ignored
    }
    [edited] = handled.of(ConsumerEdited)
    assert field in edited.changes
    assert await world.letters() == []
    await until(lambda: world.is_quiet("CUSTOM", NAME))
    assert max(handled.done.values()) == 1


async def test_a_consumer_that_another_process_recreated_meanwhile_is_not_touched_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, other, handled = await world.bus(), await world.bus(), Handled()
    await handled.subscribe(bus, retry_delay=1.0)
    await handled.subscribe(other, retry_delay=1.0)
    operators = bus.transport.operators
    delete = operators.delete_consumer

    async def answered_late(stream: str, name: str) -> None:
        await delete(stream, name)
        await until(lambda: handled.of(ConsumerRecreated))

    monkeypatch.setattr(operators, "delete_consumer", answered_late)
    await publish(world, "a")
    await until(lambda: handled.runs["a"] == 1)
    await edit(world, max_deliver=1)
    await until(lambda: handled.done["a"] == 1)

    await until(lambda: handled.of(ConsumerEdited))
    assert handled.of(Stalled) == []
    assert max(handled.done.values()) == 1


async def test_a_consumer_is_recreated_after_its_deletion_was_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "REMOVED", 0.0)
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus, retry_delay=1.0)
    operators = bus.transport.operators
    delete, deleted, answer = operators.delete_consumer, asyncio.Event(), asyncio.Event()

    async def answered_late(stream: str, name: str) -> None:
        await delete(stream, name)
        deleted.set()
        await answer.wait()

    monkeypatch.setattr(operators, "delete_consumer", answered_late)
    await publish(world, "a")
    await until(lambda: handled.runs["a"] == 1)
    await edit(world, max_deliver=1)

    await deleted.wait()
    for _ in range(100):  # what is sent meanwhile is answered in turn
        assert await operators.consumer_info("CUSTOM", NAME) is None
    answer.set()

    await until(lambda: handled.done["a"] == 1)
    assert len(handled.of(ConsumerRecreated)) == 1


async def test_a_consumer_that_others_deleted_is_recreated_when_the_server_has_removed_it(
    world: World,
) -> None:
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)
    begun = time.time_ns()

    await bus.transport.operators.delete_consumer("CUSTOM", NAME)

    await until(lambda: handled.of(ConsumerRecreated))
    info = await world.info("CUSTOM", NAME)
    assert info.created - begun >= upkeep.REMOVED * SECOND


async def test_retries_that_were_stranded_by_max_deliver_come_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus_, handled = await world.bus(), Handled()
    await handled.subscribe(bus_)
    await publish(world, "before")
    await until(lambda: handled.done["before"] == 1)
    monkeypatch.setattr(bus, "REFRESH", 1_000.0)  # until they are stranded

    await edit(world, max_deliver=1)
    await publish(world, "a", "b", "c")

    async def is_stranded() -> bool:
        return handled.runs.total() == 5 and await world.is_quiet("CUSTOM", NAME)

    await until(is_stranded)
    monkeypatch.setattr(bus, "REFRESH", 0.2)
    await until(lambda: handled.done.keys() == {"before", "a", "b", "c"})
    await until(lambda: handled.of(ConsumerEdited))
    [edited] = handled.of(ConsumerEdited)
    assert (edited.changes, edited.recreated) == ("max_deliver 1, wanted -1", True)
    assert handled.runs.total() == 8


async def test_a_consumer_made_by_others_without_acks_is_recreated(world: World) -> None:
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)
    await publish(world, "before")
    await until(lambda: handled.done["before"] == 1)
    operators = bus.transport.operators
    raw = await config(world)
    unacked = {key: raw[key] for key in raw if key not in ("ack_wait", "max_ack_pending")}

    await replace(operators, {**unacked, "ack_policy": "none", "deliver_policy": "all"})

    await until(lambda: handled.of(ConsumerEdited))
    await publish(world, "a")
    await until(lambda: handled.done["a"] == 1)
    assert (await config(world))["ack_policy"] == "explicit"
    assert "ack_policy none, wanted explicit" in handled.of(ConsumerEdited)[0].changes


async def test_a_replaced_consumer_is_recreated_even_if_its_deletion_was_not_noticed(
    world: World,
) -> None:
    bus, done = await world.bus(), Counter[str]()
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def handle(event: Event[Any], ctx: Context) -> None:
        if event.id == "a" and ctx.attempt == 1:
            begun.set()
            await may_end.wait()  # no slot is free: nothing is requested, so nothing is noticed
            raise RuntimeError("once")
        done[event.id] += 1

    signals: list[Signal] = []
    bus.signals.add(Listener(signals.append))
    await bus.subscribe(
        "custom.thing", handle, durable="d", concurrency=1, prefetch=0, retry_delay=0.1
    )
    await publish(world, "a")
    await until(begun.is_set)
    raw = await config(world)
    unacked = {key: raw[key] for key in raw if key not in ("ack_wait", "max_ack_pending")}

    await world.buses[0].transport.operators.delete_consumer("CUSTOM", NAME)
    await world.buses[0].transport.operators.create_consumer(
        "CUSTOM", {**unacked, "ack_policy": "none", "deliver_policy": "all"}
    )
    await publish(world, "b")
    await until(lambda: any(isinstance(one, ConsumerEdited) for one in signals))
    may_end.set()

    await until(lambda: done.keys() == {"a", "b"})
    assert (await config(world))["ack_policy"] == "explicit"
    await until(lambda: world.is_quiet("CUSTOM", NAME))
    assert max(done.values()) == 1


async def test_a_program_that_changes_it_again_and_again_is_reported_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LONGEST", 0.3)
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)

    async def is_long() -> bool:
        await edit(world, headers_only=True)
        return bool(handled.of(Stalled))

    await until(is_long, timeout=20)
    for _ in range(3):
        await edit(world, headers_only=True)

        async def is_right() -> bool:
            return "headers_only" not in await config(world)

        await until(is_right)

    [stalled] = handled.of(Stalled)
    assert "consumer d-bare on CUSTOM is changed again and again" in stalled.reason
    assert len(handled.of(ConsumerEdited)) == upkeep.REPORTED
    assert "again and again" in examine(bus, 0.0).not_ready[0]


async def test_a_program_that_deletes_it_again_and_again_is_reported_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LONGEST", 0.1)
    monkeypatch.setattr(upkeep, "CALM", 2.0)
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)
    operators = bus.transport.operators

    def is_read() -> bool:
        return NAME in [source.consumer for source in bus.subscriptions[0].sources]

    async def is_back() -> bool:
        # A request stands there: the server names a deletion only to those that wait.
        info = await operators.consumer_info("CUSTOM", NAME)
        return is_read() and info is not None and info.num_waiting > 0

    await until(is_back)
    for _ in range(6):
        await operators.delete_consumer("CUSTOM", NAME)
        await until(lambda: not is_read())
        await until(is_back)
    red = examine(bus, 0.0).not_ready
    await publish(world, "a")
    await until(lambda: handled.done["a"] == 1)

    [stalled] = handled.of(Stalled)
    assert "consumer d-bare on CUSTOM is deleted again and again" in stalled.reason
    assert red == (f"handler d takes no events: {stalled.reason}",)
    assert len(handled.of(ConsumerLost)) == len(handled.of(ConsumerRecreated)) == upkeep.REPORTED
    await until(lambda: handled.of(StallEnded))
    assert examine(bus, 0.0).not_ready == ()


async def test_a_consumer_of_the_name_that_is_not_ours_is_reported_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "RECREATE_PAUSE", 0.01)
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)
    operators = bus.transport.operators
    theirs = {**await config(world), "metadata": {}, "ack_wait": SECOND}
    asked = 0
    ask = operators.consumer_info

    async def counted(stream: str, consumer: str) -> Any:
        nonlocal asked
        asked += 1
        return await ask(stream, consumer)

    monkeypatch.setattr(operators, "consumer_info", counted)
    other = await world.bus()
    await replace(other.transport.operators, theirs)
    await until(lambda: asked > 15)

    [failed] = handled.of(RecreationFailed)
    assert "was created by another program" in str(failed.cause)
    await other.transport.operators.delete_consumer("CUSTOM", NAME)
    await publish(world, "a")
    await until(lambda: handled.done["a"] == 1)


async def test_without_provisioning_a_change_is_reported_until_it_is_undone(world: World) -> None:
    with_rights = await world.bus()
    first = Handled()
    await first.subscribe(with_rights)
    await with_rights.drain()
    bus, handled = await world.bus(provision="off"), Handled()
    await handled.subscribe(bus)
    before = await config(world)

    await edit(world, max_deliver=7)
    await until(lambda: handled.of(Stalled))
    red = examine(bus, 0.0).not_ready
    await edit(world, max_deliver=-1)
    await until(lambda: handled.of(StallEnded))

    [stalled] = handled.of(Stalled)
    assert "max_deliver 7, wanted -1), and cannot be set right: an update is" in stalled.reason
    assert red == (f"handler d takes no events: {stalled.reason}",)
    assert examine(bus, 0.0).not_ready == ()
    assert await config(world) == before


async def test_a_paused_consumer_is_a_warning_until_it_is_resumed(world: World) -> None:
    bus, handled = await world.bus(), Handled()
    await handled.subscribe(bus)
    assert isinstance(bus.transport, JetStreamTransport)
    until_then = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()

    await bus.transport._api.ask("CONSUMER.PAUSE.CUSTOM.d-bare", {"pause_until": until_then})
    await until(lambda: handled.of(ConsumerPaused))
    warnings = examine(bus, 0.0).warnings
    await bus.transport._api.ask("CONSUMER.PAUSE.CUSTOM.d-bare", {})
    await until(lambda: len(handled.of(ConsumerPaused)) == 2)

    assert warnings == (
        "handler d: consumer d-bare on CUSTOM is paused by others, so nothing is delivered:"
        " omni-worker resume d",
    )
    assert examine(bus, 0.0).warnings == ()


@pytest.mark.parametrize("by", ["us", "others"])
async def test_in_order_what_came_without_its_body_comes_again(
    world: World, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    published = asyncio.Event()
    if by == "others":
        monkeypatch.setattr(bus, "REFRESH", 60.0)
        monkeypatch.setattr(bus, "BUSY_REFRESH", 60.0)
        # Longer than older events are waited for without it: ack_wait and five seconds.
        monkeypatch.setattr(dispatch, "BODY_DELAY", 8.0)
        keep = AttemptNotes.keep

        async def keep_slowly(self: AttemptNotes, delivery: Delivery, note: Note) -> None:
            await published.wait()
            await asyncio.sleep(0.3)  # a slow bucket: all events are here before the note is
            await keep(self, delivery, note)

        monkeypatch.setattr(AttemptNotes, "keep", keep_slowly)
    ran: list[str] = []

    async def handle(event: Event[Any]) -> None:
        ran.append(event.id)

    one = await world.bus()
    await one.subscribe(
        "custom.thing", handle, durable="d", ack_wait=1.0, order_by=lambda event: event.type
    )
    await publish(world, "before")
    await until(lambda: ran == ["before"])
    operators = one.transport.operators

    async def edit_it(value: bool) -> None:  # its one consumer: order is kept within one
        raw = (await world.info("CUSTOM", "d")).config.raw
        await operators.update_consumer("CUSTOM", {**raw, "headers_only": value})

    await edit_it(True)
    await publish(world, "e-1", "e-2", "e-3")

    if by == "others":

        async def are_delivered() -> bool:
            return (await world.info("CUSTOM", "d")).num_ack_pending == 3

        await until(are_delivered)
        await edit_it(False)
    await publish(world, "e-4", "e-5")
    published.set()

    await until(lambda: len(ran) >= 6, timeout=15)
    assert ran == ["before", "e-1", "e-2", "e-3", "e-4", "e-5"]


async def test_what_failed_often_before_waits_for_its_body_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "REFRESH", 60.0)
    monkeypatch.setattr(bus, "BUSY_REFRESH", 60.0)
    ran: list[int] = []
    may_fail, came = asyncio.Event(), asyncio.Event()
    read = dispatch.Dispatcher.read

    def watched(self: dispatch.Dispatcher, delivery: Delivery) -> Event[Any] | Outcome:
        if not delivery.body:
            came.set()
        return read(self, delivery)

    monkeypatch.setattr(dispatch.Dispatcher, "read", watched)

    async def handle(event: Event[Any], ctx: Context) -> None:
        ran.append(ctx.attempt)
        if ctx.attempt == 5:
            await may_fail.wait()
        if ctx.attempt <= 5:
            raise Retry(after=0.05)

    one = await world.bus()
    await one.subscribe("custom.thing", handle, durable="d", max_retries=5)
    await publish(world, "a")
    await until(lambda: ran == [1, 2, 3, 4, 5])
    await edit(world, headers_only=True)
    may_fail.set()
    await came.wait()
    await edit(world, headers_only=False)

    await until(lambda: ran == [1, 2, 3, 4, 5, 6])
    await until(lambda: world.is_quiet("CUSTOM", NAME))
    assert await world.letters() == []


async def test_a_process_that_starts_leaves_what_max_deliver_stranded_to_those_that_know_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "REFRESH", 60.0)
    monkeypatch.setattr(bus, "BUSY_REFRESH", 60.0)
    one, handled = await world.bus(), Handled()
    await handled.subscribe(one)
    await publish(world, "before")
    await until(lambda: handled.done["before"] == 1)
    await edit(world, max_deliver=1)
    await publish(world, "a", "b", "c")

    async def are_given_up() -> bool:
        info = await world.info("CUSTOM", NAME)
        return all(handled.runs[id] == 1 for id in "abc") and info.num_ack_pending == 0

    await until(are_given_up)
    other = await world.bus()
    await handled.subscribe(other)
    for known in (*other._subscriptions.bindings, *one._subscriptions.bindings):
        await known.refresh()

    await until(lambda: handled.done.keys() == {"before", "a", "b", "c"})
    assert (await config(world))["max_deliver"] == -1

"""Promise 12 and the guard: order per key, one run among all processes, and the breaker."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from omni_worker import Context, Draft, Event
from omni_worker.notes import attempts
from omni_worker.process.health import examine
from omni_worker.signals import Duplicate, HandedBack, Listener, Signal, Stalled, StallEnded
from omni_worker.subscription.gates import breaker, guard
from omni_worker.transports.base import Delivery, Source
from omni_worker.transports.bucket import Bucket

from ..waiting import until
from .conftest import World


async def test_events_of_one_key_run_in_order_and_other_keys_run_on(world: World) -> None:
    bus = await world.bus()
    ended: list[tuple[str, int]] = []
    now: dict[str, int] = {}
    most_of_one_key = most = 0

    async def handle(event: Event[Any]) -> None:
        nonlocal most_of_one_key, most
        key = event.payload["key"]
        now[key] = now.get(key, 0) + 1
        most_of_one_key = max(most_of_one_key, now[key])
        most = max(most, sum(now.values()))
        await asyncio.sleep(0.003 * (1 + event.payload["n"] % 3))
        now[key] -= 1
        ended.append((key, event.payload["n"]))

    await bus.subscribe(
        "custom.thing", handle, durable="d", concurrency=8, order_by=lambda e: e.payload["key"]
    )
    await bus.publish_many(
        Draft(type="custom.thing", payload={"key": f"k{n % 5}", "n": n}) for n in range(100)
    )
    await until(lambda: len(ended) == 100)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    for key in {key for key, _ in ended}:
        numbers = [n for one, n in ended if one == key]
        assert numbers == sorted(numbers)
    assert most_of_one_key == 1
    assert most == 5


async def test_a_retry_holds_its_key_and_nobody_elses(world: World) -> None:
    bus = await world.bus()
    story: list[str] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        story.append(f"{event.payload}:{ctx.attempt}")
        if event.payload == "a1" and ctx.attempt < 3:
            raise ValueError("not yet")

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="d", retry_delay=0.1, order_by=lambda e: e.payload[0]
    )
    for payload in ("a1", "a2", "b1", "a3", "b2"):
        await bus.publish("custom.thing", payload)
    await until(lambda: subscription.counts.handled == 5)

    assert [one for one in story if one[0] == "a"] == ["a1:1", "a1:2", "a1:3", "a2:1", "a3:1"]
    assert story.index("b2:1") < story.index("a1:2")


async def test_a_key_whose_event_is_given_up_goes_on(world: World) -> None:
    bus = await world.bus()
    handled: list[str] = []

    async def handle(event: Event[Any]) -> None:
        if event.payload == "a1":
            raise ValueError("never")
        handled.append(event.payload)

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="d", max_retries=1, retry_delay=0.01,
        order_by=lambda e: e.payload[0],
    )  # fmt: skip
    for payload in ("a1", "a2"):
        await bus.publish("custom.thing", payload)
    await until(lambda: handled == ["a2"])

    assert subscription.counts.dead_lettered == 1


async def test_stopping_hands_back_what_waits_behind_its_key(world: World) -> None:
    bus, other = await world.bus(), await world.bus()
    begun = asyncio.Event()
    handled: list[int] = []

    async def slow(event: Event[Any]) -> None:
        begun.set()
        await asyncio.sleep(0.2)
        handled.append(event.payload)

    async def fast(event: Event[Any]) -> None:
        handled.append(event.payload)

    subscription = await bus.subscribe("custom.thing", slow, durable="d", order_by=lambda e: "one")
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(10))
    await begun.wait()
    await until(lambda: subscription.held == 10)
    await subscription.unsubscribe()
    await other.subscribe("custom.thing", fast, durable="d", order_by=lambda e: "one")
    await until(lambda: len(handled) == 10)

    assert handled == list(range(10))


class Silent:
    """A process that takes deliveries and never answers: it died, or stands still."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def receive(self, delivery: Delivery) -> None:
        self.taken.append(delivery)

    def replenish(self, source: Source) -> None: ...

    def resumed(self, source: Source) -> None: ...

    def lost(self, source: Source, cause: Exception) -> None: ...


async def test_what_a_dead_process_held_comes_before_later_events_of_its_key(world: World) -> None:
    bus, other = await world.bus(), await world.bus()
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)

    options: dict[str, Any] = {"durable": "d", "ack_wait": 1.0, "order_by": lambda e: "one"}
    first = await bus.subscribe("custom.thing", handle, **options)
    await first.unsubscribe()
    dead = Silent()
    source = await other.transport.consume("CUSTOM", "d", dead)
    source.request(5)
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(5))
    await until(lambda: len(dead.taken) == 5)
    dead.taken.pop().nak()  # one is free at once, and must not begin
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(5, 10))
    await source.close()
    second = await bus.subscribe("custom.thing", handle, **options)
    await until(lambda: second.counts.handled == 10)

    assert handled == list(range(10))


async def test_at_the_end_of_grace_a_key_is_handed_back_in_order(world: World) -> None:
    bus, other = await world.bus(), await world.bus()
    begun = asyncio.Event()
    handled: list[int] = []

    async def hang(event: Event[Any]) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)

    options: dict[str, Any] = {"durable": "d", "order_by": lambda e: "one"}
    subscription = await bus.subscribe("custom.thing", hang, **options)
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(10))
    await begun.wait()
    await until(lambda: subscription.held == 10)
    await subscription.unsubscribe(grace=0.1)
    await other.subscribe("custom.thing", handle, **options)
    await until(lambda: len(handled) == 10)  # ack_wait is 30 s: nothing was locked

    assert handled == list(range(10))


async def test_what_fails_while_we_stop_is_handed_back_with_its_attempt_spent(world: World) -> None:
    bus, other = await world.bus(), await world.bus()
    begun, fail = asyncio.Event(), asyncio.Event()
    runs: list[tuple[int, int]] = []

    async def failing(event: Event[Any]) -> None:
        begun.set()
        await fail.wait()
        raise ValueError("not here")

    async def handle(event: Event[Any], ctx: Context) -> None:
        runs.append((event.payload, ctx.attempt))

    options: dict[str, Any] = {"durable": "d", "order_by": lambda e: "one", "retry_delay": 20}
    subscription = await bus.subscribe("custom.thing", failing, **options)
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(3))
    await begun.wait()
    await until(lambda: subscription.held == 3)
    stopping = asyncio.create_task(subscription.unsubscribe(grace=10))
    await until(lambda: subscription._draining)
    fail.set()
    await stopping
    await other.subscribe("custom.thing", handle, **options)
    await until(lambda: len(runs) == 3)

    assert runs == [(0, 2), (1, 1), (2, 1)]


async def test_an_event_that_runs_elsewhere_holds_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a server that serves all processes at once.
    monkeypatch.setattr("omni_worker.handler_consumers.can_pin", lambda version: False)
    one, other = await world.bus(), await world.bus()
    handled: list[tuple[str, int]] = []
    release = asyncio.Event()

    async def hang(event: Event[Any]) -> None:
        await release.wait()
        handled.append(("one", event.payload))

    async def handle(event: Event[Any]) -> None:
        handled.append(("other", event.payload))

    options: dict[str, Any] = {
        "durable": "d", "exactly_once": True, "ack_wait": 1.0, "prefetch": 2, "concurrency": 1,
        "order_by": lambda e: "one",
    }  # fmt: skip
    first = await one.subscribe("custom.thing", hang, **options)
    await one.publish("custom.thing", 1)
    await until(lambda: first.running == 1)
    [delivery] = [worker.delivery for worker in first._slots.all if worker.delivery]
    await delivery.source.stop()
    await one.publish("custom.thing", 2)
    delivery.source.answer(delivery, b"-NAK")  # the server gives it to the other one as well
    second = await other.subscribe("custom.thing", handle, **options)
    await until(lambda: second.held == 2)
    await until(lambda: second.running == 0 and second._order._later)  # type: ignore[union-attr]
    release.set()
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert handled == [("one", 1), ("other", 2)]


async def test_exactly_once_runs_an_event_once_though_its_ack_is_lost(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    runs: list[str] = []

    async def handle(event: Event[Any]) -> None:
        runs.append(event.id)

    options: dict[str, Any] = {"durable": "d", "exactly_once": True, "ack_wait": 0.5}
    first = await one.subscribe("custom.thing", handle, **options)

    async def lose(self: Any) -> bool:
        return False  # the confirmation never comes, and neither did the ack

    delivered = type("Lost", (), {"confirm": lose})
    first._parts.settler._done_for_sure = lambda delivery, before: delivered().confirm()  # type: ignore[method-assign,assignment]
    await one.publish("custom.thing", {})
    await until(lambda: len(runs) == 1)
    await first.unsubscribe(grace=0)
    second = await other.subscribe("custom.thing", handle, **options)
    await until(lambda: second.counts.recognised == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert len(runs) == 1


async def test_exactly_once_waits_for_whoever_runs_it(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    runs: list[str] = []
    release = asyncio.Event()

    async def hang(event: Event[Any]) -> None:
        runs.append("one")
        await release.wait()

    async def handle(event: Event[Any]) -> None:
        runs.append("other")

    options: dict[str, Any] = {"durable": "d", "exactly_once": True, "ack_wait": 1.0}
    first = await one.subscribe("custom.thing", hang, **options)
    await one.publish("custom.thing", {})
    await until(lambda: runs == ["one"])
    [delivery] = [worker.delivery for worker in first._slots.all if worker.delivery]
    second = await other.subscribe("custom.thing", handle, **options)
    await delivery.source.stop()
    delivery.source.answer(delivery, b"-NAK")  # the server gives it to the other one as well
    await until(lambda: second.counts.handed_back >= 1)
    release.set()
    await until(lambda: first.counts.handled == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert runs == ["one"]


async def test_exactly_once_holds_while_a_deploy_shortens_the_leases(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    runs: list[str] = []
    delays: list[float] = []
    release = asyncio.Event()

    async def hang(event: Event[Any]) -> None:
        runs.append("one")
        await release.wait()

    async def handle(event: Event[Any]) -> None:
        runs.append("other")

    other.signals.add(Listener(lambda signal: delays.append(signal.after), (HandedBack,)))
    options: dict[str, Any] = {"durable": "d", "exactly_once": True}
    first = await one.subscribe("custom.thing", hang, ack_wait=30, **options)
    await one.publish("custom.thing", {})
    await until(lambda: runs == ["one"])
    [delivery] = [worker.delivery for worker in first._slots.all if worker.delivery]
    await other.subscribe("custom.thing", handle, ack_wait=0.5, **options)
    await delivery.source.stop()
    delivery.source.answer(delivery, b"-NAK")  # the server gives it to the other one as well
    await until(lambda: delays)
    release.set()
    await until(lambda: first.counts.handled == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert runs == ["one"]
    assert delays[0] > 7  # a quarter of the lease of the run it waits for, not of its own


async def test_exactly_once_tells_events_apart_by_app_stream_and_content(world: World) -> None:
    billing, shipping = await world.bus("billing"), await world.bus("shipping")
    runs: list[tuple[str, Any]] = []
    duplicates: list[Duplicate] = []

    async def bill(event: Event[Any]) -> None:
        runs.append(("billing", event.payload))

    async def ship(event: Event[Any]) -> None:
        runs.append(("shipping", event.payload))

    def body(type: str, payload: dict[str, int], timestamp: int = 1) -> bytes:
        facts = {"id": "order-17", "type": type, "payload": payload, "timestamp": timestamp}
        return json.dumps(facts).encode()

    shipping.signals.add(Listener(duplicates.append, (Duplicate,)))
    options: dict[str, Any] = {"durable": "worker", "exactly_once": True}
    await billing.subscribe("message.received", bill, **options)
    second = await shipping.subscribe("custom.order", ship, **options)
    await world.store("message.received", body("message.received", {}))
    await until(lambda: len(runs) == 1)
    await world.store("custom.order", body("custom.order", {}))
    await world.store("custom.order", body("custom.order", {"n": 2}))
    await until(lambda: second.counts.handled == 2)  # a duplicate of what runs would wait for it
    await world.store("custom.order", body("custom.order", {"n": 2}, timestamp=2))
    await until(lambda: second.counts.handled + second.counts.recognised == 3)

    assert sorted(runs, key=str) == [
        ("billing", {}), ("shipping", {"n": 2}), ("shipping", {}),
    ]  # fmt: skip
    assert second.counts.recognised == 1
    assert [one.sequence for one in duplicates] == [3]


async def test_exactly_once_goes_on_when_its_bucket_was_deleted(world: World) -> None:
    bus = await world.bus()
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)

    await bus.subscribe("custom.thing", handle, durable="d", exactly_once=True)
    await bus.publish("custom.thing", 0)
    await until(lambda: handled == [0])
    await world.delete_stream("KV_omni-worker-guards")
    for number in range(1, 6):
        await bus.publish("custom.thing", number)
    await until(lambda: len(handled) == 6)

    assert sorted(handled) == [0, 1, 2, 3, 4, 5]


async def test_a_handled_event_whose_ack_and_guard_are_both_gone_is_recognised(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, runs, lost = await world.bus(), list[str](), list[Delivery]()

    async def handle(event: Event[Any]) -> None:
        runs.append(event.id)

    async def lose(delivery: Delivery) -> bool:
        await world.delete_stream("KV_omni-worker-guards")
        lost.append(delivery)
        return False

    monkeypatch.setattr(Delivery, "confirm", lose)
    subscription = await bus.subscribe(
        "custom.thing", handle, durable="d", exactly_once=True, ack_wait=0.5
    )
    await bus.publish("custom.thing", {})

    await until(lambda: subscription.counts.recognised == 1)
    assert len(runs) == len(lost) == 1


async def test_exactly_once_without_a_working_bucket_says_so_and_goes_on_once_mended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "STALLED_AFTER", 0.3)
    bus = await world.bus()
    heard: list[Signal] = []
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)

    bus.signals.add(Listener(heard.append, (Stalled, StallEnded)))
    subscription = await bus.subscribe("custom.thing", handle, durable="d", exactly_once=True)
    await bus.publish("custom.thing", 0)
    await until(lambda: handled == [0])
    await world.update_stream("KV_omni-worker-guards", max_msg_size=10)
    for number in range(1, 31):
        await bus.publish("custom.thing", number)
    await until(lambda: heard)
    [reason] = subscription.stalls
    not_ready = examine(bus, 0.0).not_ready
    await world.update_stream("KV_omni-worker-guards", max_msg_size=-1)
    await until(lambda: len(handled) == 31)
    await until(lambda: len(heard) == 2)

    assert "the bucket omni-worker-guards refuses writes" in reason
    assert not_ready == (f"handler d takes no events: {reason}",)
    assert [type(one) for one in heard] == [Stalled, StallEnded]
    assert examine(bus, 0.0).not_ready == ()
    assert sorted(handled) == list(range(31))


async def test_notes_that_cannot_be_kept_are_a_warning_and_the_work_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "REST", 0.1)
    bus = await world.bus()
    handled: list[int] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("once")
        handled.append(event.payload)

    await bus.subscribe("custom.thing", handle, durable="d", retry_delay=0.05)
    await bus.publish("custom.thing", 0)
    await until(lambda: handled == [0])
    await world.update_stream("KV_omni-worker-notes", max_msg_size=10)
    await bus.publish("custom.thing", 1)
    await until(lambda: handled == [0, 1])
    seen = examine(bus, 0.0)
    await world.update_stream("KV_omni-worker-notes", max_msg_size=-1)
    await bus.publish("custom.thing", 2)
    await until(lambda: handled == [0, 1, 2])

    assert seen.not_ready == ()
    assert "attempts cannot be noted: the bucket omni-worker-notes" in seen.warnings[0]


async def test_notes_nobody_answers_for_hold_an_event_for_a_moment_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*what: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(attempts, "PATIENCE", 0.1)
    monkeypatch.setattr(attempts, "BRIEFLY", 0.1)
    for question in ("get", "put", "delete"):  # as while the bucket has no leader
        monkeypatch.setattr(Bucket, question, never)
    bus = await world.bus()
    handled: list[int] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("once")
        handled.append(event.payload)

    await bus.subscribe("custom.thing", handle, durable="d", retry_delay=0.05)
    for number in range(20):
        await bus.publish("custom.thing", number)
    await until(lambda: sorted(handled) == list(range(20)))

    assert "omni-worker-notes: no answer in 0.1 s" in examine(bus, 0.0).warnings[0]


async def test_exactly_once_retries_a_failure(world: World) -> None:
    bus = await world.bus()
    attempts: list[int] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise ValueError("once")

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="d", exactly_once=True, retry_delay=0.05
    )
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.handled == 1)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert attempts == [1, 2]


async def test_when_everything_fails_only_trials_run_and_the_backlog_survives(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.1)
    bus = await world.bus()
    down = True
    failures = 0
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        nonlocal failures
        if down:
            failures += 1
            raise ConnectionError("the database is away")
        handled.append(event.payload)

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="d", breaker=5, retry_delay=0.05, concurrency=4
    )
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(60))
    await until(lambda: subscription.is_on_trial)
    await until(lambda: failures >= 9)
    during = subscription.counts.dead_lettered
    down = False
    await until(lambda: len(handled) == 60, timeout=20)

    assert during == 0
    assert subscription.counts.dead_lettered == 0
    assert failures < 30
    assert not subscription.is_on_trial


async def test_stopping_does_not_wait_for_a_trial(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 60.0)
    bus = await world.bus()

    async def handle(event: Event[Any]) -> None:
        raise ConnectionError("away")

    subscription = await bus.subscribe("custom.thing", handle, durable="d", breaker=2)
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(20))
    await until(lambda: subscription.is_on_trial)

    async with asyncio.timeout(10):
        await subscription.unsubscribe(grace=10)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 10},
        {"concurrency": 10, "order_by": lambda event: event.payload},
        {"concurrency": 1_000},
    ],
    ids=["plain", "order_by", "concurrency 1000"],
)
async def test_healthy_events_behind_many_poison_ones_run_within_five_seconds(
    world: World, options: dict[str, Any]
) -> None:
    bus = await world.bus()
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        if event.payload < 28:
            raise KeyError("poison")
        handled.append(event.payload)

    await bus.subscribe("custom.thing", handle, durable="d", **options)
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(28))
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(28, 228))
    await until(lambda: bool(handled), timeout=10)
    await until(lambda: len(handled) == 200, timeout=10)

    assert sorted(handled) == list(range(28, 228))


@pytest.mark.parametrize("ordered", [False, True], ids=["plain", "order_by"])
async def test_a_trial_is_of_events_that_have_not_failed_while_there_are_any(
    world: World, monkeypatch: pytest.MonkeyPatch, ordered: bool
) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.2)
    bus = await world.bus()
    tried: list[int] = []

    async def handle(event: Event[Any]) -> None:
        tried.append(event.payload)
        raise ConnectionError("away")

    order: dict[str, Any] = {"order_by": lambda event: event.payload} if ordered else {}
    subscription = await bus.subscribe(
        "custom.thing", handle, durable="d", breaker=5, concurrency=5, retry_delay=0.05, **order
    )
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(20))
    await until(lambda: len(set(tried)) == 20, seen=lambda: tried)

    # What failed is sent first: where the others are late, a trial may be of one that failed.
    assert len(tried) <= 23
    assert subscription.counts.dead_lettered == 0


async def test_after_the_first_success_everything_that_waited_runs_at_once(world: World) -> None:
    bus = await world.bus()
    down = True
    handled: list[int] = []
    running = most = 0

    async def handle(event: Event[Any]) -> None:
        nonlocal running, most
        if down:
            raise ConnectionError("away")
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        handled.append(event.payload)

    subscription = await bus.subscribe("custom.thing", handle, durable="d", concurrency=10)
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(200))
    await until(lambda: subscription.is_on_trial)
    down = False
    await until(lambda: len(handled) == 200, timeout=10)

    assert most == 10
    assert subscription.counts.dead_lettered == 0

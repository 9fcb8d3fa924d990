"""Promises 2, 9 and 11: ids dedupe, workers share, stopping costs nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from omni_worker import Context, Draft, Event
from omni_worker.errors import ConfigError, NotConnected, TransportError

from ..waiting import until
from .conftest import World, body


async def test_the_same_id_twice_is_stored_once(world: World) -> None:
    bus = await world.bus()

    first = await bus.publish("custom.thing", {"x": 1}, id="order-1")
    second = await bus.publish("custom.thing", {"x": 1}, id="order-1")

    assert not first.duplicate
    assert second.duplicate
    assert (first.stream, first.sequence) == (second.stream, second.sequence)


async def test_many_are_published_in_order_and_each_confirmed(world: World) -> None:
    bus = await world.bus()

    published = await bus.publish_many(
        Draft(type="custom.thing", payload=number) for number in range(500)
    )

    assert [one.sequence for one in published] == list(range(1, 501))


async def test_processes_with_one_durable_split_its_events(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    seen: dict[str, list[int]] = {"one": [], "other": []}

    def handler(name: str) -> Any:
        async def handle(event: Event[Any]) -> None:
            seen[name].append(event.payload)
            await asyncio.sleep(0.005)

        return handle

    options: dict[str, Any] = {"durable": "d", "concurrency": 2, "prefetch": 2}
    await one.subscribe("custom.thing", handler("one"), **options)
    await other.subscribe("custom.thing", handler("other"), **options)
    await one.publish_many(Draft(type="custom.thing", payload=n) for n in range(100))
    await until(lambda: len(seen["one"]) + len(seen["other"]) >= 100)
    await until(lambda: world.is_quiet("CUSTOM", "d"))

    assert sorted(seen["one"] + seen["other"]) == list(range(100))
    assert seen["one"]
    assert seen["other"]


async def test_a_queue_is_shared_whatever_the_function_is_called(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    seen: list[int] = []

    async def first(event: Event[Any]) -> None:
        seen.append(event.payload)

    async def second(event: Event[Any]) -> None:
        seen.append(event.payload)

    await one.subscribe("custom.thing", first, queue="q")
    await other.subscribe("custom.thing", second, queue="q")
    await one.publish_many(Draft(type="custom.thing", payload=n) for n in range(40))
    await until(lambda: len(seen) >= 40)

    assert sorted(seen) == list(range(40))


async def test_without_durable_and_queue_every_process_sees_every_event(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    seen: list[int] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.payload)

    await one.subscribe("custom.thing", handle)
    await other.subscribe("custom.thing", handle)
    await one.publish_many(Draft(type="custom.thing", payload=n) for n in range(20))
    await until(lambda: len(seen) >= 40)

    assert sorted(seen) == sorted([*range(20), *range(20)])


async def test_stopping_finishes_what_runs_and_hands_back_what_has_not_begun(
    world: World,
) -> None:
    bus, watcher = await world.bus(), await world.bus()
    begun: list[int] = []
    finished: list[int] = []
    go = asyncio.Event()

    async def slow(event: Event[Any]) -> None:
        begun.append(event.payload)
        await go.wait()
        finished.append(event.payload)

    subscription = await bus.subscribe(
        "custom.thing", slow, durable="d", concurrency=2, prefetch=16
    )
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(40))
    await until(lambda: subscription.held == 18 and len(begun) == 2)
    closing = asyncio.create_task(bus.close())
    await until(lambda: subscription._draining)
    go.set()
    await closing
    world.buses.remove(bus)
    info = await watcher.transport.operators.consumer_info("CUSTOM", "d-bare")
    again: list[int] = []

    async def handle(event: Event[Any]) -> None:
        again.append(event.payload)

    started = time.monotonic()
    await watcher.subscribe("custom.thing", handle, durable="d")
    await until(lambda: len(again) >= 40 - len(finished))

    assert begun == finished
    assert info is not None
    assert info.num_ack_pending == 16  # handed back: they count until they are delivered again
    assert time.monotonic() - started < 15  # not ack_wait
    assert sorted(finished + again) == list(range(40))


async def test_what_outlasts_grace_is_handed_back(world: World) -> None:
    bus, other = await world.bus(), await world.bus()
    ended: list[str] = []

    async def endless(event: Event[Any]) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cancelled")

    subscription = await bus.subscribe("custom.thing", endless, durable="d")
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.running == 1)
    started = time.monotonic()
    await bus.close(grace=0.2)
    stopped = time.monotonic() - started
    world.buses.remove(bus)
    again: list[Any] = []

    async def handle(event: Event[Any]) -> None:
        again.append(event)

    await other.subscribe("custom.thing", handle, durable="d")
    await until(lambda: len(again) == 1)

    assert stopped < 10
    assert ended == ["cancelled"]


async def test_our_own_cancellation_passes_through_and_loses_nothing(world: World) -> None:
    bus = await world.bus()
    begun = asyncio.Event()

    async def hang(event: Event[Any]) -> None:
        begun.set()
        await asyncio.sleep(3600)

    subscription = await bus.subscribe("custom.thing", hang, durable="d")
    await bus.publish("custom.thing", {})
    await begun.wait()
    [worker] = subscription._slots.all
    assert worker.task is not None
    worker.task.cancel()
    await asyncio.wait([worker.task], timeout=5)

    assert worker.task.cancelled()
    assert subscription.counts.handed_back + subscription.counts.retried == 1


async def test_derived_ids_make_a_second_run_publish_the_same_events(world: World) -> None:
    bus = await world.bus()
    published: list[tuple[str, bool]] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        for payload in ({"n": 1}, {"n": 1}, {"n": 2}):
            result = await ctx.publish("custom.other", payload)
            published.append((result.id, result.duplicate))
        if ctx.attempt == 1:
            raise ValueError("after publishing")

    subscription = await bus.subscribe("custom.thing", handle, durable="d", retry_delay=0.02)
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.handled == 1)

    first, second = published[:3], published[3:]
    assert len({id for id, _ in first}) == 3
    assert [id for id, _ in first] == [id for id, _ in second]
    assert [duplicate for _, duplicate in published] == [False] * 3 + [True] * 3


async def test_inside_a_handler_correlation_is_inherited_and_the_channel_is_not(
    world: World,
) -> None:
    bus = await world.bus()
    seen: list[Event[Any]] = []

    async def first(event: Event[Any], ctx: Context) -> None:
        await ctx.publish("custom.other", {})

    async def second(event: Event[Any]) -> None:
        seen.append(event)

    await bus.subscribe("custom.thing", first, durable="d")
    await bus.subscribe("custom.other", second, durable="o")
    await bus.publish(
        "custom.thing", {}, channel="whatsapp", instance="wa-1", correlation_id="c", trace_id="t"
    )
    await until(lambda: len(seen) == 1)

    metadata = seen[0].metadata
    assert (metadata.correlation_id, metadata.trace_id, metadata.source) == ("c", "t", "tests")
    assert (seen[0].channel, metadata.instance_id, metadata.channel_type) == (None, None, None)


async def test_a_pattern_reads_every_stream_that_holds_events(world: World) -> None:
    bus = await world.bus()
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.type)

    await bus.subscribe(subject=">", handler=handle, durable="all")
    await world.store("message.received.whatsapp.wa-1", body("1", "message.received"))
    await world.store("message.exploded", body("2", "message.exploded"))  # of a newer Omni
    await world.store("custom.a.b.c", body("3", "custom.a.b.c"))
    await world.store("instance.connected", body("4", "instance.connected"))
    await until(lambda: len(seen) >= 4)

    assert sorted(seen) == [
        "custom.a.b.c",
        "instance.connected",
        "message.exploded",
        "message.received",
    ]


async def test_one_star_is_one_token_of_the_type(world: World) -> None:
    bus = await world.bus()
    seen: list[str] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.type)

    subscription = await bus.subscribe("custom.*", handle, durable="d")
    await bus.publish("custom.webhook.github", {})
    await bus.publish("custom.thing", {}, channel="whatsapp", instance="wa-1")
    await bus.publish("custom.thing", {})
    await until(lambda: len(seen) == 2 and subscription.counts.skipped == 1)

    assert seen == ["custom.thing", "custom.thing"]


async def test_a_registered_stream_feeds_its_handlers_and_patterns_read_the_origin(
    world: World,
) -> None:
    bus = await world.bus()
    bus.registry.register("custom.order", stream="ORDERS")
    from_copy: list[str] = []
    from_origin: list[str] = []

    async def ordered(event: Event[Any], ctx: Context) -> None:
        from_copy.append(ctx.stream)

    async def anything(event: Event[Any], ctx: Context) -> None:
        from_origin.append(ctx.stream)

    await bus.subscribe("custom.order", ordered, durable="d", start_from="first")
    await bus.subscribe("custom.*", anything, durable="p", start_from="first")
    published = await bus.publish("custom.order", {}, channel="whatsapp", instance="wa-1")
    await until(lambda: bool(from_copy and from_origin))

    assert published.stream == "CUSTOM"
    assert from_copy == ["ORDERS"]
    assert from_origin == ["CUSTOM"]


async def test_a_consumer_that_is_deleted_is_made_again_and_nothing_is_lost(world: World) -> None:
    bus = await world.bus()
    seen: list[int] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.payload)

    await bus.subscribe("custom.thing", handle, durable="d")
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(50))
    await until(lambda: len(seen) == 50)
    await bus.transport.operators.delete_consumer("CUSTOM", "d-bare")
    await bus.publish_many(Draft(type="custom.thing", payload=n) for n in range(50, 100))
    await until(lambda: len(set(seen)) == 100)

    assert sorted(seen) == list(range(100))


async def test_a_second_handler_on_one_consumer_is_refused(world: World) -> None:
    bus = await world.bus()

    async def handle(event: Event[Any]) -> None: ...

    await bus.subscribe("custom.thing", handle, durable="d")

    with pytest.raises(ConfigError, match=r"already feeds .*handle.*; give one .* durable="):
        await bus.subscribe("custom.other", handle, durable="d")


async def test_a_bus_that_is_not_connected_says_so(world: World) -> None:
    bus = await world.bus()
    await bus.close()
    world.buses.remove(bus)

    with pytest.raises(NotConnected):
        await bus.publish("custom.thing", {})
    with pytest.raises(TransportError):
        await bus.subscribe("custom.thing", lambda event: None)


async def test_middlewares_go_around_every_handler_in_order(world: World) -> None:
    bus = await world.bus()
    story: list[str] = []

    async def outer(ctx: Context, event: Event[Any], call_next: Any) -> None:
        story.append("outer")
        await call_next(ctx, event)
        story.append("outer ends")

    async def inner(ctx: Context, event: Event[Any], call_next: Any) -> None:
        story.append("inner")
        await call_next(ctx, event)

    async def handle(event: Event[Any]) -> None:
        story.append("handler")

    bus.middlewares += [outer, inner]
    subscription = await bus.subscribe("custom.thing", handle, durable="d")
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.handled == 1)

    assert story == ["outer", "inner", "handler", "outer ends"]


async def test_attempts_of_another_process_count_though_the_server_forgot_them(
    world: World,
) -> None:
    one, other = await world.bus(), await world.bus()
    attempts: list[tuple[str, int]] = []

    def failing(name: str) -> Any:
        async def fail(event: Event[Any], ctx: Context) -> None:
            attempts.append((name, ctx.attempt))
            raise ValueError("always")

        return fail

    options: dict[str, Any] = {"durable": "d", "max_retries": 2, "retry_delay": 0.3}
    first = await one.subscribe("custom.thing", failing("one"), **options)
    await one.publish("custom.thing", {})
    await until(lambda: len(attempts) == 1)
    await until(lambda: first.counts.retried == 1)
    second = await other.subscribe("custom.thing", failing("other"), **options)
    [state] = [one for one in second._states.values() if one.source.consumer == "d-bare"]
    state.highest = state.look_up_until = 1  # it saw the event before, and reconnected since
    await first.unsubscribe()
    await one.transport.operators.delete_consumer("CUSTOM", "d-bare")
    await until(lambda: second.counts.dead_lettered == 1)

    assert attempts == [("one", 1), ("other", 2), ("other", 3)]


async def test_many_published_by_a_handler_are_the_same_events_in_a_second_run(
    world: World,
) -> None:
    bus = await world.bus()
    published: list[tuple[str, bool]] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        drafts = [Draft(type="custom.other", payload=n) for n in (1, 1, 2)]
        published.extend((one.id, one.duplicate) for one in await ctx.publish_many(drafts))
        if ctx.attempt == 1:
            raise ValueError("after publishing")

    subscription = await bus.subscribe("custom.thing", handle, durable="d", retry_delay=0.02)
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.handled == 1)

    assert len({id for id, _ in published}) == 3
    assert [duplicate for _, duplicate in published] == [False] * 3 + [True] * 3


async def test_a_run_whose_consumer_was_deleted_is_retried_and_stopping_ends_well(
    world: World,
) -> None:
    bus = await world.bus()
    begun, go_on = asyncio.Event(), asyncio.Event()
    attempts: list[int] = []

    async def handle(event: Event[Any], ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if len(attempts) == 1:
            begun.set()
            await go_on.wait()
            raise ValueError("after the consumer was made again")

    subscription = await bus.subscribe(
        "custom.thing", handle, durable="d", retry_delay=0.05, order_by=lambda e: "one key"
    )
    await bus.publish("custom.thing", {})
    await begun.wait()
    before = subscription.sources
    await bus.transport.operators.delete_consumer("CUSTOM", "d")
    await until(lambda: subscription.sources and subscription.sources != before)
    [state] = subscription._states.values()
    await until(lambda: all(not one.lapsed for one in state.held.values()))
    go_on.set()
    await until(lambda: subscription.counts.handled == 1)
    await subscription.unsubscribe()

    assert len(attempts) == 2
    assert subscription.held == 0


async def test_a_consumer_made_again_does_not_replay_what_others_settled(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    handled: list[int] = []
    first_run = True

    async def fail_first(event: Event[Any]) -> None:
        nonlocal first_run
        if first_run:
            first_run = False
            raise ValueError("only here")
        handled.append(event.payload)

    async def handle(event: Event[Any]) -> None:
        handled.append(event.payload)

    options: dict[str, Any] = {"durable": "d", "retry_delay": 0.3}
    mine = await one.subscribe("custom.thing", fail_first, **options)
    await one.publish("custom.thing", 0)
    await until(lambda: mine.counts.retried == 1)
    for source in mine.sources:
        await source.stop()  # its pulls end, so the retry goes to the other one
    theirs = await other.subscribe("custom.thing", handle, **options)
    await one.publish_many(Draft(type="custom.thing", payload=n) for n in range(1, 50))
    await until(lambda: theirs.counts.handled == 50)
    await until(lambda: world.is_quiet("CUSTOM", "d"))
    [binding] = one._subscriptions.bindings
    await binding.refresh()
    await theirs.unsubscribe()
    await one.transport.operators.delete_consumer("CUSTOM", "d-bare")
    [source] = [each for each in mine.sources if each.consumer == "d-bare"]
    one._subscriptions.on_lost(source, TransportError("deleted"))
    await until(lambda: len(mine.sources) == 2 and source not in mine.sources)
    await one.publish("custom.thing", 50)
    await until(lambda: 50 in handled)

    assert sorted(handled) == list(range(51))


async def test_a_handler_may_unsubscribe_itself_and_its_event_is_settled(world: World) -> None:
    bus = await world.bus()
    seen: list[int] = []

    async def handle(event: Event[Any]) -> None:
        await subscription.unsubscribe()
        seen.append(event.payload)

    subscription = await bus.subscribe("custom.thing", handle, durable="d", concurrency=1)
    await bus.publish_many([Draft(type="custom.thing", payload=n) for n in range(3)])
    await until(lambda: seen)
    await subscription.unsubscribe()  # waits for the end of what the handler began

    assert seen == [0]
    assert (await world.info("CUSTOM", "d")).ack_floor == 1


async def test_a_handler_in_a_thread_may_unsubscribe_itself(world: World) -> None:
    bus = await world.bus()
    seen: list[int] = []

    def handle(event: Event[Any], ctx: Context) -> None:
        ctx.wait(subscription.unsubscribe())
        seen.append(event.payload)

    subscription = await bus.subscribe("custom.thing", handle, durable="d", concurrency=1)
    await bus.publish("custom.thing", 1)
    await until(lambda: seen)
    await subscription.unsubscribe()

    assert await world.is_quiet("CUSTOM", "d")


async def test_a_handler_may_close_its_bus_and_its_event_is_settled(world: World) -> None:
    other, bus = await world.bus(), await world.bus()
    seen: list[int] = []

    async def handle(event: Event[Any]) -> None:
        await bus.close()
        await bus.publish("custom.last")  # it closes only when this handler has ended
        seen.append(event.payload)

    await bus.subscribe("custom.thing", handle, durable="d", concurrency=1)
    await bus.publish_many([Draft(type="custom.thing", payload=n) for n in range(3)])
    await until(lambda: seen)
    await until(lambda: not bus.is_connected)

    assert seen == [0]
    assert (await world.info("CUSTOM", "d")).ack_floor == 1
    with pytest.raises(NotConnected):
        await bus.publish("custom.thing")
    assert other.is_connected


async def test_closing_waits_for_a_subscription_that_is_ending_already(world: World) -> None:
    bus = await world.bus()
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        begun.set()
        await may_end.wait()

    subscription = await bus.subscribe("custom.thing", handle, durable="d")
    await bus.publish("custom.thing")
    await begun.wait()
    ending = asyncio.create_task(subscription.unsubscribe())
    closing = asyncio.create_task(bus.close())
    await asyncio.wait([closing], timeout=0.2)
    may_end.set()
    await asyncio.gather(ending, closing)

    world.buses = [await world.bus()]
    assert await world.is_quiet("CUSTOM", "d")

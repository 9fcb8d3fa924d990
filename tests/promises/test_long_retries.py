"""Long retries, kept by the server's schedules: on memory and on a real server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omni_worker import Context, Event, EventBus, Retry, RetryPolicy, Settings
from omni_worker.letters.read import DeadLetter, Pointer
from omni_worker.operations.schedules import scheduled_events
from omni_worker.operations.status import consumer_statuses
from omni_worker.operations.trace import trace_event
from omni_worker.operations.trace_json import as_json
from omni_worker.operations.trace_waiting import Word
from omni_worker.schedules.retries import again_consumer, due_filter, waiting_filter
from omni_worker.topology import OWN_STREAM
from omni_worker.transports.memory import MemoryServer, MemoryTransport
from tests.promises.conftest import World, body
from tests.waiting import until

LEAST = 0.5  # seconds: a retry is long from here on
ONCE_MORE = RetryPolicy(retries=1, delay=LEAST, factor=1, jitter=0)
TWICE_MORE = RetryPolicy(retries=2, delay=LEAST, factor=1, jitter=0)


class Failing:
    """A handler that fails so many times for each event."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.runs: list[tuple[str, int, str, int, float]] = []

    async def handle(self, event: Event[Any], ctx: Context) -> None:
        self.runs.append((event.id, ctx.attempt, ctx.stream, ctx.sequence, ctx.first_seen))
        if sum(one[0] == event.id for one in self.runs) <= self.times:
            raise OSError("it is down")


async def kept(bus: EventBus, app: str = "tests") -> int:
    """Count the retries that wait in our own stream."""
    return await stored(bus, waiting_filter(app))


async def stored(bus: EventBus, filter: str) -> int:
    operators, found, after = bus.transport.operators, 0, 0
    while message := await operators.next_message(OWN_STREAM.name, after + 1, filter):
        found, after = found + 1, message.sequence
    return found


async def letters_of(bus: EventBus) -> list[DeadLetter]:
    return [letter async for letter in bus.dead_letters.list(all=True)]


async def all_settled(world: World) -> bool:
    found = await world.buses[0].transport.operators.consumer_info(
        OWN_STREAM.name, again_consumer("tests").name
    )
    quiet = found is None or not (found.num_pending or found.num_ack_pending)
    return quiet and await world.is_quiet("CUSTOM", "r1")


async def test_a_long_retry_waits_in_a_schedule_and_comes_back_as_the_event_it_is(
    world: World,
) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing, others = Failing(1), Failing(0)
    await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
    )
    await bus.subscribe("custom.thing", others.handle, durable="r2", start_from="first")
    await bus.publish("custom.thing", {"x": 1}, id="e-1")
    await until(lambda: len(failing.runs) == 1)
    await until(lambda: kept(bus))

    assert await world.is_quiet("CUSTOM", "r1")

    await until(lambda: len(failing.runs) == 2)
    await until(lambda: all_settled(world))
    first, second = failing.runs
    assert (first[:4], second[:4]) == (("e-1", 1, "CUSTOM", 1), ("e-1", 2, "CUSTOM", 1))
    assert abs(first[4] - second[4]) < 0.05
    assert [one[:2] for one in others.runs] == [("e-1", 1)]
    assert await kept(bus) == 0
    assert await stored(bus, due_filter("tests")) == 1


async def test_attempts_go_on_and_the_letter_is_that_of_the_event(world: World) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(5)
    await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=TWICE_MORE
    )
    published = await bus.publish(
        "custom.thing", {"x": 1}, id="e-1", channel="whatsapp", instance="wa-1"
    )

    await until(lambda: letters_of(bus))

    await until(lambda: all_settled(world))
    assert [one[1] for one in failing.runs] == [1, 2, 3]
    [letter] = await letters_of(bus)
    [event] = await world.letters()
    payload = event["payload"]
    assert (payload["stream"], payload["sequence"]) == ("CUSTOM", published.sequence)
    assert (payload["consumer"], payload["retryCount"]) == ("r1", 2)
    assert payload["headers"] == {"Nats-Msg-Id": ["e-1"]}
    assert payload["subject"] == "custom.thing.whatsapp.wa-1"
    assert (letter.event_id, letter.handler) == ("e-1", "r1")
    assert [one.doubt for one in await bus.dead_letters.with_doubts([letter])] == [""]


@pytest.mark.parametrize("options", [{"order_by": lambda event: event.id}, {"durable": None}])
async def test_with_an_order_or_a_consumer_of_its_own_a_retry_waits_as_before(
    world: World, options: dict[str, Any]
) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(1)
    given = {"durable": "r1", "start_from": "first", "retry": ONCE_MORE, **options}
    await bus.subscribe("custom.thing", failing.handle, **given)
    await bus.publish("custom.thing", {"x": 1}, id="e-1")

    await until(lambda: len(failing.runs) == 2)

    assert await bus.transport.operators.stream_info(OWN_STREAM.name) is None


async def test_without_the_setting_a_retry_waits_as_before(world: World) -> None:
    bus = await world.bus(long_retry=None)
    failing = Failing(1)
    await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
    )
    await bus.publish("custom.thing", {"x": 1}, id="e-1")

    await until(lambda: len(failing.runs) == 2)

    assert await bus.transport.operators.stream_info(OWN_STREAM.name) is None


async def test_what_waits_long_leaves_room_for_what_is_new(world: World) -> None:
    bus = await world.bus(long_retry=60)
    handled: list[int] = []

    async def handle(event: Event[Any]) -> None:
        if event.payload < 300:
            raise Retry(after=600)
        handled.append(event.payload)

    subscription = await bus.subscribe("custom.thing", handle, durable="r1", channel="whatsapp")
    config = (await world.info("CUSTOM", "r1")).config.raw
    await bus.transport.operators.update_consumer("CUSTOM", {**config, "max_ack_pending": 100})

    for number in range(310):
        await world.store("custom.thing.whatsapp.wa-1", body(f"e-{number}", payload=number))

    await until(lambda: len(handled) == 10)
    assert subscription.counts.retried == 300
    assert await kept(bus) == 300
    [known] = bus._subscriptions.bindings
    await known.refresh()
    assert (subscription.warnings, subscription.stalls) == ([], [])
    statuses = await consumer_statuses(bus.transport)
    assert {one.name: one.long_retries for one in statuses if one.long_retries} == {"r1": 300}


async def test_short_retries_go_the_same_way_once_half_of_the_room_is_taken(world: World) -> None:
    bus = await world.bus(long_retry=60)

    async def fail(event: Event[Any]) -> None:
        raise Retry(after=30)

    subscription = await bus.subscribe("custom.thing", fail, durable="r1", channel="whatsapp")
    config = (await world.info("CUSTOM", "r1")).config.raw
    await bus.transport.operators.update_consumer("CUSTOM", {**config, "max_ack_pending": 100})
    [known] = bus._subscriptions.bindings
    for number in range(60):
        await world.store("custom.thing.whatsapp.wa-1", body(f"e-{number}"))
    await until(lambda: subscription.counts.retried == 60)
    await known.refresh()

    for number in range(60, 200):
        await world.store("custom.thing.whatsapp.wa-1", body(f"e-{number}"))

    await until(lambda: subscription.counts.retried == 200)
    assert await kept(bus) == 140


async def test_a_process_that_could_not_acknowledge_leaves_one_retry(world: World) -> None:
    """The schedule is stored and the ack is lost: another process recognises the event."""
    first, second = await world.bus(long_retry=3), await world.bus(long_retry=3)
    retry = RetryPolicy(retries=1, delay=3, factor=1, jitter=0)
    failing = Failing(1)
    options: dict[str, Any] = {
        "durable": "r1", "start_from": "first", "retry": retry, "ack_wait": 0.5,
    }  # fmt: skip
    subscription = await first.subscribe("custom.thing", failing.handle, **options)
    [source] = [one for one in subscription.sources if one.consumer == "r1-bare"]
    source.ack = lambda delivery: None  # type: ignore[method-assign]
    source.answer = lambda *answer, **options: None  # type: ignore[method-assign]
    await first.publish("custom.thing", {"x": 1}, id="e-1")
    await until(lambda: kept(first))
    await first.close(0.0)

    again = await second.subscribe("custom.thing", failing.handle, **options)
    await until(lambda: again.counts.recognised == 1)

    assert await kept(second) == 1
    await until(lambda: len(failing.runs) == 2)
    await until(lambda: second_is_settled(second))
    assert [one[1] for one in failing.runs] == [1, 2]


async def second_is_settled(bus: EventBus) -> bool:
    operators = bus.transport.operators
    places = ((OWN_STREAM.name, "tests-again"), ("CUSTOM", "r1-bare"))
    found = [await operators.consumer_info(*place) for place in places]
    return not any(one is None or one.num_pending or one.num_ack_pending for one in found)


async def test_a_paused_handler_takes_no_retry_until_it_is_resumed(world: World) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(1)
    await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
    )
    await bus.publish("custom.thing", {"x": 1}, id="e-1")
    await until(lambda: kept(bus))
    await bus.pause("r1")
    [known] = bus._subscriptions.bindings
    await known.refresh()

    await until(lambda: stored(bus, due_filter("tests")))
    assert len(failing.runs) == 1
    await bus.resume("r1")
    await known.refresh()

    await until(lambda: len(failing.runs) == 2)


async def test_the_retry_of_a_handler_that_is_gone_becomes_its_dead_letter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.sent_back.UNKNOWN_FOR", 0.0)
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(1)
    gone = await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
    )
    await bus.publish("custom.thing", {"x": 1}, id="e-1")
    await until(lambda: kept(bus))
    await bus.subscribe("custom.other", failing.handle, durable="r2")
    await gone.unsubscribe()

    await until(lambda: letters_of(bus))

    [letter] = await letters_of(bus)
    assert (letter.handler, letter.event_id, letter.error_type) == (
        "r1", "e-1", "omni_worker.sent_back.UnknownHandler",
    )  # fmt: skip
    assert letter.origin == Pointer(stream="CUSTOM", sequence=1)


async def test_a_reader_that_is_deleted_is_made_again_where_it_was(world: World) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(1)
    await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
    )
    await bus.publish("custom.thing", {"x": 1}, id="e-1")
    await until(lambda: len(failing.runs) == 2)
    await until(lambda: all_settled(world))
    await bus._due_retries.look()

    await bus.transport.operators.delete_consumer(OWN_STREAM.name, "tests-again")
    await bus.publish("custom.thing", {"x": 1}, id="e-2")
    await until(lambda: not bus._due_retries.is_reading)
    await until(lambda: len(failing.runs) == 3)
    await bus._due_retries.look()

    await until(lambda: len(failing.runs) == 4)
    await until(lambda: all_settled(world))
    assert [one[:2] for one in failing.runs] == [("e-1", 1), ("e-1", 2), ("e-2", 1), ("e-2", 2)]


async def test_exactly_once_holds_for_what_comes_back(world: World) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(1)
    subscription = await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE,
        exactly_once=True,
    )  # fmt: skip
    await bus.publish("custom.thing", {"x": 1}, id="e-1")
    await until(lambda: len(failing.runs) == 2)
    await until(lambda: all_settled(world))

    await world.store("custom.thing", body("e-1", payload={"x": 1}))

    await until(lambda: subscription.counts.recognised == 1)
    assert len(failing.runs) == 2


async def test_a_trace_and_the_list_of_schedules_tell_what_waits(world: World) -> None:
    bus = await world.bus(long_retry=60)
    failing = Failing(1)
    await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first",
        retry=RetryPolicy(retries=1, delay=600, cap=600, jitter=0),
    )  # fmt: skip
    await bus.publish("custom.thing", {"x": 1}, id="e-0000001")
    await until(lambda: kept(bus))

    trace = await trace_event(
        bus.transport, "e-0000001", since=datetime.now(UTC) - timedelta(hours=1)
    )

    [one] = trace.retries
    assert (one.retry.handler, one.retry.failures, one.word) == ("r1", 1, None)
    [word] = [one for one in trace.consumers if one.handler == "r1"]
    assert word.word is Word.RETRY
    assert as_json(trace)["longRetries"][0]["state"] == "waits for its retry"
    assert await scheduled_events(bus.transport) == []


async def test_a_trace_tells_that_a_retry_that_was_due_is_settled(world: World) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(1)
    subscription = await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
    )
    await bus.publish("custom.thing", {"x": 1}, id="e-0000001")
    await until(lambda: subscription.counts.handled == 1)
    since = datetime.now(UTC) - timedelta(hours=1)

    async def word() -> Word | None:
        [one] = (await trace_event(bus.transport, "e-0000001", since=since)).retries
        return one.word

    async def is_settled() -> bool:
        return await word() is Word.SETTLED

    await until(is_settled)


async def test_an_event_too_large_for_a_schedule_waits_as_before(world: World) -> None:
    bus = await world.bus(long_retry=LEAST)
    failing = Failing(1)
    await bus.subscribe(
        "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
    )
    size = bus.transport.max_payload - len(body("e-1", payload="")) - 100

    await world.store("custom.thing", body("e-1", payload="x" * size))

    await until(lambda: len(failing.runs) == 2)
    await until(lambda: world.is_quiet("CUSTOM", "r1"))
    assert await stored(bus, due_filter("tests")) == 0
    assert bus._long_retries.may_keep


async def test_an_older_server_keeps_a_retry_as_before() -> None:
    server = MemoryServer(version=(2, 11, 8))
    settings = Settings(urls="nats://memory:4222", long_retry=LEAST)
    failing = Failing(1)
    async with EventBus(transport=MemoryTransport(server), name="tests", settings=settings) as bus:
        await bus.subscribe(
            "custom.thing", failing.handle, durable="r1", start_from="first", retry=ONCE_MORE
        )
        await bus.publish("custom.thing", {"x": 1}, id="e-1")

        await until(lambda: len(failing.runs) == 2)

        assert await bus.transport.operators.stream_info(OWN_STREAM.name) is None

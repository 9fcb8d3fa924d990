"""The way back of a dead letter, with the real engine, on memory and on a real server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from omni_worker import App, Context, Draft, Event, EventBus, Reject
from omni_worker.letters.read import DeadLetter, LetterState
from omni_worker.operations.dead_letters import CannotRetry
from omni_worker.operations.letter_lookup import NoSuchLetter
from tests.promises.conftest import World, body, kind, real_server, world
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]


async def letters_of(bus: EventBus, **filters: Any) -> list[DeadLetter]:
    return [letter async for letter in bus.dead_letters.list(**filters)]


async def a_letter(bus: EventBus, count: int = 1) -> list[DeadLetter]:
    """Wait for so many letters; the oldest first."""

    async def there() -> bool:
        return len(await letters_of(bus, all=True)) >= count

    await until(there)
    return await letters_of(bus, all=True)


class Patient:
    """A handler that fails until it is mended."""

    def __init__(self) -> None:
        self.is_mended = False
        self.runs: list[tuple[Event[Any], Context]] = []

    async def handle(self, event: Event[Any], ctx: Context) -> None:
        self.runs.append((event, ctx))
        if not self.is_mended:
            raise Reject("not today")


async def test_a_letter_is_retried_by_the_handler_it_failed_in_and_by_no_other(
    world: World,
) -> None:
    bus = await world.bus()
    patient = Patient()
    others: list[str] = []

    async def other(event: Event[Any]) -> None:
        others.append(event.id)

    await bus.subscribe("custom.thing", other, durable="r2", start_from="first")
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    published = await bus.publish(
        "custom.thing", {"x": 'olá "1"'}, channel="whatsapp", instance="wa.eu.1"
    )
    [letter] = await a_letter(bus)
    patient.is_mended = True

    retried = await bus.dead_letters.retry(letter)
    await bus._returns.look()
    await until(lambda: len(patient.runs) == 2)
    await until(lambda: world.is_quiet("OMNI_WORKER", "tests-retry"))

    (first, _), (second, ctx) = patient.runs
    assert (retried.before, retried.subject) == (False, "omni-worker.retry.tests")
    assert (second.id, second.payload, second.timestamp) == (
        published.id, first.payload, first.timestamp,
    )  # fmt: skip
    assert (second.channel, second.instance, ctx.attempt) == ("whatsapp", "wa.eu.1", 1)
    assert ctx.subject == "custom.thing.whatsapp.wa.eu.1"
    assert others == [published.id]
    assert await letters_of(bus) == []
    [kept] = await letters_of(bus, all=True)
    assert (kept.id, kept.state) == (letter.id, LetterState.RETRIED)


@pytest.mark.parametrize("name", ["r1", "handle", "handle (r1)"])
async def test_letters_are_chosen_by_every_name_of_the_handler_that_a_bus_knows(
    world: World, name: str
) -> None:
    bus = await world.bus()
    await bus.subscribe("custom.thing", Patient().handle, durable="r1", start_from="first")
    await bus.publish("custom.thing", {"x": 1}, id="e-1")
    await a_letter(bus)

    chosen = await letters_of(bus, handler=name)

    assert [(one.handler, one.event_id) for one in chosen] == [("r1", "e-1")]
    assert await letters_of(bus, handler="r2") == []


async def test_a_retry_that_fails_leaves_a_letter_that_names_the_first(world: World) -> None:
    bus = await world.bus()
    patient = Patient()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await bus.publish("custom.thing", {"x": 1}, id="e-1")
    [first] = await a_letter(bus)
    await bus.dead_letters.retry(first)
    await bus._returns.look()

    _, second = await a_letter(bus, 2)

    assert (second.retry_of, second.event_id, second.subject) == (first.id, "e-1", "custom.thing")
    assert [one.id for one in await letters_of(bus)] == [second.id]
    patient.is_mended = True
    await bus.dead_letters.retry(second)
    await until(lambda: len(patient.runs) == 3)
    assert patient.runs[-1][0].id == "e-1"


async def test_repeating_a_retry_sends_nothing_unless_it_is_asked_for_again(world: World) -> None:
    bus = await world.bus()
    patient = Patient()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await bus.publish("custom.thing", {"x": 1})
    [letter] = await a_letter(bus)
    patient.is_mended = True
    await bus.dead_letters.retry(letter)

    repeated = await bus.dead_letters.retry(letter)
    sent = await bus.transport.operators.stream_info("OMNI_WORKER")
    again = await bus.dead_letters.retry(letter, again=True)
    await bus._returns.look()
    await until(lambda: len(patient.runs) == 3)

    assert sent is not None
    assert (repeated.before, again.before, sent.state.messages) == (True, False, 1)


async def test_two_who_retry_at_once_send_it_once(world: World) -> None:
    one, other = await world.bus(), await world.bus()
    patient = Patient()
    await one.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await one.publish("custom.thing", {"x": 1})
    [letter] = await a_letter(one)

    await asyncio.gather(
        *(bus.dead_letters.retry(letter) for bus in (one, other, one)), return_exceptions=True
    )
    info = await one.transport.operators.stream_info("OMNI_WORKER")

    assert info is not None
    assert info.state.messages == 1


async def test_a_retry_that_died_half_way_is_not_sent_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = await world.bus()
    patient = Patient()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await bus.publish("custom.thing", {"x": 1})
    [letter] = await a_letter(bus)
    letters = bus.dead_letters
    write = letters._marks.write

    async def die_before_the_end(
        letter: Any, mark: Any, state: LetterState, *, at: int, after: int | None = None
    ) -> Any:
        if state is LetterState.RETRIED:
            raise KeyError("killed")
        # As long ago as the server needs to have forgotten the id.
        return await write(letter, mark, state, at=at - 5_000, after=after)

    monkeypatch.setattr(letters._marks, "write", die_before_the_end)
    with pytest.raises(KeyError):
        await letters.retry(letter)
    monkeypatch.undo()
    published: list[Any] = []
    monkeypatch.setattr(bus.transport, "publish", published.append)

    retried = await bus.dead_letters.retry(letter)

    assert published == []
    assert retried.letter.state is LetterState.RETRIED


async def test_a_running_worker_is_told_of_the_first_event_that_is_sent_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.bus.REFRESH", 1_000.0)  # it does not look by itself
    patient = Patient()
    operator, worker = await world.bus("operator"), await world.bus()
    await worker.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await worker.publish_many(Draft(type="custom.thing", payload=number) for number in range(2))
    letters = await a_letter(worker, 2)
    patient.is_mended = True

    retried = [await operator.dead_letters.retry(letter) for letter in letters]
    await until(lambda: len(patient.runs) == 4)

    assert [one.heard for one in retried] == [1, 0]  # once it is read, nobody has to be told


async def test_two_looks_at_once_read_what_is_sent_back_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = Patient()
    bus = await world.bus()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await bus.publish("custom.thing", {"x": 1})
    [letter] = await a_letter(bus)
    patient.is_mended = True
    begun: list[str] = []
    consume = bus.transport.consume

    async def slowly(stream: str, consumer: str, receiver: Any, **options: Any) -> Any:
        begun.append(consumer)
        await asyncio.sleep(0)
        return await consume(stream, consumer, receiver, **options)

    monkeypatch.setattr(bus.transport, "consume", slowly)
    await bus.dead_letters.retry(letter)
    await asyncio.gather(*(bus._returns.look() for _ in range(3)))
    await until(lambda: len(patient.runs) == 2)

    assert begun == ["tests-retry"]


async def test_a_worker_that_starts_later_finds_what_was_sent_back(world: World) -> None:
    patient = Patient()
    operator = await world.bus("operator")
    first = await world.bus()
    await first.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await first.publish("custom.thing", {"x": 1})
    [letter] = await a_letter(first)
    await first.close()
    await operator.dead_letters.retry(letter)
    patient.is_mended = True

    second = await world.bus()
    await second.subscribe("custom.thing", patient.handle, durable="r1")
    await until(lambda: len(patient.runs) == 2)

    assert patient.runs[1][0].id == patient.runs[0][0].id


async def test_an_unknown_handler_dead_letters_it_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.sent_back.UNKNOWN_FOR", 0.0)
    patient = Patient()
    old = await world.bus()
    await old.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await old.publish("custom.thing", {"x": 1}, id="e-1")
    [letter] = await a_letter(old)
    await old.close()

    new = await world.bus()
    await new.subscribe("custom.thing", patient.handle, durable="renamed")
    await new.dead_letters.retry(letter)
    await new._returns.look()
    _, second = await a_letter(new, 2)

    assert (second.handler, second.retry_of, second.event_id) == ("r1", letter.id, "e-1")
    assert "no handler of 'tests' is called 'r1'" in second.error
    assert second.why_not == ""


async def test_an_event_of_a_handler_that_is_set_aside_waits_for_a_process_that_runs_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_worker.sent_back.UNKNOWN_FOR", 0.0)
    patient, app = Patient(), App("tests")
    operator = await world.bus("operator")
    app.on("custom.thing", durable="r1", start_from="first")(patient.handle)
    app.on("custom.other", durable="r2")(Patient().handle)
    async with app.running(transport=world.transport(), only=["r1"]) as bus:
        await bus.publish("custom.thing", {"x": 1}, id="e-1")
        [letter] = await a_letter(bus)
    patient.is_mended = True

    async with app.running(transport=world.transport(), without=["r1"]) as bus:
        await bus.dead_letters.retry(letter)
        await bus._returns.look()
        await until(lambda: _was_naked(world))
    runs_before, letters = len(patient.runs), await letters_of(operator, all=True)
    async with app.running(transport=world.transport(), only=["r1"]):
        await until(lambda: len(patient.runs) == 2)

    assert (runs_before, [one.id for one in letters]) == (1, [letter.id])
    assert patient.runs[1][0].id == "e-1"


async def test_a_handler_declared_a_moment_later_still_gets_its_event(world: World) -> None:
    patient = Patient()
    patient.is_mended = True
    late = await world.bus("operator")
    first = await world.bus()
    failing = Patient()
    await first.subscribe("custom.thing", failing.handle, durable="r1", start_from="first")
    await first.publish("custom.thing", {"x": 1}, id="e-1")
    [letter] = await a_letter(first)
    await first.close()
    await late.dead_letters.retry(letter)

    second = await world.bus()
    await second.subscribe("custom.other", patient.handle, durable="r0")
    await until(lambda: _was_naked(world))
    await second.subscribe("custom.thing", patient.handle, durable="r1")
    await until(lambda: bool(patient.runs))

    assert patient.runs[0][0].id == "e-1"


async def _was_naked(world: World) -> bool:
    """Whether the event was delivered to a process that did not know its handler."""
    return bool((await world.info("OMNI_WORKER", "tests-retry")).deliveries)


async def test_more_than_a_process_may_hold_come_back_in_their_turn(world: World) -> None:
    bus = await world.bus()
    patient = Patient()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    for number in range(150):
        await bus.publish("custom.thing", {"x": number}, id=f"e-{number}")
    letters = await a_letter(bus, 150)
    patient.is_mended = True
    patient.runs.clear()
    for letter in letters:
        await bus.dead_letters.retry(letter)

    await bus._returns.look()
    await until(lambda: len(patient.runs) >= 150)
    await until(lambda: world.is_quiet("OMNI_WORKER", "tests-retry"))

    assert sorted(event.id for event, _ in patient.runs) == sorted(f"e-{n}" for n in range(150))


async def test_stopping_hands_back_what_was_sent_back_and_nothing_runs_twice(
    world: World,
) -> None:
    bus = await world.bus()
    patient = Patient()
    gate = asyncio.Event()
    begun: list[str] = []

    async def slow(event: Event[Any]) -> None:
        if not patient.is_mended:
            raise Reject("not today")
        begun.append(event.id)
        await gate.wait()

    await bus.subscribe("custom.thing", slow, durable="r1", start_from="first", concurrency=2)
    for number in range(10):
        await bus.publish("custom.thing", {"x": number}, id=f"e-{number}")
    letters = await a_letter(bus, 10)
    patient.is_mended = True
    for letter in letters:
        await bus.dead_letters.retry(letter)
    await bus._returns.look()
    await until(lambda: len(begun) == 2)

    stopping = asyncio.create_task(bus.drain(5.0))
    began = time.monotonic()
    next_bus = await world.bus()
    await next_bus.subscribe("custom.thing", slow, durable="r1", concurrency=10)
    await until(lambda: len(begun) == 10)
    gate.set()
    await stopping

    assert sorted(begun) == sorted(f"e-{number}" for number in range(10))
    assert time.monotonic() - began < 10  # handed back, not waited for until a lease ran out


async def test_letters_of_other_programs_are_listed_and_say_why_they_cannot_be_retried(
    world: World,
) -> None:
    bus = await world.bus()
    foreign = {
        "originalEventId": "e-1", "originalEventType": "message.received",
        "error": "boom", "retryCount": 3, "timestamp": 1_769_700_000_000,
    }  # fmt: skip
    await world.store(
        "system.dead_letter",
        body("l-1", "system.dead_letter", foreign, metadata={"source": "omni"}),
    )
    await world.store("system.dead_letter", b"no JSON at all")

    first, second = await letters_of(bus)

    assert (first.event_id, first.event_type, first.error) == ("e-1", "message.received", "boom")
    assert (first.attempts, first.app) == (4, "omni")
    assert "cannot be read" in second.error
    with pytest.raises(
        CannotRetry, match=r"another program \(omni\) wrote this dead letter"
    ) as refused:
        await bus.dead_letters.retry(first)
    assert str(refused.value) == f"dead letter #{first.sequence}: {refused.value.reason}"
    await bus.dead_letters.discard(first)
    await bus.dead_letters.discard(second)
    assert await letters_of(bus) == []
    assert len(await letters_of(bus, all=True)) == 2


async def test_letters_are_chosen_by_type_handler_error_and_age(world: World) -> None:
    bus = await world.bus()

    async def fail(event: Event[Any]) -> None:
        raise Reject(f"no {event.payload['x']}")

    await bus.subscribe("custom.thing", fail, durable="things", start_from="first")
    await bus.subscribe("custom.other", fail, durable="others", start_from="first")
    await bus.publish("custom.thing", {"x": "apples"})
    await bus.publish("custom.other", {"x": "pears"})
    letters = await a_letter(bus, 2)
    latest = letters[-1].time

    async def chosen(**filters: Any) -> list[str | None]:
        return [one.event_type for one in await letters_of(bus, **filters)]

    assert await chosen(type="custom.thing") == ["custom.thing"]
    assert await chosen(handler="others") == ["custom.other"]
    assert await chosen(error="APPLES") == ["custom.thing"]
    assert await chosen(error="Reject", handler="things") == ["custom.thing"]
    assert await chosen(since=latest) == [letters[-1].event_type]
    assert await chosen(until=letters[0].time) == [letters[0].event_type]


@pytest.mark.parametrize(
    ("bytes_", "how"), [(b'{"id": 1}', "text"), (b"\xff\xfe\x00", "base64"), (b"", "text")]
)
async def test_the_bytes_of_an_unreadable_event_come_back_as_they_were(
    world: World, bytes_: bytes, how: str
) -> None:
    bus = await world.bus()
    patient = Patient()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await world.store("custom.thing", bytes_)
    [letter] = await a_letter(bus)

    await bus.dead_letters.retry(letter)
    await bus._returns.look()
    _, second = await a_letter(bus, 2)

    assert await bus.dead_letters.body(letter) == bytes_, how
    assert await bus.dead_letters.body(second) == bytes_


async def test_an_event_too_large_for_its_letter_comes_back_from_its_stream(world: World) -> None:
    bus = await world.bus()
    patient = Patient()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    text = '"' * 300_000  # twice as long in JSON, four times in a letter
    published = await bus.publish("custom.thing", {"text": text})
    [letter] = await a_letter(bus)
    patient.is_mended = True

    await bus.dead_letters.retry(letter)
    await bus._returns.look()
    await until(lambda: len(patient.runs) == 2)

    assert patient.runs[1][0].payload == {"text": text}
    assert patient.runs[1][0].id == published.id


async def test_a_letter_is_found_by_number_by_id_and_by_the_beginning_of_its_id(
    world: World,
) -> None:
    bus = await world.bus()
    patient = Patient()
    await bus.subscribe("custom.thing", patient.handle, durable="r1", start_from="first")
    await bus.publish("custom.thing", {"x": 1})
    [letter] = await a_letter(bus)

    found = [
        await bus.dead_letters.get(which)
        for which in (letter.sequence, f"#{letter.sequence}", letter.id, letter.id[:8])
    ]

    assert found == [letter] * 4
    await world.store("system.dead_letter", body("12345678-x", "system.dead_letter", {}))
    assert (await bus.dead_letters.get("12345678")).id == "12345678-x"
    # Seven characters are no id: a number of a letter that is gone must not find another.
    for unknown in (letter.sequence + 2, "1234567", "nonsense", "9" * 30, ""):
        with pytest.raises(NoSuchLetter):
            await bus.dead_letters.get(unknown)


async def test_looking_at_letters_creates_nothing(world: World) -> None:
    bus = await world.bus()
    operators = bus.transport.operators
    before = [one.name for one in await operators.streams()]

    assert await letters_of(bus, all=True) == []

    assert [one.name for one in await operators.streams()] == before
    assert await operators.consumers("SYSTEM") == []

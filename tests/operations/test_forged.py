"""Forged dead letters: what a publisher of letters may not reach with an operator's rights."""

from __future__ import annotations

import json
from typing import Any

import pytest

from omni_worker import Event, EventBus, Reject
from omni_worker.letters.read import DeadLetter
from omni_worker.nats_server import NatsServer
from omni_worker.operations.dead_letters import CannotRetry
from tests.processes.support import plain_client
from tests.promises.conftest import World, body, kind, real_server, world
from tests.waiting import until

from .support import lines_of, operate

__all__ = ["kind", "real_server", "world"]


def forged(source: str = "evil", **facts: Any) -> bytes:
    """A dead letter as anyone may write it."""
    payload = {
        "originalEventId": "x", "originalEventType": "custom.thing", "error": "timeout",
        "retryCount": 3, "timestamp": 1, "subject": "custom.thing", "stream": "CUSTOM",
        "sequence": 1, "storedAt": 1, "consumer": "d", "handler": "d",
        "errorType": "TimeoutError", "traceback": "", "headers": {}, "retryOf": None,
    } | facts  # fmt: skip
    letter = {
        "id": facts.get("id", "forged-1"), "type": "system.dead_letter", "timestamp": 1,
        "payload": payload, "metadata": {"source": source},
    }  # fmt: skip
    return json.dumps(letter).encode()


async def letters_of(bus: EventBus) -> list[DeadLetter]:
    return [letter async for letter in bus.dead_letters.list()]


async def refusal(bus: EventBus, letter: DeadLetter, **options: Any) -> str:
    with pytest.raises(CannotRetry) as caught:
        await bus.dead_letters.retry(letter, **options)
    assert await bus.transport.operators.stream_info("OMNI_WORKER") is None or options
    return caught.value.reason


async def reject(event: Event[Any]) -> None:
    raise Reject("no")


async def given_up(world: World, **event: Any) -> tuple[EventBus, DeadLetter]:
    """A bus, and the letter of an event that its handler rejected."""
    bus = await world.bus("a1")
    await bus.subscribe("custom.thing", reject, durable="d", start_from="first")
    await world.store("custom.thing", body("e-1", **event))
    await until(lambda: world.letters())
    [letter] = await letters_of(bus)
    return bus, letter


async def test_a_letter_cannot_lead_to_a_stream_where_its_event_never_was(world: World) -> None:
    bus = await world.bus("a1")
    await world.store("message.received", body("m-1", "message.received", {"private": "chat"}))
    await world.store("system.dead_letter", forged(bodyRef={"stream": "MESSAGE", "sequence": 1}))
    [letter] = await letters_of(bus)

    plain = await refusal(bus, letter)
    insisting = await refusal(bus, letter, unverified=True)
    with pytest.raises(CannotRetry, match="never was"):
        await bus.dead_letters.body(letter)

    assert plain.startswith("unverified: no worker of ours noted it, and")
    assert "points to MESSAGE, where the event never was" in insisting


async def test_an_original_is_not_believed_for_an_app_that_does_not_read_it(world: World) -> None:
    bus, _ = await given_up(world)
    origin = {"stream": "CUSTOM", "sequence": 1}
    [genuine] = await world.letters()
    facts = {**genuine["payload"], "bodyRef": origin}
    del facts["body"]
    await world.store("system.dead_letter", forged("evil", **facts))

    reason = await refusal(bus, (await letters_of(bus))[1])

    assert "no consumer of the app 'evil' reads CUSTOM as 'd'" in reason


async def test_an_invented_event_is_not_handed_to_another_apps_handler(world: World) -> None:
    bus, _ = await given_up(world)
    [genuine] = await world.letters()
    invented = {**genuine["payload"], "body": body("injected").decode()}
    await world.store("system.dead_letter", forged("a1", **invented))

    reason = await refusal(bus, (await letters_of(bus))[1])

    assert "what CUSTOM #1 holds is not this event" in reason


async def test_the_id_of_a_letter_of_ours_makes_no_other_one_ours(world: World) -> None:
    bus, letter = await given_up(world)
    [genuine] = await world.letters()
    genuine["payload"]["body"] = body("injected").decode()
    await world.store("system.dead_letter", json.dumps(genuine).encode())
    [ours, copied] = await letters_of(bus)

    reason = await refusal(bus, copied)

    assert ours.id == copied.id == letter.id
    assert reason.startswith("unverified: ")
    assert [one.doubt == "" for one in await bus.dead_letters.with_doubts([ours, copied])] == [
        True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("left", ["the note", "the original"])
async def test_a_letter_of_ours_is_believed_by_its_note_or_by_its_original(
    world: World, left: str
) -> None:
    bus, letter = await given_up(world)
    operators = bus.transport.operators
    if left == "the original":
        from omni_worker.letters import notes

        bucket = await bus.transport.bucket("omni-worker-notes", ttl=1)
        await bucket.delete(notes._key(letter.id))
    else:
        await operators.delete_consumer("CUSTOM", "d")

    retried = await bus.dead_letters.retry(letter)

    assert retried.subject == "omni-worker.retry.a1"


async def test_what_the_operator_believes_is_sent(world: World) -> None:
    bus = await world.bus("a1")
    await world.store("system.dead_letter", forged("a1", body=body("e-1").decode()))
    [letter] = await letters_of(bus)

    retried = await bus.dead_letters.retry(letter, unverified=True)

    assert retried.subject == "omni-worker.retry.a1"


async def test_an_unverified_letter_is_shown_as_such_and_not_sent(
    nats_server: NatsServer,
) -> None:
    url = nats_server.url
    async with EventBus(url, name="a1"):
        client = await plain_client(url)
        letter = forged("a1", body=body("injected").decode())
        await client.jetstream().publish("system.dead_letter", letter)
        await client.close()

        listed = operate(url, "dead-letters", "list")
        as_json = operate(url, "dead-letters", "list", "--json")
        shown = operate(url, "dead-letters", "show", "1")
        retried = operate(url, "dead-letters", "retry", "--error", "timeout", "--yes")
        insisted = operate(url, "dead-letters", "retry", "1", "--unverified")

    assert "(unverified) TimeoutError: timeout" in listed.out
    assert [one["verified"] for one in lines_of(as_json)] == [False]
    assert "no worker of ours noted it" in " ".join(shown.out.split())
    assert "retry 1 --unverified" in shown.out
    assert (retried.code, insisted.code) == (1, 0)
    assert "unverified: no worker of ours noted it" in " ".join(retried.out.split())
    assert "on its way back to d of a1" in insisted.out

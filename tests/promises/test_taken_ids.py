"""Ids that we derive, stored first by somebody else: no dead letter and no output is lost to it."""

from __future__ import annotations

import json
from typing import Any

from omni_worker import Event, EventBus, Reject
from omni_worker.letters.written import letter_id
from omni_worker.signals import IdTaken, Listener
from omni_worker.transports.base import Message, StoredMessage
from tests.waiting import until

from .conftest import World, body, kind, real_server, world

__all__ = ["kind", "real_server", "world"]


async def stored(bus: EventBus, stream: str, sequence: int) -> StoredMessage:
    message = await bus.transport.operators.message(stream, sequence)
    assert message is not None
    return message


async def reject(event: Event[Any]) -> None:
    raise Reject("no")


async def test_a_letter_is_stored_although_another_message_has_its_id(world: World) -> None:
    bus = await world.bus()
    taken: list[IdTaken] = []
    bus.signals = type(bus.signals)([Listener(taken.append, (IdTaken,))])
    await world.store("custom.thing", body("victim"))
    id = letter_id(await stored(bus, "CUSTOM", 1), "d")
    await world.store("system.health", b"{}", id)

    subscription = await bus.subscribe("custom.thing", reject, durable="d", start_from="first")
    await until(lambda: subscription.counts.dead_lettered == 1)

    [letter] = await world.letters()
    assert (letter["payload"]["originalEventId"], letter["id"] != id) == ("victim", True)
    assert [(one.id, one.by_stream, one.by_sequence) for one in taken] == [(id, "SYSTEM", 1)]


async def test_a_letter_that_says_something_else_of_the_event_is_not_taken_for_ours(
    world: World,
) -> None:
    bus = await world.bus()
    await world.store("custom.thing", body("victim"))
    event = await stored(bus, "CUSTOM", 1)
    id = letter_id(event, "d")
    forged = {
        "stream": "CUSTOM", "sequence": 1, "storedAt": event.stored_at // 1_000_000,
        "handler": "d", "subject": "custom.thing", "headers": {}, "retryOf": None,
        "body": event.body.decode().replace("victim", "forged"),
    }  # fmt: skip
    letter = {
        "id": id, "type": "system.dead_letter", "timestamp": 1, "payload": forged,
        "metadata": {"source": "tests"},
    }  # fmt: skip
    await world.store("system.dead_letter", json.dumps(letter).encode(), id)

    subscription = await bus.subscribe("custom.thing", reject, durable="d", start_from="first")
    await until(lambda: subscription.counts.dead_lettered == 1)

    ours = (await world.letters())[-1]["payload"]
    assert len(await world.letters()) == 2
    assert json.loads(ours["body"])["id"] == "victim"


async def test_a_letter_stored_before_a_death_is_not_stored_again(world: World) -> None:
    bus = await world.bus()
    real = bus.publisher.publish_letter

    async def twice(*arguments: Any) -> Any:
        await real(*arguments)  # a process that died before it terminated the event
        return await real(*arguments)

    bus.publisher.publish_letter = twice  # type: ignore[method-assign, assignment]

    subscription = await bus.subscribe("custom.thing", reject, durable="d")
    await bus.publish("custom.thing", {"x": "é"})
    await world.store("custom.thing", b"\xff not utf-8")
    await until(lambda: subscription.counts.dead_lettered == 2)

    assert len(await world.letters()) == 2


async def test_every_id_that_can_be_derived_may_be_taken(world: World) -> None:
    bus = await world.bus()
    real = bus.publisher.publish_letter
    tries = 0

    async def taken(id: str, *arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries <= 20:
            await world.store("system.health", b"{}", id)
        return await real(id, *arguments)

    bus.publisher.publish_letter = taken  # type: ignore[method-assign, assignment]

    subscription = await bus.subscribe("custom.thing", reject, durable="d")
    await bus.publish("custom.thing", {})
    await until(lambda: subscription.counts.dead_lettered == 1)

    assert (tries, len(await world.letters())) == (21, 1)


async def test_our_headers_on_an_ordinary_event_are_not_ours(world: World) -> None:
    bus = await world.bus()
    headers = {
        "Omni-Worker-Retry-Of": "11111111-1111-1111-1111-111111111111",
        "Omni-Worker-Subject": "custom.admin",
        "Omni-Worker-Handler": "other",
    }
    message = Message("custom.thing", body("e-1"), "", headers)

    subscription = await bus.subscribe("custom.thing", reject, durable="d")
    await bus.transport.publish(message, timeout=5)
    await until(lambda: subscription.counts.dead_lettered == 1)

    [letter] = await world.letters()
    facts = letter["payload"]
    assert (facts["handler"], facts["subject"], facts["retryOf"]) == ("d", "custom.thing", None)

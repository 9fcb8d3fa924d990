"""Unaddressed: where an event without channel and instance goes, by the setting."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from omni_worker import App, Context, Draft, Event, Published, Reject, Settings, signals
from omni_worker.transports.base import Message
from omni_worker.transports.memory import MemoryTransport

from .waiting import until

BARE, GLOBAL = Settings(), Settings(unaddressed="internal.global")
Work = Callable[[App], Awaitable[object]]


def app_with(settings: Settings) -> App:
    """An app whose handler of questions answers each twice, without an address."""
    app = App("router", settings=settings)

    @app.on("custom.question", durable="answers")
    async def answer(event: Event[Any], ctx: Context) -> None:
        await app.publish("custom.answer", {"n": 1})
        await app.publish("custom.answer", {"n": 1})

    @app.on("custom.broken", durable="broken", max_retries=0)
    async def fail(event: Event[Any]) -> None:
        raise Reject("no")

    return app


async def stored(app: App, work: Work, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Subject and envelope of everything that is stored once ``work(app)`` has had its effect."""
    records: list[tuple[str, dict[str, Any]]] = []
    transport = MemoryTransport()
    transport.server.watchers.append(
        lambda stream, record: records.append((record.subject, json.loads(record.body)))
    )
    async with app.running(transport=transport):
        await work(app)
        await until(lambda: len(records) >= count)
    return records


async def publish_each_way(app: App) -> None:
    await app.publish("custom.one", {})
    await app.publish_many([Draft(type="custom.many")])
    await app.publish_many(Draft(type="custom.stream") for _ in range(1))
    await app.publish("custom.sent", {}, channel="whatsapp", instance="wa-001")


@pytest.mark.parametrize("has_middleware", [False, True])
@pytest.mark.parametrize(("settings", "end"), [(BARE, ""), (GLOBAL, ".internal.global")])
async def test_an_event_without_an_address_goes_where_the_setting_says(
    settings: Settings, end: str, has_middleware: bool
) -> None:
    app = App("router", settings=settings)
    if has_middleware:

        @app.publish_middleware
        async def change(event: Event[Any], call_next: Any) -> Published:
            event.payload = {"changed": True}
            published: Published = await call_next(event)
            return published

    records = await stored(app, publish_each_way, 4)

    assert [subject for subject, _ in records] == [
        f"custom.one{end}", f"custom.many{end}", f"custom.stream{end}",
        "custom.sent.whatsapp.wa-001",
    ]  # fmt: skip
    assert not any("channelType" in body["metadata"] for _, body in records[:3])


async def test_the_setting_changes_no_id() -> None:
    async def ask(app: App) -> None:
        await app.publish("custom.question", {}, id="q")

    found = {}
    for settings in (BARE, GLOBAL):
        records = await stored(app_with(settings), ask, 3)
        found[settings.unaddressed] = [body["id"] for _, body in records]

    assert found["bare"] == found["internal.global"]
    assert len(set(found["bare"])) == 3


async def ids_of_a_run(settings: Settings, transport: MemoryTransport) -> list[str]:
    """The ids of what a handler publishes for the first event there is."""
    app, ids = App("router", settings=settings), list[str]()

    @app.on("custom.question", durable="d", start_from="first")
    async def answer(event: Event[Any], ctx: Context) -> None:
        ids.append((await ctx.publish("custom.answer", {"n": 1})).id)

    async with app.running(transport=MemoryTransport(transport.server)) as bus:
        await bus.publish("custom.question", {}, id="q")
        await until(lambda: ids)
    for name in ("d", "d-bare"):  # so that it runs again; a process that runs would recognise it
        transport.server.delete_consumer("CUSTOM", name)
    return ids


@pytest.mark.parametrize("first", [BARE, GLOBAL])
@pytest.mark.parametrize("second", [BARE, GLOBAL])
async def test_a_second_run_publishes_the_same_events_with_either_setting(
    first: Settings, second: Settings
) -> None:
    transport = MemoryTransport()

    ids = await ids_of_a_run(first, transport)
    again = await ids_of_a_run(second, transport)

    assert len({*ids, *again}) == 1
    assert transport.server.streams["CUSTOM"].last_sequence == 2


@pytest.mark.parametrize(
    ("settings", "subject"),
    [(BARE, "system.dead_letter"), (GLOBAL, "system.dead_letter.internal.global")],
)
async def test_a_dead_letter_goes_where_the_setting_says_and_is_found(
    settings: Settings, subject: str
) -> None:
    app, transport = app_with(settings), MemoryTransport()

    async with app.running(transport=transport) as bus:
        await app.publish("custom.broken", {}, id="b", channel="whatsapp", instance="wa-001")
        await until(lambda: transport.server.streams["SYSTEM"].last_sequence == 1)
        [letter] = [letter async for letter in bus.dead_letters.list()]
        record = transport.server.streams["SYSTEM"].get(1)

    assert record is not None
    assert (record.subject, letter.event_id) == (subject, "b")
    # Its metadata is the original's, whatever its own subject is.
    assert json.loads(record.body)["metadata"]["instanceId"] == "wa-001"


@pytest.mark.parametrize(
    "subject", ["system.dead_letter", "system.dead_letter.internal.global",
                "system.dead_letter.whatsapp.wa.eu.1"],
)  # fmt: skip
async def test_a_dead_letter_that_cannot_be_handled_makes_no_other(subject: str) -> None:
    app, transport = App("alarms", settings=GLOBAL), MemoryTransport()

    @app.on("system.dead_letter", durable="alarms", max_retries=0)
    async def ring(event: Event[Any]) -> None:
        raise Reject("no")

    dropped = list[signals.Signal]()
    app.listen(dropped.append, signals.DeadLetterDropped, signals.DeadLettered)
    facts = {"id": "l", "type": "system.dead_letter", "payload": {}}
    async with app.running(transport=transport):
        await transport.publish(Message(subject, json.dumps(facts).encode(), ""), timeout=5)
        await until(lambda: dropped)

    assert isinstance(dropped[0], signals.DeadLetterDropped)
    assert transport.server.streams["SYSTEM"].last_sequence == 1


async def test_an_event_of_a_program_that_is_never_bare_arrives_with_its_address() -> None:
    app, other = App("router"), App("other", settings=GLOBAL)
    transport, seen = MemoryTransport(), list[tuple[str | None, str | None]]()

    @app.on("custom.question", durable="d")
    async def handle(event: Event[Any]) -> None:
        seen.append((event.channel, event.instance))

    async with (
        app.running(transport=transport),
        other.running(transport=MemoryTransport(transport.server)),
    ):
        await other.publish("custom.question", {})
        await until(lambda: seen)

    assert seen == [("internal", "global")]

"""`omni-worker schedules`: what is published later is listed, cancelled, or due now."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from omni_worker import ConfigError, EventBus
from omni_worker.cron import Cron
from omni_worker.nats_server import NatsServer
from omni_worker.operations.schedules import (
    NoSuchSchedule,
    cancel_schedule,
    find_schedule,
    pause_schedule,
    resume_schedule,
    run_schedule_now,
    scheduled_events,
)
from omni_worker.schedules.messages import schedule_message
from omni_worker.transports.base import Message
from tests.cli.support import too_wide
from tests.promises.conftest import World, kind, real_server, world
from tests.test_schedules import published
from tests.waiting import until

from .support import Measured, Said, least, measure, operate

__all__ = ["kind", "real_server", "world"]


async def call(server: NatsServer, *words: str) -> Said:
    return await asyncio.to_thread(operate, server.url, "schedules", *words)


async def test_what_is_scheduled_is_listed_with_what_cancels_it(nats_server: NatsServer) -> None:
    assert "No event is scheduled" in (await call(nats_server, "list")).out
    at = datetime.now(UTC) + timedelta(days=2)
    async with EventBus(nats_server.url, name="bot") as bus:
        await bus.publish("custom.late", 1, at=at, key="follow-up:chat 7")
        first = await bus.publish("custom.late", 2, after=3600.5)
        await bus.cancel((await bus.publish("custom.late", 3, after=60)).id)
        await bus.schedules.crons.declare("report", Cron("0 8 29 2 *", "America/Sao_Paulo"))

    said = await call(nats_server, "list")
    as_json = json.loads((await call(nats_server, "list", "--app-name", "bot", "--json")).out)
    one = await call(nats_server, "list", "--limit", "1")

    rows = [" ".join(line.split()) for line in said.out.splitlines()[1:]]
    short = first.id[:8]
    assert rows[0] in (
        f"{due_of(first.due)} {time} bot {short} custom.late" for time in ("59 min", "60 min")
    )
    assert rows[1].startswith(due_of(at))
    assert rows[1].endswith("bot follow-up:chat 7 custom.late")
    assert rows[2].endswith("bot report cron 0 8 29 2 * America/Sao_Paulo")
    assert len(rows) == 3
    assert too_wide(said.out) == []
    assert [row["key"] for row in as_json] == [None, "follow-up:chat 7", None]
    assert [row["cron"] for row in as_json] == [None, None, "0 8 29 2 *"]
    assert as_json[0]["id"] == first.id
    assert one.out.endswith("2 more: --limit 3\n")
    assert (await call(nats_server, "cancel", short)).code == 0


async def test_of_many_only_those_that_are_shown_are_kept_in_memory(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    many, due = 5_000, time.time_ns() + 3_600 * 10**9
    async with EventBus(nats_server.url, name="bot") as bus:
        last = await bus.publish("custom.late", after=86_400, key="last")
        await bus.transport.publish_many(
            (
                schedule_message(
                    Message("custom.late", b"x" * 8_000, f"id-{number:06}"), "bot",
                    f"id-{number:06}", due=due + number * 10**9, key=None, cause=None,
                )
                for number in range(many)
            ),
            timeout=60,
        )  # fmt: skip

    def measured(*words: str) -> Measured:
        return measure(nats_server.url, "schedules", *words, folder=tmp_path)

    listed = await asyncio.to_thread(measured, "list", "--limit", "3")
    as_json = await asyncio.to_thread(measured, "list", "--limit", "3", "--json")
    cancelled = await asyncio.to_thread(measured, "cancel", "last")
    bound = await asyncio.to_thread(least, tmp_path) + 12  # MB; all events are 40 MB

    rows = listed.said.out.splitlines()
    assert [row.split()[-2] for row in rows[1:4]] == ["id-000000", "id-000001", "id-000002"]
    assert rows[-1] == f"4 998 more: --limit {many + 1}"
    assert [one["id"] for one in json.loads(as_json.said.out)] == [f"id-00000{n}" for n in range(3)]
    assert "4 998 more" in as_json.said.err
    assert (cancelled.said.code, last.key) == (0, "last")
    assert max(listed.peak, as_json.peak, cancelled.peak) < bound


def due_of(due: datetime) -> str:
    """The time as a row has it: without the year if it is this one."""
    due = due.astimezone()
    return f"{due:%m-%d %T}" if due.year == datetime.now().year else f"{due:%F}"


async def test_times_are_in_the_zone_of_the_terminal(nats_server: NatsServer) -> None:
    async with EventBus(nats_server.url, name="bot") as bus:
        await bus.publish("custom.late", at=datetime(2040, 1, 31, 20, tzinfo=UTC), key="k")

    def said(*words: str) -> str:
        return operate(nats_server.url, "schedules", *words, TZ="Asia/Kolkata").out

    listed = await asyncio.to_thread(said, "list")
    as_json = json.loads(await asyncio.to_thread(said, "list", "--json"))
    resumed = await asyncio.to_thread(said, "resume", "k")

    assert listed.splitlines()[0].startswith("DUE (IST) ")
    assert listed.splitlines()[1].startswith("2040-02-01 ")
    assert as_json[0]["due"] == "2040-01-31T20:00:00Z"
    assert resumed == "k of bot is not paused; it is due at 2040-02-01 01:30:00 IST.\n"


async def test_one_is_cancelled_and_one_is_published_now(nats_server: NatsServer) -> None:
    async with EventBus(nats_server.url, name="bot") as bus:
        await bus.publish("custom.late", "cancelled", after=3600, key="a")
        await bus.publish("custom.late", "now", after=3600, key="b")

        cancelled = await call(nats_server, "cancel", "a")
        again = await call(nats_server, "cancel", "a")
        now = await call(nats_server, "run-now", "b")

        assert await published(bus) == ["now"]
        assert (cancelled.code, again.code, now.code) == (0, 1, 0)
        assert "a of bot is cancelled; it was due at" in cancelled.out
        assert "nothing is scheduled as 'a'" in again.err
        assert await scheduled_events(bus.transport) == []


async def test_an_app_is_named_where_two_have_scheduled_one_key(world: World) -> None:
    for name in ("one", "other"):
        bus = await world.bus(name)
        await bus.publish("custom.late", name, after=3600, key="k")
    transport = bus.transport

    with pytest.raises(NoSuchSchedule, match="scheduled by one and by other: choose by --app-name"):
        await find_schedule(transport, "k", None)
    await cancel_schedule(transport, await find_schedule(transport, "k", "one"))
    await run_schedule_now(transport, await find_schedule(transport, "k", None))

    assert await published(bus) == ["other"]


async def test_what_was_replaced_since_it_was_read_stays(world: World) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=3600, key="k")
    read = await find_schedule(bus.transport, "k", None)
    await bus.publish("custom.late", 2, after=3600, key="k")

    with pytest.raises(NoSuchSchedule, match="became due or was replaced at this moment"):
        await cancel_schedule(bus.transport, read)

    assert len(await scheduled_events(bus.transport)) == 1


async def test_an_event_with_a_key_is_found_by_its_id_too(world: World) -> None:
    bus = await world.bus()
    scheduled = await bus.publish("custom.late", 1, after=3600, key="k")

    await run_schedule_now(bus.transport, await find_schedule(bus.transport, scheduled.id, None))

    assert await published(bus) == [1]

    async def is_gone() -> bool:
        return not await scheduled_events(bus.transport)

    await until(is_gone)


async def test_a_paused_event_is_due_when_it_is_resumed(world: World) -> None:
    bus = await world.bus()
    transport = bus.transport
    await bus.publish("custom.late", "paused", after=0.2, key="k")
    await pause_schedule(transport, await find_schedule(transport, "k", None), by="ana")
    await bus.publish("custom.late", "not paused", after=0.4)

    meanwhile = await published(bus)
    [listed] = await scheduled_events(transport)
    await resume_schedule(transport, listed)
    in_the_end = await published(bus, count=2)

    assert meanwhile == ["not paused"]
    assert listed.pause is not None
    assert listed.pause.shown == "paused by ana"
    assert in_the_end == ["not paused", "paused"]


@pytest.mark.parametrize("end", ["cancelled", "run now", "replaced"])
async def test_a_paused_event_can_be_ended_otherwise(world: World, end: str) -> None:
    bus = await world.bus()
    transport = bus.transport
    await bus.publish("custom.late", "paused", after=3600, key="k")
    await pause_schedule(transport, await find_schedule(transport, "k", None), by="ana")

    if end == "cancelled":
        assert await bus.cancel("k")
    elif end == "run now":
        await run_schedule_now(transport, await find_schedule(transport, "k", None))
        assert await published(bus) == ["paused"]
    else:
        await bus.publish("custom.late", "newer", after=0, key="k")
        assert await published(bus) == ["newer"]

    async def none_is_left() -> bool:
        return not await scheduled_events(transport)

    await until(none_is_left)


async def test_a_paused_event_keeps_its_headers_and_body(world: World) -> None:
    bus = await world.bus()
    transport = bus.transport
    await bus.publish("custom.late", 1, after=3600, key="k")
    before = (await find_schedule(transport, "k", None)).message

    await pause_schedule(
        transport, await find_schedule(transport, "k", None), by="ana", reason="night"
    )
    await resume_schedule(transport, await find_schedule(transport, "k", None))
    after = (await find_schedule(transport, "k", None)).message

    ignored = {"Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence"}
    assert {k: v for k, v in after.headers.items() if k not in ignored} == {
        k: v for k, v in before.headers.items() if k not in ignored
    }
    assert after.body == before.body


@pytest.mark.parametrize("reason", ["two\nlines", "x" * 257, " space"])
async def test_a_reason_that_cannot_travel_in_a_header_is_refused(
    world: World, reason: str
) -> None:
    bus = await world.bus()
    await bus.publish("custom.late", 1, after=3600, key="k")
    event = await find_schedule(bus.transport, "k", None)

    with pytest.raises(ConfigError, match="expected up to 256 printable characters"):
        await pause_schedule(bus.transport, event, by="ana", reason=reason)


async def test_a_pause_is_ordered_listed_and_ended_at_a_terminal(nats_server: NatsServer) -> None:
    async with EventBus(nats_server.url, name="bot") as bus:
        await bus.publish("custom.late", 1, after=3600, key="k")
        await bus.schedules.crons.declare("report", Cron("0 8 29 2 *", "America/Sao_Paulo"))

        paused = await call(nats_server, "pause", "report", "--reason", "the bank is closed")
        listed = await call(nats_server, "list")
        [_, as_json] = json.loads((await call(nats_server, "list", "--json")).out)
        resumed = await call(nats_server, "resume", "report")
        again = await call(nats_server, "resume", "k")
        missing = await call(nats_server, "pause", "nothing")

    assert "report of bot is paused; its next time was" in paused.out
    assert "Times until it is resumed are left out." in " ".join(paused.out.split())
    assert "omni-worker schedules resume report" in paused.out
    assert "(the bank is closed)" in listed.out
    assert all(len(line) <= 80 for line in listed.out.splitlines())
    assert as_json["reason"] == "the bank is closed"
    assert as_json["by"]
    assert as_json["paused"]
    assert "report of bot is resumed; it is due at" in resumed.out
    assert "k of bot is not paused; it is due at" in again.out
    assert (missing.code, again.code) == (1, 0)

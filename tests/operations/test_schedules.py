"""`omni-worker schedules`: what is published later is listed, cancelled, or due now."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from omni_worker import EventBus
from omni_worker.cron import Cron
from omni_worker.nats_server import NatsServer
from omni_worker.operations.schedules import (
    NoSuchSchedule,
    cancel_schedule,
    find_schedule,
    run_schedule_now,
    scheduled_events,
)
from tests.promises.conftest import World, kind, real_server, world
from tests.test_schedules import published
from tests.waiting import until

from .support import Said, operate, table_of

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
    as_json = json.loads((await call(nats_server, "list", "--app", "bot", "--json")).out)
    one = await call(nats_server, "list", "--limit", "1")

    # Each has its subject on a line of its own; so has the head.
    rows = [" ".join(cell.strip() for cell in row) for row in table_of(said)[1:]]
    assert rows[0] in (f"{first.due:%F %T} {time} bot {first.id}" for time in ("59 min", "60 min"))
    assert rows[2].startswith(f"{at:%F %T}")
    assert rows[2].endswith("bot follow-up:chat 7")
    assert rows[4].endswith("bot report")
    assert [row.strip() for row in rows[1::2]] == [
        "custom.late",
        "custom.late",
        "custom.cron.report 0 8 29 2 * America/Sao_Paulo",
    ]
    assert [row["key"] for row in as_json] == [None, "follow-up:chat 7", None]
    assert [row["cron"] for row in as_json] == [None, None, "0 8 29 2 *"]
    assert as_json[0]["id"] == first.id
    assert one.out.endswith("2 more: --limit 3\n")


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

    with pytest.raises(NoSuchSchedule, match="scheduled by one and by other: choose by --app"):
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

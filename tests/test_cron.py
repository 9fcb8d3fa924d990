"""Handlers that run by the clock: registered, once for each time, caught up after a silence."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omni_worker import App, ConfigError, Event, EventBus
from omni_worker.cli.handler_list import handler_list
from omni_worker.cron import Cron, check_cron, time_after, time_before
from omni_worker.errors import InvalidEvent, TopologyError
from omni_worker.handlers import Handler
from omni_worker.nats_server import NatsServer
from omni_worker.operations.crons import unclaimed_crons
from omni_worker.operations.drift import Needs, apply, find_drift
from omni_worker.operations.schedules import (
    NoSuchSchedule,
    cancel_schedule,
    find_schedule,
    pause_schedule,
    resume_schedule,
    run_schedule_now,
    scheduled_events,
)
from omni_worker.schedules.crons import check_version
from omni_worker.schedules.occurrences import (
    cron_message,
    cron_subject,
    occurred,
    occurrence_subject,
)
from omni_worker.signals import CronRestored, Listener
from omni_worker.testing import TestWorker
from omni_worker.topology import NANO, OWN_STREAM
from omni_worker.transports.jetstream import JetStreamTransport
from omni_worker.transports.memory import MemoryServer
from tests.promises.conftest import World, kind, real_server, world
from tests.test_schedules import stored
from tests.waiting import until

__all__ = ["kind", "real_server", "world"]

EVERY_SECOND = Cron("* * * * * *")  # in the server's form: a test waits for no minute
DAILY = "0 8 * * *"


def daily_app(catch_up: str = "one", expression: str = DAILY) -> App:
    app = App("bot")

    @app.cron(expression, tz="America/Sao_Paulo", durable="report", catch_up=catch_up)  # type: ignore[arg-type]
    async def report(event: Event[Any]) -> None: ...

    return app


def handler_of(cron: Cron, name: str = "report") -> Handler:
    """A handler with a cron that a decorator would refuse: it is due every second."""
    app = App("bot")

    @app.cron(DAILY, durable=name)
    async def report(event: Event[Any]) -> None: ...

    return replace(app.handlers[0], cron=cron)


async def occurrences(bus: EventBus) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in await stored(bus, "custom.cron.report")]


# --- on memory and on the server ------------------------------------------------------------


async def test_two_processes_make_one_event_of_each_time(world: World) -> None:
    for _ in range(2):
        bus = await world.bus("bot")
        await bus.run_handler(handler_of(EVERY_SECOND))

    await until(lambda: _are(bus, 3))

    found = await occurrences(bus)
    times = [one["timestamp"] for one in found]
    assert sorted(set(times)) == times
    assert not [one for one in times if one % 1000]
    assert len({one["id"] for one in found}) == len(found)
    due = datetime.fromtimestamp(times[0] / 1000, UTC).isoformat()
    assert found[0]["payload"] == {"due": due, "cron": EVERY_SECOND.expression, "tz": "UTC"}
    assert found[0]["metadata"] == {
        "correlationId": found[0]["id"],
        "traceId": found[0]["id"],
        "source": "bot",
    }
    late = [one.stored_at / NANO for one in await stored(bus, "custom.cron.report")]
    assert all(at >= time / 1000 for at, time in zip(late, times, strict=False))


async def _are(bus: EventBus, count: int) -> bool:
    return len(await occurrences(bus)) >= count


async def test_the_process_that_started_last_decides_and_an_equal_one_writes_nothing(
    world: World,
) -> None:
    bus = await world.bus("bot")
    kept: list[tuple[int, str]] = []

    for expression in (DAILY, DAILY, "30 9 * * *"):
        await bus.schedules.crons.declare("report", Cron(expression))
        [one] = await stored(bus, cron_subject("bot", "report"), OWN_STREAM.name)
        kept.append((one.sequence, one.headers["Nats-Schedule"][0]))

    assert kept == [(1, "0 0 8 * * *"), (1, "0 0 8 * * *"), (2, "0 30 9 * * *")]


async def test_a_time_the_server_missed_is_run_later_and_once(world: World) -> None:
    buses = [await world.bus("bot") for _ in range(2)]
    bus = buses[0]
    await bus.schedules.crons.declare("report", Cron(DAILY))
    a_day_later = bus.transport.clock() + 86_400 * NANO

    for one in buses:
        one.schedules.crons._declared["report"] = Cron(DAILY)
        one.transport.clock = lambda: a_day_later  # type: ignore[method-assign]
        one.schedules.crons.resumed()
    await asyncio.gather(*(one.schedules.look() for one in buses))
    await until(lambda: _are(bus, 1))
    await asyncio.gather(*(one.schedules.look() for one in buses))

    [found] = await occurrences(bus)
    assert found["timestamp"] * 1_000_000 == time_before(DAILY, "UTC", a_day_later)
    assert len(await stored(bus, occurrence_subject("bot", "report"), OWN_STREAM.name)) == 1


@pytest.mark.parametrize("change", ["cancelled", "declared by a newer process"])
async def test_a_process_does_not_catch_up_on_a_cron_that_others_ended(
    world: World, change: str
) -> None:
    bus = await world.bus("bot")
    await bus.schedules.crons.declare("report", Cron(DAILY))
    if change == "cancelled":
        await cancel_schedule(bus.transport, await find_schedule(bus.transport, "report", "bot"))
    else:
        newer = await world.bus("bot")
        await newer.schedules.crons.declare("report", Cron("30 9 * * *"))
    a_day_later = bus.transport.clock() + 86_400 * NANO
    bus.transport.clock = lambda: a_day_later  # type: ignore[method-assign]

    bus.schedules.crons.resumed()
    await bus.schedules.look()

    assert not bus.schedules.crons._is_to_catch_up
    due = occurrence_subject("bot", "report")
    assert await stored(bus, due, OWN_STREAM.name) == []


async def test_a_cron_is_registered_again_in_an_emptied_stream_and_a_cancelled_one_is_not(
    world: World,
) -> None:
    bus = await world.bus("bot")
    restored: list[Any] = []
    bus.signals.add(Listener(restored.append, (CronRestored,)))
    for name in ("report", "cancelled"):
        await bus.schedules.crons.declare(name, EVERY_SECOND)
    await cancel_schedule(bus.transport, await find_schedule(bus.transport, "cancelled", "bot"))
    await bus.schedules.look()
    await empty(world)

    await bus.schedules.look()
    await bus.schedules.look()

    count = len(await occurrences(bus))
    await until(lambda: _are(bus, count + 2))
    assert [one.name for one in await scheduled_events(bus.transport)] == ["report"]
    assert restored == [CronRestored(name="report")]


async def empty(world: World) -> None:
    """As an operator: purge the stream of schedules."""
    if isinstance(world.server, MemoryServer):
        stream = world.server.stream(OWN_STREAM.name, "")
        for subject in list(stream._by_subject):
            stream.purge(subject)
    else:
        transport = world.buses[0].transport
        assert isinstance(transport, JetStreamTransport)
        await transport._api.ask(f"STREAM.PURGE.{OWN_STREAM.name}")


async def test_a_cron_and_the_forwarder_go_on_where_their_stream_was_deleted(world: World) -> None:
    bus = await world.bus("bot")
    await bus.schedules.crons.declare("report", EVERY_SECOND)
    await until(lambda: _are(bus, 1))
    await bus.schedules.look()
    await world.delete_stream(OWN_STREAM.name)
    await until(lambda: bus.schedules.forwarder._source is None)

    await bus.schedules.look()

    count = len(await occurrences(bus))
    await until(lambda: _are(bus, count + 2))


async def test_a_cron_is_listed_run_now_cancelled_and_declared_again(world: World) -> None:
    bus = await world.bus("bot")
    await bus.schedules.crons.declare("report", Cron(DAILY, "America/Sao_Paulo"))
    transport = bus.transport

    [listed] = await scheduled_events(transport)
    await run_schedule_now(transport, await find_schedule(transport, "report", None))
    await until(lambda: _are(bus, 1))
    await cancel_schedule(transport, await find_schedule(transport, "report", "bot"))
    after = await scheduled_events(transport)
    await bus.schedules.crons.declare("report", Cron(DAILY))

    assert (listed.name, listed.subject) == ("report", "custom.cron.report")
    assert listed.cron == Cron(DAILY, "America/Sao_Paulo")
    assert (listed.due.hour, listed.due.minute) == (11, 0)
    assert after == []
    assert len(await scheduled_events(transport)) == 1


async def test_a_paused_cron_stays_so_over_a_deploy_and_is_not_caught_up_on(world: World) -> None:
    bus = await world.bus("bot")
    transport, crons = bus.transport, bus.schedules.crons
    await crons.declare("report", EVERY_SECOND)
    await until(lambda: _are(bus, 1))

    await pause_schedule(transport, await find_schedule(transport, "report", None), by="ana")
    await crons.declare("report", EVERY_SECOND)
    crons.resumed()
    await bus.schedules.look()
    before = len(await occurrences(bus))
    await bus.publish("custom.late", after=2.5)  # in the meantime the cron would be due twice
    await until(lambda: _is_stored(bus, "custom.late"))
    meanwhile = len(await occurrences(bus))
    await crons.declare("report", Cron("*/2 * * * * *"))
    [newer] = await scheduled_events(transport)
    await resume_schedule(transport, newer)
    await until(lambda: _are(bus, meanwhile + 1))

    assert meanwhile - before <= 1  # one may have been on its way
    assert newer.pause is not None
    assert newer.cron == Cron("*/2 * * * * *")
    assert (await find_schedule(transport, "report", None)).pause is None


async def _is_stored(bus: EventBus, subject: str) -> bool:
    return bool(await stored(bus, subject))


async def test_a_cron_and_a_key_of_its_name_are_told_apart(world: World) -> None:
    bus = await world.bus("bot")
    await bus.schedules.crons.declare("report", Cron(DAILY))
    event = await bus.publish("custom.late", after=60, key="report")

    with pytest.raises(NoSuchSchedule, match=f"the key of an event and a cron.*{event.id}"):
        await find_schedule(bus.transport, "report", None)

    by_id = await find_schedule(bus.transport, event.id, None)
    by_type = await find_schedule(bus.transport, "custom.cron.report", "bot")
    assert (by_id.key, by_id.cron) == ("report", None)
    assert by_type.cron == Cron(DAILY)


async def test_plan_removes_crons_that_no_handler_declares_and_no_others(world: World) -> None:
    bus = await world.bus("bot")
    for name in ("report", "removed"):
        await bus.schedules.crons.declare(name, Cron(DAILY))
    other = await world.bus("other")
    await other.schedules.crons.declare("removed", Cron(DAILY))
    needs = Needs(
        app="bot",
        handlers=[handler_of(Cron(DAILY))],
        registry=bus.registry,
        settings=bus.settings,
    )

    [step] = [one for one in await find_drift(bus.transport, needs) if one.kind == "cron"]
    await apply(bus.transport, step)

    assert (step.action, step.name, step.is_drift) == ("orphaned", "removed", False)
    assert [(one.app, one.name) for one in await scheduled_events(bus.transport)] == [
        ("bot", "report"),
        ("other", "removed"),
    ]
    assert await unclaimed_crons(bus.transport, "bot", needs.handlers) == []


async def test_plan_makes_what_a_cron_needs_where_workers_may_not(world: World) -> None:
    bus = await world.bus("bot", provision="off")
    needs = Needs(
        app="bot",
        handlers=[handler_of(EVERY_SECOND)],
        registry=bus.registry,
        settings=bus.settings,
    )
    with pytest.raises(TopologyError):
        await bus.schedules.crons.declare("report", EVERY_SECOND)

    for step in await find_drift(bus.transport, needs):
        await apply(bus.transport, step)

    await bus.schedules.crons.declare("report", EVERY_SECOND)
    await until(lambda: _are(bus, 1))
    left = [one for one in await find_drift(bus.transport, needs) if one.kind != "bucket"]
    assert not [one for one in left if one.is_drift]


async def test_a_server_that_was_down_at_the_time_is_caught_up_with(
    nats_server: NatsServer,
) -> None:
    async with EventBus(nats_server.url, name="bot") as bus:
        await bus.schedules.crons.declare("report", EVERY_SECOND)
        await until(lambda: _are(bus, 1))
        nats_server.kill()
        nats_server.start()
        await until(lambda: bus.is_connected)
        await until(lambda: _are(bus, 3), 30)

        ids = [one["id"] for one in await occurrences(bus)]
        assert len(set(ids)) == len(ids)


# --- declaring ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "options", "error"),
    [
        ("0 8 * *", {}, "expected five fields: minute, hour"),
        ("0 0 8 * * *", {}, "expected five fields"),
        ("@daily", {}, "expected five fields"),
        ("60 8 * * *", {}, "Bad minute; expected minute, hour"),
        ("0 8 30 2 *", {}, "Bad day-of-month"),
        ("0 8 * * 7", {}, "write Sunday as 0 or sun"),
        ("0 8 * * 1/2", {}, "'1/2': write the range of the steps"),
        ("0 8 * * sun,mon/2", {}, "write the range of the steps"),
        ("0 8 l * *", {}, "'l': expected minute"),
        ("0 8 * * mon#1", {}, "'mon#1': expected minute"),
        ("0 8 */2 * mon", {}, "give days without steps"),
        (DAILY, {"tz": "Mars/Base"}, "tz='Mars/Base': expected a time zone such as"),
        (DAILY, {"tz": "Local"}, "tz='Local'"),
        (DAILY, {"catch_up": "all"}, "catch_up='all': expected 'one' or 'none'"),
        (DAILY, {"durable": "Report"}, "names the type of its events: .*lowercase"),
        (DAILY, {"durable": None}, "give durable="),
        (DAILY, {"concurrency": 0}, "concurrency=0"),
    ],
)
def test_a_cron_that_cannot_run_is_refused_where_it_is_declared(
    expression: str, options: dict[str, Any], error: str
) -> None:
    app = App("bot")

    with pytest.raises(ConfigError, match=error) as refused:
        app.cron(expression, **{"durable": "report", **options})(lambda event: None)

    assert "test_cron.py" in str(refused.value)


def test_a_cron_without_parentheses_is_refused() -> None:
    app = App("bot")

    with pytest.raises(ConfigError, match=r"@app\.cron: no times; write .*test_cron\.py"):

        @app.cron  # type: ignore[arg-type]
        async def report(event: Event[Any]) -> None: ...


def test_steps_on_days_of_the_week_have_their_range() -> None:
    for weekday in ("mon-sat/2", "*/2", "0-6/3", "mon,wed"):
        assert check_cron(f"0 8 * * {weekday}", "UTC", "one").expression.endswith(weekday)


def test_an_included_cron_has_the_prefix_of_its_durable() -> None:
    outer = App("outer")

    outer.include(daily_app(), prefix="eu-")

    [handler] = outer.handlers
    assert handler.name == "eu-report"
    assert handler.types == ("custom.cron.eu-report",)
    assert handler.filters == ("custom.cron.eu-report", "custom.cron.eu-report.>")


def test_a_server_that_is_too_old_is_named() -> None:
    with pytest.raises(TopologyError, match=r"@app\.cron needs nats-server 2\.14\.0 or newer"):
        check_version((2, 12, 3))
    check_version((2, 14, 0))


# --- times ----------------------------------------------------------------------------------


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * NANO


def test_an_occurrence_is_the_time_before_it_was_stored_however_late() -> None:
    message = cron_message("bot", "report", check_cron(DAILY, "Europe/Berlin", "one"), "custom.x")
    headers = {name: [value] for name, value in message.headers.items()}
    headers["Omni-Worker-Subject"] = ["custom.cron.report.internal.global"]
    subject = occurrence_subject("bot", "report")

    one, late = (
        occurred("bot", subject, headers, at("2026-12-01T08:00:00+01:00") + after)
        for after in (0, 3600 * NANO)
    )

    assert one == late
    assert one.subject == "custom.cron.report.internal.global"
    assert json.loads(one.body)["payload"]["due"] == "2026-12-01T08:00:00+01:00"


def test_what_is_no_occurrence_of_a_cron_is_refused() -> None:
    good = {
        "Omni-Worker-Cron": [DAILY],
        "Omni-Worker-Time-Zone": ["UTC"],
        "Omni-Worker-Subject": ["custom.cron.report"],
    }
    for bad in (
        {"Omni-Worker-Cron": ["never"]},
        {"Omni-Worker-Time-Zone": ["Mars/Base"]},
        {"Omni-Worker-Subject": ["custom.cron.reports"]},
        {"Omni-Worker-Subject": ["$JS.API.INFO"]},
        {"Omni-Worker-Occurrence": ["soon"]},
    ):
        with pytest.raises(InvalidEvent):
            occurred("bot", occurrence_subject("bot", "report"), {**good, **bad}, 1)


def test_times_follow_the_zone_over_a_change_of_clocks() -> None:
    before = at("2026-10-24T08:00:00+02:00")

    after = time_after(DAILY, "Europe/Berlin", before)

    assert after == at("2026-10-25T08:00:00+01:00")
    assert time_before(DAILY, "Europe/Berlin", after - 1) == before
    assert time_before(DAILY, "Europe/Berlin", after) == after


# --- in virtual time ------------------------------------------------------------------------


async def test_a_report_of_every_working_day_in_virtual_time() -> None:
    async with TestWorker(daily_app(expression="0 8 * * mon-fri")) as t:
        await t.advance(days=7)
        await t.settle()

        found = t.published("custom.cron.report")

        assert len(found) == 5
        due = [datetime.fromisoformat(one.payload["due"]) for one in found]
        assert {(one.hour, one.minute, one.utcoffset()) for one in due} == {
            (8, 0, timedelta(hours=-3))
        }
        assert all(one.weekday() < 5 for one in due)


async def test_a_worker_lists_the_times_of_its_cron_at_the_start(world: World) -> None:
    bus = await world.bus("bot")
    await bus.run_handler(daily_app().handlers[0])

    listed = handler_list(bus)

    assert f"    cron      {DAILY}, America/Sao_Paulo" in listed.splitlines()


@pytest.mark.parametrize(("catch_up", "runs"), [("one", 1), ("none", 0)])
async def test_of_the_times_while_nothing_ran_the_last_is_run_later_or_none(
    catch_up: str, runs: int
) -> None:
    app = daily_app(catch_up)
    async with TestWorker(App("other")) as other:
        async with TestWorker(app, server=other.server) as worker:
            before = worker.published("custom.cron.report")
        await other.advance(days=3, minutes=30)

        async with TestWorker(app, server=other.server) as worker:
            await worker.settle()

            assert before == []
            assert len(worker.published("custom.cron.report")) == runs
            assert len(worker.runs("report")) == runs

"""Scheduling: messages that a stream stores again, on another subject, when they are due."""

from __future__ import annotations

from typing import Any

import pytest

from omni_worker.errors import ApiError
from omni_worker.transports.base import Message, Transport
from omni_worker.transports.timestamps import timestamp

from .backend import SECOND, Recorder, make_stream

SOON = SECOND // 4


async def schedules_stream(transport: Transport, **config: Any) -> None:
    if transport.server_version < (2, 12, 0):
        pytest.skip("schedules need nats-server 2.12")
    await make_stream(transport, allow_msg_schedules=True, allow_msg_ttl=True, **config)


def schedule(transport: Transport, wait: int = SOON, **headers: str) -> Message:
    """A message to `s.plan`, which becomes one of `s.due`."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    at = {"Nats-Schedule": f"@at {timestamp(transport.clock() + wait)}"}
    return Message("s.plan", b"later", "", {**at, "Nats-Schedule-Target": "s.due", **given})


async def due(transport: Transport, count: int = 1) -> Recorder:
    """What comes on `s.due`, once there are so many."""
    config = {"name": "due", "durable_name": "due", "ack_policy": "explicit"}
    await transport.operators.create_consumer("S", {**config, "filter_subject": "s.due"})
    recorder = Recorder()
    source = await transport.consume("S", "due", recorder)
    source.request(10)
    await recorder.wait(count)
    return recorder


class Scheduling:
    """Promises of a stream with schedules."""

    async def test_a_schedule_becomes_a_message_of_its_target_when_it_is_due(
        self, transport: Transport
    ) -> None:
        await schedules_stream(transport)
        message = schedule(transport, traceparent="t", Nats_Schedule_TTL="60s", Nats_TTL="never")
        await transport.publish(message._replace(id="x"), timeout=5)

        [delivery] = (await due(transport)).deliveries

        produced = await transport.operators.message("S", delivery.sequence)
        assert produced is not None
        assert (produced.subject, produced.body) == ("s.due", b"later")
        assert produced.headers == {
            "traceparent": ["t"],
            "Nats-Scheduler": ["s.plan"],
            "Nats-Schedule-Next": ["purge"],
            "Nats-TTL": ["60s"],
        }
        at = message.headers["Nats-Schedule"].removeprefix("@at ")
        assert at <= timestamp(produced.stored_at)
        assert await transport.operators.last_message("S", "s.plan") is None

    async def test_a_time_that_is_over_is_due_at_once(self, transport: Transport) -> None:
        await schedules_stream(transport)
        await transport.publish(schedule(transport, -SECOND), timeout=5)

        recorder = await due(transport)

        assert [one.body for one in recorder.deliveries] == [b"later"]

    async def test_a_second_schedule_replaces_the_first_of_its_subject(
        self, transport: Transport
    ) -> None:
        await schedules_stream(transport)
        await transport.publish(schedule(transport, 600 * SECOND), timeout=5)
        second = schedule(transport)._replace(body=b"second")

        stored = await transport.publish(second, timeout=5)
        info = await transport.operators.stream_info("S")

        assert info is not None
        assert info.state.messages == 1
        assert stored.sequence == 2
        assert [one.body for one in (await due(transport)).deliveries] == [b"second"]

    async def test_a_rollup_over_a_schedule_cancels_it(self, transport: Transport) -> None:
        await schedules_stream(transport)
        first = await transport.publish(schedule(transport), timeout=5)
        expected = {"Nats-Expected-Last-Subject-Sequence": str(first.sequence)}
        cancel = {"Nats-Rollup": "sub", "Nats-TTL": "3600s", **expected}

        await transport.publish(Message("s.plan", b"", "", cancel), timeout=5)
        last = schedule(transport)
        await transport.publish(last._replace(subject="s.other", body=b"the only one"), timeout=5)

        assert [one.body for one in (await due(transport)).deliveries] == [b"the only one"]
        left = await transport.operators.last_message("S", "s.plan")
        assert left is not None
        assert left.sequence == first.sequence + 1
        info = await transport.operators.stream_info("S")
        assert info is not None
        assert info.state.messages == 2

    async def test_a_schedule_is_stored_only_over_the_message_it_expects(
        self, transport: Transport
    ) -> None:
        await schedules_stream(transport)
        expected = {"Nats_Expected_Last_Subject_Sequence": "0"}
        first = await transport.publish(schedule(transport, 600 * SECOND, **expected), timeout=5)

        with pytest.raises(ApiError) as refused:
            await transport.publish(schedule(transport, 600 * SECOND, **expected), timeout=5)
        expected["Nats_Expected_Last_Subject_Sequence"] = str(first.sequence)
        second = await transport.publish(schedule(transport, 600 * SECOND, **expected), timeout=5)

        assert refused.value.err_code == 10071
        assert second.sequence == first.sequence + 1

    async def test_a_schedule_outlives_the_age_of_its_stream_if_it_never_ends(
        self, transport: Transport
    ) -> None:
        await schedules_stream(transport, max_age=SECOND, duplicate_window=SECOND)
        kept = schedule(transport, 2 * SECOND, Nats_TTL="never")
        lost = schedule(transport, 2 * SECOND)._replace(subject="s.lost", body=b"lost")

        await transport.publish(lost, timeout=5)
        await transport.publish(kept, timeout=5)

        assert [one.body for one in (await due(transport)).deliveries] == [b"later"]

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ({"Nats-Schedule": "@at tomorrow"}, 10189),
            ({"Nats-Schedule": "tomorrow"}, 10189),
            ({"Nats-Schedule-Target": "t.due"}, 10190),
            ({"Nats-Schedule-Target": "s.plan"}, 10190),
            ({"Nats-Schedule-Target": "s.*"}, 10190),
            ({"Nats-TTL": "500ms"}, 10165),
        ],
    )
    async def test_a_schedule_that_cannot_be_kept_is_refused(
        self, transport: Transport, headers: dict[str, str], code: int
    ) -> None:
        await schedules_stream(transport)
        message = schedule(transport)
        wrong = message._replace(headers={**message.headers, **headers})

        with pytest.raises(ApiError) as refused:
            await transport.publish(wrong, timeout=5)

        assert refused.value.err_code == code

    async def test_a_stream_takes_schedules_only_if_it_is_configured_to(
        self, transport: Transport
    ) -> None:
        if transport.server_version < (2, 12, 0):
            pytest.skip("schedules need nats-server 2.12")
        made = await make_stream(transport)

        with pytest.raises(ApiError) as refused:
            await transport.publish(schedule(transport), timeout=5)
        raw = made.raw["config"]
        on = {**raw, "allow_msg_schedules": True, "allow_msg_ttl": True}
        updated = await transport.operators.update_stream(on)
        with pytest.raises(ApiError) as not_off:
            await transport.operators.update_stream({**raw, "allow_msg_ttl": True})

        assert refused.value.err_code == 10188
        assert updated.raw["config"]["allow_msg_schedules"]
        assert updated.raw["config"]["allow_rollup_hdrs"]
        assert (not_off.value.code, not_off.value.err_code) == (500, 10052)
        await transport.publish(schedule(transport), timeout=5)

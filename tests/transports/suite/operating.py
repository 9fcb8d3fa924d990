"""Operating: streams and consumers as the server shows them, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

import pytest

from omni_worker.errors import ApiError
from omni_worker.transports.base import Message, Transport

from ...waiting import until
from .backend import (
    SECOND,
    Backend,
    consume,
    consumer_config,
    info,
    make_consumer,
    make_stream,
    publish,
)

SKEW = 10**9  # nanoseconds by which two clocks may differ


class Operating:
    """Promises of Operators."""

    # --- streams ---------------------------------------------------------------------------

    async def test_a_stream_is_shown_with_configuration_and_state(
        self, transport: Transport
    ) -> None:
        made = await make_stream(transport, description="d", metadata={"k": "v"}, num_replicas=1)
        await publish(transport, 1, 2)

        shown = await transport.operators.stream_info("S")

        assert shown is not None
        assert made.created == shown.created
        expected = {
            "name": "S", "subjects": ["s.>"], "retention": "limits", "storage": "file",
            "discard": "old", "max_age": 0, "num_replicas": 1, "description": "d",
            "duplicate_window": 120 * SECOND, "max_msgs": -1, "max_bytes": -1,
        }  # fmt: skip
        assert expected == {key: shown.raw["config"][key] for key in expected}
        assert shown.raw["config"]["metadata"]["k"] == "v"
        state = {"messages": 2, "first_seq": 1, "last_seq": 2, "consumer_count": 0}
        assert state == {key: shown.raw["state"][key] for key in state}

    async def test_a_streams_facts_are_what_the_server_says(self, transport: Transport) -> None:
        before = time.time_ns()
        await make_stream(transport, max_age=3600 * SECOND)
        await make_consumer(transport)
        await publish(transport, 1, 2)

        shown = await transport.operators.stream_info("S")

        assert shown is not None
        config, state = shown.config, shown.state
        assert (shown.name, config.name, config.subjects) == ("S", "S", ("s.>",))
        assert (config.retention, config.discard, config.sources) == ("limits", "old", ())
        assert (config.max_age, config.duplicate_window) == (3600.0, 120.0)
        assert (config.max_bytes, config.max_msgs) == (-1, -1)
        assert (state.messages, state.first_sequence, state.last_sequence) == (2, 1, 2)
        assert (state.subjects, state.consumers, state.bytes > 0) == (1, 1, True)
        assert before - SKEW < shown.created <= shown.answered_at < time.time_ns() + SKEW

    async def test_every_stream_is_listed(self, transport: Transport) -> None:
        assert await transport.operators.streams() == []

        for name in ("B", "A"):
            await make_stream(transport, name)

        listed = await transport.operators.streams()
        assert sorted(stream.name for stream in listed) == ["A", "B"]

    async def test_the_next_message_that_matches_is_found_from_a_sequence_on(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        for subject in ("s.a", "s.b", "s.a.c"):
            await transport.publish(Message(subject, b"", ""), timeout=5)
        operators = transport.operators

        found = [
            await operators.next_message("S", sequence, filter)
            for sequence, filter in ((1, "s.a"), (2, "s.a"), (2, "s.>"), (1, "s.a.>"), (9, ">"))
        ]

        assert [one and one.sequence for one in found] == [1, None, 2, 3, None]
        assert await operators.next_message("NONE", 1, ">") is None

    async def test_the_account_says_what_is_used_and_allowed(self, transport: Transport) -> None:
        await make_stream(transport)

        account = await transport.operators.account()

        assert (account.streams, account.consumers) == (1, 0)
        assert account.max_streams == -1

    async def test_what_is_not_there_is_none(self, backend: Backend, transport: Transport) -> None:
        operators = transport.operators
        await make_stream(transport)

        assert await operators.stream_info("NO") is None
        assert await operators.consumer_info("S", "no") is None
        assert await operators.consumer_info("NO", "no") is None
        assert await operators.message("S", 1) is None
        assert await operators.message("NO", 1) is None
        assert await operators.consumers("S") == []
        if "replicas" not in backend.features:  # a cluster has no consumers of it either
            await refused(operators.consumers("NO"), 404, 10059)

    async def test_the_same_stream_again_changes_nothing(self, transport: Transport) -> None:
        first = await make_stream(transport, metadata={"k": "v"})
        await publish(transport, 1)

        again = await make_stream(transport, metadata={"k": "v"})

        assert first.raw["config"] == again.raw["config"]
        assert first.created == again.created

        async def holds_it() -> bool:  # of three servers, one may answer that counts it later
            stream = await transport.operators.stream_info("S")
            return stream is not None and stream.state.messages == 1

        await until(holds_it)

    async def test_a_stream_of_that_name_with_another_configuration_is_refused(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)

        await refused(make_stream(transport, max_age=60 * SECOND), 400, 10058)

    async def test_subjects_of_another_stream_are_refused(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_stream(transport, "T")

        await refused(make_stream(transport, "U", subjects=["s.*.a"]), 400, 10065)
        update = transport.operators.update_stream({"name": "T", "subjects": ["t.>", "s.b"]})
        await refused(update, 400, 10065)

    async def test_subjects_that_overlap_each_other_are_refused(self, transport: Transport) -> None:
        await refused(make_stream(transport, subjects=["s.>", "s.a"]), 500, 10052)

    async def test_an_update_replaces_the_whole_configuration(self, transport: Transport) -> None:
        await make_stream(transport, max_age=3600 * SECOND, description="d")

        updated = await transport.operators.update_stream({"name": "S", "subjects": ["s.>", "x"]})

        assert updated.raw["config"]["subjects"] == ["s.>", "x"]
        assert updated.raw["config"]["max_age"] == 0
        assert updated.raw["config"].get("description") is None
        [stored] = await publish(transport, 1, subject="x")
        assert stored.stream == "S"

    async def test_an_update_of_a_stream_that_is_not_there_is_refused(
        self, transport: Transport
    ) -> None:
        update = transport.operators.update_stream({"name": "NO", "subjects": ["no"]})

        await refused(update, 404, 10059)

    async def test_a_streams_storage_cannot_be_changed(self, transport: Transport) -> None:
        config = (await make_stream(transport)).raw["config"]

        update = transport.operators.update_stream({**config, "storage": "memory"})

        await refused(update, 500, 10052)

    async def test_replicas_need_a_cluster(self, backend: Backend, transport: Transport) -> None:
        if "replicas" in backend.features:
            made = await make_stream(transport, num_replicas=3)
            assert made.raw["config"]["num_replicas"] == 3
            return
        await refused(make_stream(transport, num_replicas=3), 500, 10074)

    # --- consumers -------------------------------------------------------------------------

    async def test_a_consumer_is_shown_with_configuration_and_state(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await publish(transport, 1, 2)
        made = await make_consumer(transport, filter_subject="s.>", metadata={"k": "v"})
        _, recorder = await consume(transport, 3)
        first, _ = await recorder.wait(2)
        first.nak()
        await recorder.wait(3)
        await publish(transport, 3)

        async def one_is_new() -> bool:
            return (await info(transport)).num_pending == 1

        await until(one_is_new)
        shown = await info(transport)

        assert made.created == shown.created
        config = {
            "name": "c", "durable_name": "c", "ack_policy": "explicit", "ack_wait": 30 * SECOND,
            "deliver_policy": "all", "filter_subject": "s.>", "max_deliver": -1,
            "max_ack_pending": 1000, "max_waiting": 512, "replay_policy": "instant",
        }  # fmt: skip
        assert config == {key: shown.raw["config"][key] for key in config}
        assert shown.raw["config"]["metadata"]["k"] == "v"
        state = {
            "stream_name": "S", "name": "c", "num_ack_pending": 2, "num_redelivered": 1,
            "num_waiting": 0, "num_pending": 1,
        }  # fmt: skip
        assert state == {key: shown.raw[key] for key in state}
        assert (shown.deliveries, shown.delivered) == (3, 2)
        assert (shown.raw["ack_floor"]["consumer_seq"], shown.ack_floor) == (0, 0)

    async def test_a_consumers_facts_are_what_the_server_says(self, transport: Transport) -> None:
        before = time.time_ns()
        await make_stream(transport)
        filters = ["s.b", "s.a"]
        await make_consumer(
            transport, filter_subjects=filters, metadata={"k": "v"}, inactive_threshold=9 * SECOND
        )

        shown = await info(transport)

        config = shown.config
        assert (shown.stream, shown.name, config.name) == ("S", "c", "c")
        assert (config.filters, config.metadata["k"]) == (("s.a", "s.b"), "v")
        assert (config.ack_policy, config.deliver_policy) == ("explicit", "all")
        assert (config.ack_wait, config.inactive_threshold) == (30.0, 9.0)
        assert (config.max_deliver, config.max_ack_pending, config.max_waiting) == (-1, 1000, 512)
        assert (shown.is_paused, shown.is_push_bound) == (False, False)
        assert before - SKEW < shown.created < time.time_ns() + SKEW

    async def test_waiting_requests_are_counted(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, _ = await consume(transport, 10)
        source.request(10)

        async def two_wait() -> bool:
            return (await info(transport)).num_waiting == 2

        await until(two_wait)
        await source.stop()
        assert (await info(transport)).num_waiting == 0

    async def test_every_consumer_is_listed(self, transport: Transport) -> None:
        await make_stream(transport)
        for name in ("b", "a"):
            await make_consumer(transport, name)

        listed = await transport.operators.consumers("S")

        assert sorted(consumer.name for consumer in listed) == ["a", "b"]

    async def test_the_same_consumer_again_changes_nothing(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, metadata={"k": "v"})
        await publish(transport, 1)
        _, recorder = await consume(transport, 1)
        await recorder.wait(1)

        async def is_as_before() -> bool:
            """Ask again: a cluster answers before it has counted its last delivery."""
            return (await make_consumer(transport, metadata={"k": "v"})).num_ack_pending == 1

        await until(is_as_before)

    async def test_create_never_updates(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)

        await refused(make_consumer(transport, ack_wait=1.0), 400, 10148)

        assert (await info(transport)).raw["config"]["ack_wait"] == 30 * SECOND

    async def test_update_never_creates(self, transport: Transport) -> None:
        await make_stream(transport)

        await refused(transport.operators.update_consumer("S", consumer_config()), 400, 10149)

        assert await transport.operators.consumer_info("S", "c") is None

    async def test_an_update_keeps_the_consumers_state(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2)
        _, recorder = await consume(transport, 1)
        await recorder.wait(1)

        updated = await transport.operators.update_consumer(
            "S", consumer_config(ack_wait=9.0, max_ack_pending=7, metadata={"k": "v"})
        )

        assert (
            updated.raw["config"]["ack_wait"], updated.raw["config"]["max_ack_pending"]
        ) == (9 * SECOND, 7)  # fmt: skip
        assert (updated.num_ack_pending, updated.num_pending) == (1, 1)

    @pytest.mark.parametrize(
        "change",
        [
            {"deliver_policy": "new"},
            {"deliver_policy": "by_start_sequence", "opt_start_seq": 2},
            {"ack_policy": "none"},
            {"replay_policy": "original"},
            {"max_waiting": 7},
        ],
        ids=lambda change: next(iter(change)),
    )
    async def test_what_is_fixed_at_creation_cannot_be_updated(
        self, transport: Transport, change: dict[str, Any]
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)

        update = transport.operators.update_consumer("S", {**consumer_config(), **change})

        await refused(update, 500, 10012)

    async def test_filters_are_checked(self, transport: Transport) -> None:
        await make_stream(transport)

        both = make_consumer(transport, filter_subject="s.a", filter_subjects=["s.b"])
        await refused(both, 400, 10136)
        overlapping = make_consumer(transport, filter_subjects=["s.>", "s.a"])
        await refused(overlapping, 400, 10138)

    async def test_a_start_that_says_not_where_is_refused(self, transport: Transport) -> None:
        await make_stream(transport)

        for policy in ("by_start_sequence", "by_start_time"):
            await refused(make_consumer(transport, deliver_policy=policy), 400, 10094)
        await refused(make_consumer(transport, opt_start_seq=3), 400, 10094)

    async def test_a_consumer_needs_its_stream(self, transport: Transport) -> None:
        await refused(make_consumer(transport), 404, 10059)

    async def test_a_consumer_may_be_deleted_twice(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)

        await transport.operators.delete_consumer("S", "c")
        await transport.operators.delete_consumer("S", "c")

        assert await transport.operators.consumer_info("S", "c") is None

    async def test_an_unused_consumer_goes_after_its_threshold(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, inactive_threshold=SECOND // 2)
        source, _ = await consume(transport, 1)

        await source.close()

        async def is_gone() -> bool:
            listed = await transport.operators.consumers("S")
            return listed == [] and await transport.operators.consumer_info("S", "c") is None

        await until(is_gone)

    async def test_a_waiting_request_keeps_a_consumer(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, inactive_threshold=SECOND // 2)
        await make_consumer(transport, "clock", inactive_threshold=SECOND)
        _, recorder = await consume(transport, 1)

        async def clock_is_gone() -> bool:
            # The list, because asking for one consumer is no use of it either.
            return [one.name for one in await transport.operators.consumers("S")] == ["c"]

        await until(clock_is_gone)
        await publish(transport, 1)
        await recorder.wait(1)


async def refused(request: Awaitable[object], code: int, err_code: int) -> None:
    """The request is answered with exactly this error."""
    with pytest.raises(ApiError) as caught:
        await request
    assert (code, err_code) == (caught.value.code, caught.value.err_code)

"""Topology: what is made, what is used as it stands, what is refused. On configurations as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from omni_worker.schedules.messages import due_consumer
from omni_worker.schedules.retries import again_consumer
from omni_worker.topology import (
    DAY,
    NANO,
    OWN_STREAM,
    SEVEN,
    STREAMS,
    Conflict,
    ConsumerSpec,
    CreateConsumer,
    Lacking,
    Missing,
    Notice,
    NoticeKind,
    RefuseConsumer,
    Standing,
    StreamSpec,
    UpdateConsumer,
    UseConsumer,
    announced_lease,
    app_readers,
    consumer_config,
    consumer_tag,
    copy_notice,
    edits_of,
    plan_consumer,
    plan_stream,
    queue_consumer_name,
    reader_named,
    retry_consumer,
    rfc3339,
    route,
    short_hash,
    shortened,
    stream_config,
    stream_differences,
    unserved,
    waiting_risks,
    with_sources,
    with_subjects,
)
from omni_worker.transports.infos import (
    ConsumerInfo,
    StreamConfig,
    filters_of,
    read_consumer_info,
    read_stream_config,
)

MESSAGE = STREAMS[0]
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def stream(name: str, *subjects: str, **more: Any) -> StreamConfig:
    """A standing stream's configuration."""
    return read_stream_config({"name": name, "subjects": list(subjects), **more})


def message_stream(**changed: Any) -> StreamConfig:
    """The MESSAGE stream as a server has it that differs in this."""
    return read_stream_config({**SEVEN[0].raw, **changed})


# --- streams -------------------------------------------------------------------------------

DESCRIPTIONS = {
    "MESSAGE": "All message lifecycle events (received, sent, delivered, read, failed)",
    "INSTANCE": "Instance lifecycle events (connected, disconnected, qr_code)",
    "IDENTITY": "Identity management events (created, linked, merged, unlinked)",
    "MEDIA": "Media processing events (received, processed)",
    "ACCESS": "Access control events (allowed, denied)",
    "CUSTOM": "User-defined custom events (webhooks, triggers, etc.)",
    "SYSTEM": "Internal system events (dead_letter, replay, health, sync, batch-job, presence)",
}
DAYS = {
    "MESSAGE": 30, "INSTANCE": 7, "IDENTITY": 90, "MEDIA": 7, "ACCESS": 30, "CUSTOM": 7,
    "SYSTEM": 7,
}  # fmt: skip


def test_the_seven_are_those_of_the_format() -> None:
    assert {spec.name: spec.subjects for spec in STREAMS} == {
        name: (f"{name.lower()}.>",) for name in DAYS
    }
    assert {spec.name: spec.max_age / DAY for spec in STREAMS} == DAYS
    assert {spec.name: spec.description for spec in STREAMS} == DESCRIPTIONS


def test_a_stream_is_made_with_files_limits_and_a_window_of_two_minutes() -> None:
    config = stream_config(MESSAGE, replicas=3)

    assert config["name"] == "MESSAGE"
    assert config["subjects"] == ["message.>"]
    assert config["storage"] == "file"
    assert config["retention"] == "limits"
    assert config["max_age"] == 2_592_000_000_000_000
    assert config["duplicate_window"] == 120_000_000_000
    assert config["num_replicas"] == 3


def test_a_window_is_never_longer_than_the_events_live() -> None:
    short = StreamSpec(name="S", subjects=("s.>",), max_age=10)

    assert stream_config(short, replicas=1)["duplicate_window"] == 10 * NANO


def test_ours_besides_events_lives_thirty_days_in_a_stream_of_its_own() -> None:
    assert (OWN_STREAM.name, OWN_STREAM.subjects) == ("OMNI_WORKER", ("omni-worker.>",))
    assert OWN_STREAM.max_age == 30 * DAY


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        ([], Missing(MESSAGE)),
        ([stream("OTHER", "other.>")], Missing(MESSAGE)),
        ([SEVEN[0]], Standing(MESSAGE, "MESSAGE")),
        ([stream("EVENTS", "message.>")],
         Standing(MESSAGE, "EVENTS", ("subjects held by EVENTS",))),
        ([stream("ALL", ">")], Standing(MESSAGE, "ALL", ("subjects held by ALL",))),
        ([stream("MESSAGE", "message.received.>")], Lacking(MESSAGE, ("message.>",))),
        ([stream("MESSAGE")], Lacking(MESSAGE, ("message.>",))),
        ([stream("PART", "message.sent.>")], Conflict(MESSAGE, "PART", "message.sent.>")),
        ([stream("PART", "*.sent")], Conflict(MESSAGE, "PART", "message.sent")),
        ([stream("KV_x", "$KV.x.>")], Missing(MESSAGE)),
    ],
)  # fmt: skip
def test_what_to_do_about_a_stream_follows_from_what_stands(
    standing: list[StreamConfig], expected: object
) -> None:
    assert expected == plan_stream(MESSAGE, standing)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ()),
        ({"subjects": ["message.>", "chat.>"]}, ("also holds chat.>",)),
        ({"max_age": 365 * DAY * NANO}, ("keeps 365 d where we keep 30 d",)),
        ({"max_age": 0}, ("keeps for ever where we keep 30 d",)),
        ({"max_age": 90 * NANO}, ("keeps 90 s where we keep 30 d",)),
        ({"retention": "workqueue"}, ("retention workqueue where we have limits",)),
        ({"storage": "memory"}, ("storage memory where we have file",)),
        ({"discard": "new"}, ("discard new where we have old",)),
        ({"num_replicas": 3}, ("num_replicas 3 where we have 1",)),
        ({"max_msgs": 5}, ("max_msgs 5 where we have no limit",)),
        ({"max_bytes": 5}, ("max_bytes 5 where we have no limit",)),
        ({"duplicate_window": 10 * NANO}, ("duplicate window 10 s where we have 120 s",)),
        ({"duplicate_window": 600 * NANO}, ()),
        ({"description": "another"}, ()),
        ({"no_ack": True}, ("no_ack, so nothing published there is ever confirmed",)),
        ({"metadata": {"_nats.ver": "2.15.1"}}, ()),
    ],
)
def test_how_a_standing_stream_differs_is_said_in_words(
    changed: dict[str, Any], said: tuple[str, ...]
) -> None:
    assert said == stream_differences(MESSAGE, message_stream(**changed))
    assert isinstance(plan_stream(MESSAGE, [message_stream(**changed)]), Standing)


def test_replicas_are_compared_with_ours() -> None:
    [step] = [plan_stream(MESSAGE, [message_stream(num_replicas=3)], replicas=3)]

    assert step == Standing(MESSAGE, "MESSAGE")


def test_an_update_is_the_servers_own_configuration_and_the_subject() -> None:
    standing = stream("MESSAGE", "message.sent", "chat.>", future_field={"x": 1}, max_age=5)

    assert with_subjects(standing, ["message.>"]) == {
        **standing.raw, "subjects": ["chat.>", "message.>"],
    }  # fmt: skip


BUCKET = stream("KV_notes", "$KV.notes.>")
OBJECTS = stream("OBJ_x", "$O.x.C.>", "$O.x.M.>")
COPY = stream("ORDERS", sources=[{"name": "CUSTOM", "filter_subject": "custom.order"}])
MIRROR = stream("MIRROR", mirror={"name": "MESSAGE"})
OURS = stream("OMNI_WORKER", "omni-worker.>")
ADVISORIES = stream("ADVISORIES", "$JS.EVENT.ADVISORY.>")
REACTION = stream("REACTION", "reaction.>")
EVERYTHING = [*SEVEN, REACTION, BUCKET, OBJECTS, COPY, MIRROR, OURS, ADVISORIES]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["message.received", "message.received.>"],
         {"MESSAGE": ("message.received", "message.received.>")}),
        ([">"], {**{spec.name: spec.subjects for spec in STREAMS}, "REACTION": ("reaction.>",)}),
        (["*.received.>"], {
            **{spec.name: (f"{spec.name.lower()}.received.>",) for spec in STREAMS},
            "REACTION": ("reaction.received.>",),
        }),
        (["*.*.whatsapp.>", "message.>"], {
            **{spec.name: (f"{spec.name.lower()}.*.whatsapp.>",) for spec in STREAMS},
            "MESSAGE": ("message.>",),
            "REACTION": ("reaction.*.whatsapp.>",),
        }),
        (["reaction.received"], {"REACTION": ("reaction.received",)}),
        (["foo.bar"], {}),
        (["omni-worker.>"], {}),
    ],
)  # fmt: skip
def test_a_handler_reads_the_streams_that_hold_its_events_and_no_other(
    filters: list[str], expected: dict[str, tuple[str, ...]]
) -> None:
    assert expected == route(filters, EVERYTHING)


def test_a_stream_that_copies_and_takes_events_of_its_own_is_read_for_those() -> None:
    both = stream("BOTH", "order.>", sources=[{"name": "ELSEWHERE"}])

    assert route(["order.created"], [both]) == {"BOTH": ("order.created",)}


@pytest.mark.parametrize(
    ("filters", "standing", "expected"),
    [
        (["message.received", "message.received.>"], SEVEN, ()),
        (["foo.bar", "foo.bar.>"], SEVEN, ("foo.bar", "foo.bar.>")),
        (["message.sent", "message.sent.>"], [stream("M", "message.sent.>")], ("message.sent",)),
        (["message.sent.>"], [stream("M", "message.sent.x.>")], ("message.sent.>",)),
        (["message.sent.>"],
         [stream("M", "message.sent.x.>"), stream("N", "message.sent.y.>")], ()),
        (["*.sent.>"], [stream("M", "message.sent.x.>")], ()),
    ],
)  # fmt: skip
def test_a_filter_no_stream_stores_whole_is_named(
    filters: list[str], standing: Sequence[StreamConfig], expected: tuple[str, ...]
) -> None:
    assert expected == unserved(filters, standing)


ORDERS = StreamSpec(
    name="ORDERS",
    max_age=7 * DAY,
    source="CUSTOM",
    source_filters=("custom.order", "custom.order.>"),
    source_start=START,
)


def test_a_copy_has_two_sources_and_no_subjects() -> None:
    config = stream_config(ORDERS, replicas=1)

    assert "subjects" not in config
    assert config["sources"] == [
        {"name": "CUSTOM", "filter_subject": one, "opt_start_time": "2026-01-02T03:04:05Z"}
        for one in ("custom.order", "custom.order.>")
    ]


def test_further_sources_are_added_to_a_copy_and_the_same_change_nothing() -> None:
    standing = read_stream_config({**stream_config(ORDERS, replicas=1), "future": 1})
    more = StreamSpec(name="ORDERS", max_age=1, source="CUSTOM", source_filters=("custom.b",))

    assert with_sources(standing, ORDERS) is None
    assert with_sources(standing, more) == {
        **standing.raw,
        "sources": [*standing.raw["sources"], {"name": "CUSTOM", "filter_subject": "custom.b"}],
    }


def test_a_handler_that_asks_for_more_than_a_copy_holds_is_told_from_when_it_is() -> None:
    standing = read_stream_config(stream_config(ORDERS, replicas=1))
    whole = StreamSpec(
        name="ORDERS", max_age=1, source="CUSTOM", source_filters=ORDERS.source_filters
    )

    assert copy_notice(ORDERS, standing) is None
    assert copy_notice(whole, read_stream_config(stream_config(whole, replicas=1))) is None
    assert copy_notice(whole, standing) == (
        "stream ORDERS copies custom.order, custom.order.> only from 2026-01-02T03:04:05Z on;"
        " earlier events are in CUSTOM"
    )


# --- consumers -----------------------------------------------------------------------------


def spec(**changed: Any) -> ConsumerSpec:
    """The consumer of a handler."""
    usual: dict[str, Any] = {
        "stream": "MESSAGE", "name": "r1", "app": "router", "ack_wait": 30.0,
        "filters": ("message.received", "message.received.>"),
    }  # fmt: skip
    return ConsumerSpec(**(usual | changed))


def info(config: dict[str, Any], **state: Any) -> ConsumerInfo:
    """The server's word on a consumer; it adds keys of its own."""
    metadata = {"_nats.ver": "2.15.1", "_nats.level": "0", **config.get("metadata", {})}
    shown = {**config, "max_waiting": 512, "metadata": metadata}
    return read_consumer_info({"config": shown, **state})


def standing(**changed: Any) -> ConsumerInfo:
    """A consumer that another process made with these options."""
    state = {key: changed.pop(key) for key in ("num_waiting", "num_ack_pending") if key in changed}
    return info(consumer_config(spec(**changed)), **state)


def test_a_consumer_is_made_without_what_would_lose_events() -> None:
    config = consumer_config(spec())

    assert config == {
        "name": "r1", "durable_name": "r1", "ack_policy": "explicit",
        "ack_wait": 30_000_000_000, "max_deliver": -1, "max_ack_pending": 1_000_000,
        "replay_policy": "instant", "num_replicas": 0, "deliver_policy": "new",
        "filter_subjects": ["message.received", "message.received.>"],
        "metadata": {"omni-worker.app": "router", "omni-worker.queue": "",
                     "omni-worker.ack_wait": "30000000000",
                     "omni-worker.start_from": "new"},
    }  # fmt: skip


def test_one_filter_goes_into_the_field_for_one_and_several_are_sorted() -> None:
    one = consumer_config(spec(filters=("message.>",)))
    two = consumer_config(spec(filters=("message.sent", "message.read")))

    assert (one["filter_subject"], "filter_subjects" in one) == ("message.>", False)
    assert two["filter_subjects"] == ["message.read", "message.sent"]
    assert filters_of(one) == ("message.>",)
    assert filters_of({}) == ()


@pytest.mark.parametrize(
    ("start_from", "expected"),
    [
        ("new", {"deliver_policy": "new"}),
        ("first", {"deliver_policy": "all"}),
        ("last", {"deliver_policy": "last"}),
        (START.astimezone(timezone(timedelta(hours=9))),
         {"deliver_policy": "by_start_time", "opt_start_time": "2026-01-02T03:04:05Z"}),
    ],
)  # fmt: skip
def test_where_a_consumer_starts(start_from: Any, expected: dict[str, Any]) -> None:
    config = consumer_config(spec(start_from=start_from))

    assert expected == {key: config[key] for key in expected}
    assert ("opt_start_time" in config) == ("opt_start_time" in expected)


def test_a_consumer_made_again_starts_at_a_sequence_and_keeps_its_tag() -> None:
    config = consumer_config(spec(start_from="first", start_sequence=42))

    assert (config["deliver_policy"], config["opt_start_seq"]) == ("by_start_sequence", 42)
    assert config["metadata"] == consumer_tag(spec(start_from="first"))


def test_without_a_durable_the_server_removes_it_when_it_is_unused() -> None:
    assert consumer_config(spec(durable=False, inactive=60))["inactive_threshold"] == 60 * NANO
    assert "inactive_threshold" not in consumer_config(spec())


def test_a_missing_consumer_is_created() -> None:
    assert plan_consumer(spec(), None) == CreateConsumer("MESSAGE", consumer_config(spec()))


def test_one_that_stands_as_it_should_is_used_without_a_word() -> None:
    assert plan_consumer(spec(), standing()) == UseConsumer()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"start_from": "new"}, {"start_from": "first"}),
        ({"start_from": START}, {"start_from": "last"}),
    ],
)
def test_a_changed_start_is_one_notice_that_names_the_way_and_nothing_else(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    step = plan_consumer(spec(**ours), standing(**theirs))

    assert isinstance(step, UseConsumer)
    [notice] = step.notices
    assert f"start_from='{theirs['start_from']}'" in notice.says
    assert "plan --recreate r1" in notice.says
    assert notice.kind is NoticeKind.STARTED_ELSEWHERE


def test_the_last_started_versions_options_win_with_one_line_of_old_and_new() -> None:
    before = standing(ack_wait=60.0)

    step = plan_consumer(spec(ack_wait=30.0), before)

    assert isinstance(step, UpdateConsumer)
    metadata = {**before.config.metadata, "omni-worker.ack_wait": str(30 * NANO)}
    assert step.config == {**before.config.raw, "ack_wait": 30 * NANO, "metadata": metadata}
    assert step.notices == (Notice(NoticeKind.UPDATED, "updated: ack_wait from 60 s to 30 s"),)


@pytest.mark.parametrize("state", [{}, {"num_waiting": 3}, {"num_ack_pending": 3}])
def test_a_filter_is_widened_at_once(state: dict[str, int]) -> None:
    step = plan_consumer(
        spec(filters=("message.>",)), standing(filters=("message.received.>",), **state)
    )

    assert isinstance(step, UpdateConsumer)
    assert filters_of(step.config) == ("message.>",)
    assert "filter_subjects" not in step.config


def test_a_filter_is_narrowed_when_nobody_reads() -> None:
    step = plan_consumer(spec(filters=("message.received.>",)), standing(filters=("message.>",)))

    assert isinstance(step, UpdateConsumer)
    assert filters_of(step.config) == ("message.received.>",)


# A reader at full credit has no pull waiting, but it holds events.
@pytest.mark.parametrize("state", [{"num_waiting": 1}, {"num_ack_pending": 1}])
def test_a_filter_is_not_narrowed_under_another_process(state: dict[str, int]) -> None:
    step = plan_consumer(
        spec(filters=("message.received.>",)), standing(filters=("message.>",), **state)
    )

    assert isinstance(step, UseConsumer)
    [notice] = step.notices
    assert "keeps the wider filters message.> while other processes" in notice.says
    assert notice.kind is NoticeKind.FILTERS_KEPT


def test_while_others_read_a_new_filter_is_added_and_the_old_one_stays() -> None:
    step = plan_consumer(
        spec(filters=("message.sent",), ack_wait=60.0),
        standing(filters=("message.received",), num_waiting=1),
    )

    assert isinstance(step, UpdateConsumer)
    assert filters_of(step.config) == ("message.received", "message.sent")
    assert step.config["ack_wait"] == 60 * NANO


@pytest.mark.parametrize("state", [{"num_waiting": 1}, {"num_ack_pending": 1}])
def test_a_shorter_ack_wait_is_announced_first_and_put_in_force_later(
    state: dict[str, int],
) -> None:
    before = standing(ack_wait=60.0, **state)

    step = plan_consumer(spec(ack_wait=30.0), before)

    assert isinstance(step, UpdateConsumer)
    announced = info(step.config, **state)
    assert (announced.config.ack_wait, announced_lease(announced.config)) == (60.0, 30.0)
    assert shortened(before.config) is None
    assert "keeps ack_wait 60 s for half a minute" in step.notices[0].says
    assert isinstance(plan_consumer(spec(ack_wait=30.0), announced), UseConsumer)
    in_force = info(shortened(announced.config) or {})
    assert (in_force.config.ack_wait, announced_lease(in_force.config)) == (30.0, 30.0)
    assert plan_consumer(spec(ack_wait=30.0), in_force) == UseConsumer()


def test_a_shorter_ack_wait_is_in_force_at_once_where_two_may_have_a_delivery() -> None:
    before = standing(ack_wait=30.0, num_waiting=1)

    step = plan_consumer(spec(ack_wait=0.5, may_repeat=True), before)

    assert isinstance(step, UpdateConsumer)
    in_force = info(step.config, num_waiting=1)
    assert (in_force.config.ack_wait, announced_lease(in_force.config)) == (0.5, 0.5)
    assert plan_consumer(spec(ack_wait=0.5, may_repeat=True), in_force) == UseConsumer()


def test_who_starts_with_the_longer_ack_wait_again_takes_the_announcement_back() -> None:
    step = plan_consumer(spec(ack_wait=30.0), standing(ack_wait=60.0, num_waiting=1))
    assert isinstance(step, UpdateConsumer)
    announced = info(step.config, num_waiting=1)

    back = plan_consumer(spec(ack_wait=60.0), announced)

    assert isinstance(back, UpdateConsumer)
    assert back.config == standing(ack_wait=60.0).config.raw


def test_another_apps_durable_is_refused_by_name() -> None:
    step = plan_consumer(spec(), standing(app="biller"))

    assert isinstance(step, RefuseConsumer)
    assert "'r1'" in step.reason
    assert "'biller'" in step.reason
    assert "choose another durable name" in step.reason


def test_an_untagged_durable_is_used_where_it_is_the_same_and_refused_where_it_differs() -> None:
    config = {**consumer_config(spec()), "metadata": {}}

    assert plan_consumer(spec(), info(config)) == UseConsumer()
    refused = plan_consumer(spec(), info({**config, "max_deliver": 6}))
    assert isinstance(refused, RefuseConsumer)
    assert "another program (max_deliver 6, wanted -1)" in refused.reason


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"ack_policy": "none"}, "ack_policy none, wanted explicit"),
        ({"deliver_subject": "push.here"}, "deliver_subject push.here"),
    ],
)
def test_what_can_never_be_ours_is_refused_even_with_our_tag(
    changed: dict[str, Any], word: str
) -> None:
    step = plan_consumer(spec(), info({**consumer_config(spec()), **changed}))

    assert isinstance(step, RefuseConsumer)
    assert word in step.reason


@pytest.mark.parametrize(
    "changed",
    [
        {"headers_only": True},  # every event would come without its body
        {"priority_groups": ["a"], "priority_policy": "overflow"},  # our pulls would be refused
        {"max_deliver": 3},
        {"max_ack_pending": 1000},
        {"inactive_threshold": 5 * NANO},
    ],
)
def test_what_an_operator_changed_and_would_lose_events_is_put_back(
    changed: dict[str, Any],
) -> None:
    step = plan_consumer(spec(), info({**consumer_config(spec()), **changed}))

    assert isinstance(step, UpdateConsumer)
    assert step.config == info(consumer_config(spec())).config.raw


def test_a_max_deliver_that_may_have_stranded_events_is_left_to_a_process_that_recreates() -> None:
    limited = replace(info({**consumer_config(spec()), "max_deliver": 1}), delivered=9)

    kept = plan_consumer(spec(), replace(limited, ack_floor=8))

    assert isinstance(kept, UseConsumer)
    assert [one.kind for one in kept.notices] == [NoticeKind.MAX_DELIVER_KEPT]
    for step in (
        plan_consumer(spec(), replace(limited, ack_floor=9)),  # all of it was answered
        plan_consumer(spec(), replace(limited, ack_floor=8), narrow=True),  # an operator's plan
    ):
        assert isinstance(step, UpdateConsumer)
        assert step.config["max_deliver"] == -1


def test_fields_we_never_set_stay_as_they_are() -> None:
    config = {**consumer_config(spec()), "sample_freq": "10", "future_field": [1]}

    assert plan_consumer(spec(), info(config)) == UseConsumer()
    updated = plan_consumer(spec(ack_wait=5), info(config))
    assert isinstance(updated, UpdateConsumer)
    assert (updated.config["sample_freq"], updated.config["future_field"]) == ("10", [1])


# --- names ---------------------------------------------------------------------------------


def test_names_and_hashes_are_the_same_in_every_process_and_order() -> None:
    assert short_hash(["b", "a"]) == short_hash(["a", "b"]) == "7e18f737"
    assert queue_consumer_name("router", "q", ["a"]) == f"router-q-{short_hash(['a'])}"


def test_a_time_is_written_as_jetstream_reads_it() -> None:
    assert rfc3339(START) == "2026-01-02T03:04:05Z"
    assert rfc3339(START.replace(microsecond=5)) == "2026-01-02T03:04:05.000005Z"


PINNED = spec(one_active=True)
GROUP = {
    "priority_groups": ["active"],
    "priority_policy": "pinned_client",
    "priority_timeout": 5 * NANO,
}


def test_a_consumer_that_serves_one_process_is_created_so_and_is_no_edit() -> None:
    config = consumer_config(PINNED)

    assert {**consumer_config(spec()), **GROUP} == config
    assert plan_consumer(PINNED, info(config)) == UseConsumer()
    assert edits_of(info(config).config) == {}


@pytest.mark.parametrize(("wanted", "there"), [(PINNED, {}), (spec(), GROUP)])
def test_a_worker_that_starts_leaves_it_to_later_who_is_served(
    wanted: ConsumerSpec, there: dict[str, Any]
) -> None:
    standing = info({**consumer_config(spec()), **there})

    assert plan_consumer(wanted, standing) == UseConsumer()


@pytest.mark.parametrize(("wanted", "there"), [(PINNED, {}), (spec(), GROUP)])
def test_an_operator_changes_who_is_served_while_nothing_reads(
    wanted: ConsumerSpec, there: dict[str, Any]
) -> None:
    standing = {**consumer_config(spec()), **there}

    step = plan_consumer(wanted, info(standing), narrow=True)
    kept = plan_consumer(wanted, info(standing, num_waiting=1), narrow=True)

    assert isinstance(step, UpdateConsumer)
    assert step.config == info(consumer_config(wanted)).config.raw
    assert [one.kind for one in kept.notices] == [NoticeKind.GROUP_KEPT]  # type: ignore[union-attr]
    assert isinstance(kept, UseConsumer)


def test_a_consumer_of_another_program_is_read_without_turns() -> None:
    config = {**consumer_config(spec()), "metadata": {}}

    assert plan_consumer(PINNED, info(config)) == UseConsumer()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"retention": "interest"}, ["retention interest keeps no schedule until it is due"]),
        ({"max_age": 60 * 10**9}, ["max_age 60 s drops a block that was not published by then"]),
        ({"max_msgs_per_subject": 1}, ["max_msgs_per_subject 1 drops the first events"]),
        ({"max_msgs": 9}, ["max_msgs 9: when full, it drops the oldest"]),
        ({"max_bytes": 9, "discard": "new"}, []),
        ({}, []),
    ],
)
def test_what_our_own_stream_may_lose_of_events_that_wait_there(
    changes: dict[str, Any], said: list[str]
) -> None:
    config = {**stream_config(OWN_STREAM, replicas=1), **changes}

    risks = [one.says for one in waiting_risks(read_stream_config(config))]

    assert len(risks) == len(said)
    assert all(map(str.startswith, risks, said))


def test_the_consumers_an_app_reads_for_itself_are_known_by_their_place() -> None:
    made = [retry_consumer("shop"), due_consumer("shop"), again_consumer("shop")]

    known = [reader_named(one.stream, one.app, one.name) for one in made]

    assert [one.name for one in known if one] == [one.name for one in made]
    assert {one.name for one in app_readers("shop")} == {one.name for one in made}
    assert reader_named("CUSTOM", "shop", "shop-due") is None
    assert reader_named(OWN_STREAM.name, "shop", "other-due") is None
    assert reader_named(OWN_STREAM.name, None, "shop-due") is None

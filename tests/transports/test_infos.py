"""Infos: the server's JSON as facts, and what is read where a key is missing."""

from __future__ import annotations

from typing import Any

import pytest

from omni_worker.transports.infos import (
    StreamSource,
    filters_of,
    read_account,
    read_consumer_info,
    read_permissions,
    read_stream_config,
    read_stream_info,
)


def test_a_stream_of_which_the_server_says_nothing_more_has_its_defaults() -> None:
    info = read_stream_info({"config": {"name": "S"}})

    assert (info.name, info.created, info.answered_at) == ("S", 0, 0)
    assert (info.config.subjects, info.config.sources) == ((), ())
    assert (info.config.retention, info.config.discard) == ("limits", "old")
    assert (info.config.max_age, info.config.duplicate_window) == (0.0, 0.0)
    assert (info.config.max_msgs, info.config.max_bytes) == (-1, -1)
    assert (info.state.messages, info.state.last_sequence, info.state.subjects) == (0, 0, 0)


def test_a_consumer_of_which_the_server_says_nothing_more_has_its_defaults() -> None:
    info = read_consumer_info({"stream_name": "S", "name": "c"})

    assert (info.stream, info.name, info.created) == ("S", "c", 0)
    assert (info.delivered, info.deliveries, info.ack_floor) == (0, 0, 0)
    assert (info.num_pending, info.num_ack_pending) == (0, 0)
    assert (info.num_redelivered, info.num_waiting) == (0, 0)
    assert (info.is_paused, info.is_push_bound, info.replicas) == (False, False, 0)
    assert (info.config.filters, info.config.metadata) == ((), {})
    assert (info.config.max_deliver, info.config.max_ack_pending) == (-1, -1)


def test_null_is_read_like_a_key_that_is_missing() -> None:
    stream = read_stream_info({"config": {"name": "S", "subjects": None}, "state": None})
    consumer = read_consumer_info({"name": "c", "config": None, "cluster": None, "ack_floor": None})

    assert (stream.config.subjects, stream.state.messages) == ((), 0)
    assert (consumer.config.filters, consumer.replicas, consumer.ack_floor) == ((), 0, 0)


def test_durations_are_seconds_and_points_of_time_are_epoch_nanoseconds() -> None:
    config = {"ack_wait": 1_500_000_000, "inactive_threshold": 60_000_000_000}

    info = read_consumer_info({"created": "1970-01-01T00:00:01.000000002Z", "config": config})

    assert (info.config.ack_wait, info.config.inactive_threshold) == (1.5, 60.0)
    assert info.created == 1_000_000_002


def test_replicas_are_the_servers_beside_the_leader() -> None:
    info = read_consumer_info({"cluster": {"leader": "a", "replicas": [{"name": "b"}, {}]}})

    assert info.replicas == 2


def test_a_copy_names_its_sources() -> None:
    config = read_stream_config(
        {
            "name": "COPY",
            "sources": [
                {"name": "A"},
                {"name": "B", "filter_subject": "b.>", "opt_start_time": "2026-01-02T03:04:05Z"},
            ],
        }
    )

    assert config.sources == (
        StreamSource(name="A", filter="", start_time=""),
        StreamSource(name="B", filter="b.>", start_time="2026-01-02T03:04:05Z"),
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ()),
        ({"filter_subject": ""}, ()),
        ({"filter_subject": "a.>"}, ("a.>",)),
        ({"filter_subjects": ["b", "a"]}, ("a", "b")),
        ({"filter_subjects": None, "filter_subject": "a"}, ("a",)),
    ],
)
def test_filters_are_read_from_either_field(
    config: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert filters_of(config) == expected


def test_what_no_field_names_stays_in_raw() -> None:
    raw = {"config": {"name": "S", "future": [1]}, "later": {"x": 1}}

    info = read_stream_info(raw)

    assert (info.raw, info.config.raw["future"]) == (raw, [1])
    assert "future" not in repr(info)


def test_an_account_without_limits_has_none() -> None:
    account = read_account({"streams": 2, "storage": 5})

    assert (account.streams, account.consumers, account.storage) == (2, 0, 5)
    assert (account.max_streams, account.max_storage) == (-1, -1)


def test_a_login_without_a_list_may_publish_everything() -> None:
    permissions = read_permissions({})

    assert (permissions.publish_allow, permissions.publish_deny) == ((), ())

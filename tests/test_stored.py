"""Streams that are copies or change subjects: what they store, and where a handler reads it."""

from __future__ import annotations

from typing import Any

import pytest

from omni_worker.topology import route, unknown_copies, unserved
from omni_worker.topology.stored import stored
from omni_worker.transports.infos import StreamConfig, SubjectTransform, read_stream_config


def stream(name: str, *subjects: str, **more: Any) -> StreamConfig:
    return read_stream_config({"name": name, "subjects": list(subjects), **more})


MESSAGE = stream("MESSAGE", "message.>")
EU = stream("EU", "eu.message.>")
BOTH = stream("BOTH", "custom.>", sources=[{"name": "MESSAGE"}])
MOVED = stream("M", "message.>", subject_transform={"src": ">", "dest": "eu.>"})
ARCHIVE = stream("ARCHIVE", mirror={"name": "MESSAGE"})
FROM_EU = stream(
    "MESSAGE",
    sources=[{"name": "EU", "subject_transforms": [{"src": "eu.>", "dest": ">"}]}],
)
FROM_AFAR = stream("MESSAGE", mirror={"name": "MESSAGE", "external": {"api": "$JS.hub.API"}})


@pytest.mark.parametrize(
    ("source", "destination", "subject", "expected"),
    [
        ("eu.>", ">", "eu.message.>", "message.>"),
        ("eu.*.>", "us.{{wildcard(1)}}.>", "eu.message.sent.wa.i", "us.message.sent.wa.i"),
        ("message.*", "message.{{wildcard(1)}}.-.-", "message.*", "message.*.-.-"),
        ("a.*.*", "b.$2.$1", "a.one.two", "b.two.one"),
        ("a.*", "b.{{partition(3,1)}}.x", "a.one", "b.>"),
        ("a.*", "", "a.one", "a.one"),
        ("a.*", "b", "a.*", "b"),
    ],
)
def test_a_transform_changes_patterns_as_the_server_changes_subjects(
    source: str, destination: str, subject: str, expected: str
) -> None:
    assert SubjectTransform(source, destination).apply(subject) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MESSAGE, {"message.>"}),
        (
            stream("S", "a.>", subject_transform={"src": "a.*", "dest": "a.{{wildcard(1)}}.-"}),
            {"a.>", "a.*.-"},
        ),
        (stream("S", "a.x", subject_transform={"src": "a.*", "dest": "b.x"}), {"b.x"}),
        (ARCHIVE, {"message.>"}),
        (stream("S", mirror={"name": "ARCHIVE", "filter_subject": "message.sent.>"}),
         {"message.sent.>"}),
        (stream("S", sources=[{"name": "EU", "filter_subject": "us.>"}]), set()),
        (stream("S", "custom.>", sources=[{"name": "EU"}]), {"custom.>", "eu.message.>"}),
        (stream("S", mirror={"name": "S"}), {">"}),
        (stream("S", mirror={"name": "KV_x"}), {">"}),
    ],
)  # fmt: skip
def test_a_stream_stores_what_its_origins_do(config: StreamConfig, expected: set[str]) -> None:
    standing = [MESSAGE, ARCHIVE, EU, config, stream("KV_x", "$KV.x.>")]

    assert {part.subject for part in stored(config, standing)} == expected


@pytest.mark.parametrize(
    ("filters", "standing", "expected"),
    [
        # An aggregate and a mirror are read by what they store,
        (["message.received.>"], [EU, FROM_EU], {"MESSAGE": ("message.received.>",)}),
        (["message.*.>"], [FROM_EU, EU], {"MESSAGE": ("message.*.>",)}),
        # but never what is read in its origin already,
        (["message.received.>"], [MESSAGE, ARCHIVE], {"MESSAGE": ("message.received.>",)}),
        (["custom.>", "message.>"], [MESSAGE, BOTH],
         {"MESSAGE": ("message.>",), "BOTH": ("custom.>",)}),
        # unless it has another subject here.
        ([">"], [EU, FROM_EU], {"EU": ("eu.message.>",), "MESSAGE": ("message.>",)}),
        # A stream that changes its subjects is read by those it stores.
        (["eu.message.>"], [MOVED], {"M": ("eu.message.>",)}),
        # What comes from another server is known if a filter names it,
        (["message.sent.>"],
         [stream("S", sources=[{"name": "X", "filter_subject": "message.sent.>"}])],
         {"S": ("message.sent.>",)}),
        # or if a type is at home there.
        (["message.sent", "message.sent.>"], [FROM_AFAR],
         {"MESSAGE": ("message.sent", "message.sent.>")}),
        (["message.>"], [FROM_AFAR], {}),
        (["custom.thing"], [FROM_AFAR], {}),
    ],
)  # fmt: skip
def test_a_copy_is_read_by_what_it_stores_and_never_what_is_read_already(
    filters: list[str], standing: list[StreamConfig], expected: dict[str, tuple[str, ...]]
) -> None:
    assert route(filters, standing) == expected


def test_a_copy_of_what_is_not_on_this_server_is_named_with_the_reason() -> None:
    [reason] = unknown_copies(["message.>"], [FROM_AFAR])

    assert "stream MESSAGE is a copy of a stream that is not on this server" in reason
    assert unknown_copies(["message.sent", "custom.>"], [FROM_AFAR]) == ()


def test_a_stream_whose_transform_takes_a_subject_away_does_not_store_it() -> None:
    assert unserved(["message.sent"], [MOVED]) == ("message.sent",)
    assert unserved(["message.sent"], [EU, FROM_EU]) == ()

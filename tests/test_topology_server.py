"""What topology relies on, asked of a real nats-server: it takes what we send, and keeps it so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_worker.errors import ApiError, ConfigError, InvalidSubject, TopologyError
from omni_worker.nats_server import NatsServer
from omni_worker.provision import Provisioner
from omni_worker.schemas import check_name
from omni_worker.settings import Settings
from omni_worker.subjects import MAX_TOKEN, build_subject, fold, matches
from omni_worker.topology import (
    STREAMS,
    ConsumerSpec,
    Standing,
    StreamSpec,
    UseConsumer,
    consumer_config,
    plan_consumer,
    plan_stream,
    stream_config,
    with_sources,
    with_subjects,
)
from omni_worker.transports.base import Message
from omni_worker.transports.infos import ConsumerInfo
from omni_worker.transports.jetstream import JetStreamTransport

LETTERS = ["a", "b", "*"]
patterns = st.builds(
    lambda head, tail: ".".join(["e", *head, *tail]),
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)
# Every property below asks the server a few hundred times; the connection is made once.
asked = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
async def transport(nats_server: NatsServer) -> AsyncIterator[JetStreamTransport]:
    """An open transport to a server of this test's own."""
    transport = JetStreamTransport(Settings(urls=nats_server.url))
    await transport.open("tests")
    yield transport
    await transport.close()


async def test_the_server_takes_every_folded_set_of_filters_and_delivers_what_they_match(
    transport: JetStreamTransport,
) -> None:
    operators = transport.operators
    await operators.create_stream({"name": "E", "subjects": ["e.>"]})
    stored = [
        ".".join(("e", *words)) for n in (1, 2, 3) for words in itertools.product("ab", repeat=n)
    ]
    for number, subject in enumerate(stored):
        await transport.publish(Message(subject, b"{}", str(number)), timeout=5)
    examples: list[list[str]] = []

    @settings(asked, max_examples=60)
    @given(st.lists(patterns, min_size=1, max_size=5))
    def collect(filters: list[str]) -> None:
        examples.append(filters)

    collect()
    for filters in examples:
        spec = ConsumerSpec(
            stream="E", name="c", app="a", filters=fold(filters), ack_wait=30, start_from="first"
        )
        info = await operators.create_consumer("E", consumer_config(spec))
        await operators.delete_consumer("E", "c")

        wanted = sum(any(matches(one, subject) for one in filters) for subject in stored)
        assert wanted == info.num_pending, filters


async def test_filters_within_each_other_are_what_the_server_refuses(
    transport: JetStreamTransport,
) -> None:
    await transport.operators.create_stream({"name": "E", "subjects": ["e.>"]})
    spec = ConsumerSpec(stream="E", name="c", app="a", filters=("e.a", "e.*"), ack_wait=30)

    with pytest.raises(ApiError) as refused:
        await transport.operators.create_consumer("E", consumer_config(spec))

    assert refused.value.err_code == 10138


NAMES = [
    "r1", "a-b_c", "é", "日本", "😀", "a:b", "a'b", 'a"b', "a|b", "%20", "-", "x" * 128,
    "", "a b", "a.b", "a*", "a>", "a/b", "a\\b", "a\tb", "a\x01b", "a\x7fb", "$a", "x" * 256,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["consumer", "stream"])
async def test_every_name_we_take_the_server_takes_and_what_it_refuses_we_refuse(
    transport: JetStreamTransport, kind: str
) -> None:
    operators = transport.operators
    await operators.create_stream({"name": "E", "subjects": ["e.>"]})
    wrong: list[tuple[str, str]] = []
    for number, name in enumerate(NAMES):
        try:
            check_name(name, "name")
            ours = True
        except ConfigError:
            ours = False
        if not ours and ("." in name or not name):
            continue  # it would address another subject of the API, and nobody answers
        theirs = await _is_taken(operators, kind, name, number)
        if ours and not theirs:
            wrong.append((name, "we take it, the server does not"))

    assert wrong == []


async def _is_taken(operators: Any, kind: str, name: str, number: int) -> bool:
    try:
        async with asyncio.timeout(5):
            if kind == "consumer":
                await operators.create_consumer(
                    "E", {"name": name, "durable_name": name, "ack_policy": "explicit"}
                )
            else:
                await operators.create_stream({"name": name, "subjects": [f"s{number}.>"]})
    except (ApiError, InvalidSubject):
        return False
    return True


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"durable": False, "inactive": 90.5},
        {"filters": ("message.received.x.>",)},
        {"start_from": "first"},
        {"start_from": "last"},
        {"start_from": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)},
        {"start_sequence": 7},
        {"queue": "q", "ack_wait": 0.5},
    ],
)
async def test_a_consumer_we_made_is_used_as_it_stands_by_the_next_process(
    transport: JetStreamTransport, changed: dict[str, Any]
) -> None:
    await transport.operators.create_stream(stream_config(STREAMS[0], replicas=1))
    usual = {"stream": "MESSAGE", "name": "r1", "app": "a", "ack_wait": 30.0,
             "filters": ("message.received", "message.received.>")}  # fmt: skip
    spec = ConsumerSpec(**(usual | changed))

    await transport.operators.create_consumer("MESSAGE", consumer_config(spec))

    info = await transport.operators.consumer_info("MESSAGE", "r1")
    assert plan_consumer(spec, info) == UseConsumer()


async def test_one_changed_by_an_operator_is_put_back_by_one_update(
    transport: JetStreamTransport,
) -> None:
    operators = transport.operators
    await operators.create_stream(stream_config(STREAMS[0], replicas=1))
    spec = ConsumerSpec(stream="MESSAGE", name="r1", app="a", filters=("message.>",), ack_wait=30.0)
    made = await operators.create_consumer("MESSAGE", consumer_config(spec))
    await operators.update_consumer(
        "MESSAGE",
        {**made.raw["config"], "headers_only": True, "max_deliver": 9, "ack_wait": 5_000_000_000,
         "priority_groups": ["g"], "priority_policy": "overflow", "sample_freq": "10"},
    )  # fmt: skip
    provisioner = Provisioner(operators, create=True, replicas=1)

    info = await provisioner.ensure_consumer(spec)

    assert plan_consumer(spec, info) == UseConsumer()
    assert info.raw["config"]["sample_freq"] == "10"


async def test_a_consumer_that_is_deleted_while_it_is_updated_is_created(
    transport: JetStreamTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = transport.operators
    await operators.create_stream(stream_config(STREAMS[0], replicas=1))
    spec = ConsumerSpec(stream="MESSAGE", name="r1", app="a", filters=("message.>",), ack_wait=30.0)
    await operators.create_consumer("MESSAGE", consumer_config(spec))

    async def is_overtaken(stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        await operators.delete_consumer(stream, spec.name)
        raise ApiError("open …/meta.inf.tmp: no such file or directory", code=500, err_code=10012)

    monkeypatch.setattr(operators, "update_consumer", is_overtaken)
    longer = replace(spec, ack_wait=60.0)
    info = await Provisioner(operators, create=True, replicas=1).ensure_consumer(longer)

    assert info.config.ack_wait == 60.0


async def test_the_seven_stand_without_a_difference_and_are_left_alone(
    transport: JetStreamTransport, caplog: pytest.LogCaptureFixture
) -> None:
    operators = transport.operators
    await Provisioner(operators, create=True, replicas=1).ensure_streams()
    before = await operators.streams()

    caplog.clear()
    await Provisioner(operators, create=True, replicas=1).ensure_streams()

    configs = [info.config for info in before]
    assert [plan_stream(spec, configs) for spec in STREAMS] == [
        Standing(spec, spec.name) for spec in STREAMS
    ]
    assert configs == [info.config for info in await operators.streams()]
    assert caplog.messages == []


async def test_streams_of_other_programs_are_used_and_never_changed(
    transport: JetStreamTransport,
) -> None:
    operators = transport.operators
    theirs = [
        {"name": "MESSAGE", "subjects": ["message.>", "chat.>"], "max_msgs": 5},
        {"name": "EVENTS", "subjects": ["media.>"], "retention": "workqueue"},
        {"name": "PART", "subjects": ["identity.created"]},
        {"name": "ACCESS", "subjects": ["access.denied.>"]},
    ]
    for one in theirs:
        await operators.create_stream(one)
    before = [info.config for info in await operators.streams()]

    provisioner = Provisioner(operators, create=True, replicas=1)
    await provisioner.ensure_streams()

    standing = {info.name: info.config for info in await operators.streams()}
    assert before == [standing[config.name] for config in before]
    assert sorted(standing) == [
        "ACCESS", "CUSTOM", "EVENTS", "INSTANCE", "MESSAGE", "PART", "SYSTEM",
    ]  # fmt: skip
    assert await provisioner.routes(["media.received.>"], literal=True) == {
        "EVENTS": ("media.received.>",)
    }
    with pytest.raises(TopologyError, match=r"PART does not store identity\.created\.>.*--apply"):
        await provisioner.routes(["identity.created", "identity.created.>"], literal=True)
    with pytest.raises(TopologyError, match=r"no stream on the server stores identity\.merged"):
        await provisioner.routes(["identity.merged"], literal=True)
    with pytest.raises(TopologyError, match=r"does not store foo\.bar"):
        await provisioner.routes(["message.*.>", "foo.bar"], literal=False)


async def test_with_provisioning_off_nothing_is_made(transport: JetStreamTransport) -> None:
    provisioner = Provisioner(transport.operators, create=False, replicas=1)
    await provisioner.ensure_streams()
    await provisioner.ensure_own_stream()

    assert await transport.operators.streams() == []

    await transport.operators.create_stream(stream_config(STREAMS[0], replicas=1))
    spec = ConsumerSpec(stream="MESSAGE", name="r1", app="a", filters=("message.>",), ack_wait=30)
    with pytest.raises(TopologyError, match=r"consumer r1 on MESSAGE is needed.*OMNI_WORKER_PROV"):
        await provisioner.ensure_consumer(spec)


async def test_a_missing_subject_is_added_to_the_servers_own_configuration(
    transport: JetStreamTransport,
) -> None:
    operators = transport.operators
    made = await operators.create_stream(
        {"name": "MESSAGE", "subjects": ["message.sent", "chat.>"], "max_msgs": 7}
    )

    await operators.update_stream(with_subjects(made.config, ["message.>"]))

    info = await operators.stream_info("MESSAGE")
    assert info is not None
    assert info.raw["config"]["subjects"] == ["chat.>", "message.>"]
    assert info.raw["config"]["max_msgs"] == 7


async def test_a_copy_stands_as_it_was_made(transport: JetStreamTransport) -> None:
    operators = transport.operators
    provisioner = Provisioner(operators, create=True, replicas=1)
    await provisioner.ensure_streams()
    spec = StreamSpec(
        name="ORDERS", max_age=604_800, source="CUSTOM",
        source_filters=("custom.order", "custom.order.>"),
    )  # fmt: skip

    await provisioner.ensure_copy(spec)
    await provisioner.ensure_copy(spec)

    info = await operators.stream_info("ORDERS")
    assert info is not None
    assert with_sources(info.config, spec) is None
    assert (await provisioner.routes(["custom.>"], literal=False)) == {"CUSTOM": ("custom.>",)}


subjects = st.builds(
    lambda channel, instance: ("custom.x", channel, ".".join(instance)),
    st.text(min_size=1, max_size=10),
    st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=3),
)
ODD = [
    "5511@s.whatsapp.net", "wa.eu.001", "é", "日本", "😀", "a\u200bb", "a\ufeffb", "a\u202eb",
    "$".join("ab"), "a:b", "a|b", "%0d%0a", "'", '"', "\\", "x" * MAX_TOKEN, "\U0010ffff",
]  # fmt: skip


async def test_every_subject_we_build_is_stored_as_it_is(transport: JetStreamTransport) -> None:
    operators = transport.operators
    await operators.create_stream({"name": "CUSTOM", "subjects": ["custom.>"]})
    built = {build_subject("custom.x", "odd", one) for one in ODD}

    @settings(asked, max_examples=300)
    @given(subjects)
    def collect(parts: tuple[str, str, str]) -> None:
        try:
            built.add(build_subject(*parts))
        except InvalidSubject:
            return

    collect()
    wanted = sorted(built)
    stored = await transport.publish_many(
        [Message(subject, b"{}", str(number)) for number, subject in enumerate(wanted)], timeout=20
    )

    assert [one for one in stored if isinstance(one, Exception)] == []
    for subject, result in zip(wanted, stored, strict=True):
        message = await operators.message("CUSTOM", result.sequence)  # type: ignore[union-attr]
        assert message is not None
        assert message.subject == subject

"""Streams and consumers of other programs: used as they stand, refused by name, never changed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client

from ..waiting import until
from .support import (
    Stage,
    api,
    consumer,
    foreign_event,
    make_stream,
    stream_config,
    until_settled,
    until_stored,
)

APP = """
app = App("router")

@app.on("message.received", durable="r1")
async def route(event):
    effect("handled", id=event.id)
"""

DAY = 86_400 * 10**9
# As Omni's own programs make them, and then some: more subjects, other ages, limits, storage.
FOREIGN: dict[str, dict[str, Any]] = {
    "MESSAGE": {
        "subjects": ["message.>", "chat.>"],
        "max_age": 365 * DAY,
        "max_msgs": 1_000_000,
        "description": "theirs",
    },
    "REACTION": {"subjects": ["reaction.>"], "max_age": 7 * DAY},
    "SYSTEM": {
        "subjects": ["system.>", "sync.>", "batch-job.>", "presence.>"],
        "storage": "memory",
        "max_age": 7 * DAY,
        "duplicate_window": 120 * 10**9,
    },
    "CUSTOM": {"subjects": ["custom.>"], "retention": "interest", "max_bytes": 10_000_000},
}


async def test_streams_that_stand_are_used_and_left_exactly_as_they_are(
    stage: Stage, plain: Client
) -> None:
    before = {name: await make_stream(plain, name, **config) for name, config in FOREIGN.items()}

    worker = await stage.run(
        stage.app(
            APP
            + """
@app.on("reaction.received", durable="r2")
async def react(event):
    effect("handled", id=event.id)

@app.on("custom.thing", durable="r3")
async def thing(event):
    effect("handled", id=event.id)
"""
        )
    )
    for type in ("message.received", "reaction.received", "custom.thing"):
        await plain.jetstream().publish(*foreign_event(type, {}, id=type))
    await stage.until_effects(3)

    assert sorted(stage.ids()) == ["custom.thing", "message.received", "reaction.received"]
    assert await worker.stop() == 0
    assert before == {name: await stream_config(plain, name) for name in before}
    [said] = [one for one in worker.messages("info") if one.startswith("stream MESSAGE exists")]
    for difference in ("chat.>", "365 d where we keep 30 d"):
        assert difference in said


async def test_a_durable_of_another_program_is_refused_by_name_and_left_alone(
    stage: Stage, plain: Client
) -> None:
    await make_stream(plain, "MESSAGE", "message.>")
    theirs = {
        "durable_name": "r1",
        "ack_policy": "explicit",
        "filter_subject": "message.received.>",
        "max_deliver": 4,
        "ack_wait": 30 * 10**9,
        "max_ack_pending": 1000,
    }
    await api(
        plain, "CONSUMER.DURABLE.CREATE.MESSAGE.r1", {"stream_name": "MESSAGE", "config": theirs}
    )
    before = await consumer(plain, "r1")

    worker = stage.spawn(stage.app(APP))
    code = await worker.exit()

    assert code == 1
    assert len(worker.lines("error")) == 1
    assert worker.messages("error")[0].startswith(
        "consumer 'r1' on stream MESSAGE was created by another program"
    )
    after = await consumer(plain, "r1")
    assert before["config"] == after["config"]
    assert before["created"] == after["created"]


async def test_a_durable_of_another_app_is_refused_by_name_and_left_alone(
    stage: Stage, plain: Client
) -> None:
    first = await stage.run(stage.app(APP))
    before = await consumer(plain, "r1")

    other = stage.spawn(stage.app(APP.replace('App("router")', 'App("billing")'), "billing"))
    code = await other.exit()

    assert code == 1
    assert other.messages("error") == [
        "consumer 'r1' on stream MESSAGE belongs to the app 'router', this is 'billing';"
        " choose another durable name"
    ]
    assert before["config"] == (await consumer(plain, "r1"))["config"]
    await plain.jetstream().publish(*foreign_event("message.received", id="still-works"))
    await stage.until_effects(1)
    assert [one["worker"] for one in stage.effects()] == [first.name]


async def test_a_stream_that_lacks_a_subject_we_need_is_a_clear_error(
    stage: Stage, plain: Client
) -> None:
    before = await make_stream(plain, "MESSAGE", "message.sent", "message.sent.>")

    worker = stage.spawn(stage.app(APP))
    code = await worker.exit()

    assert code == 1
    assert len(worker.messages("error")) == 1
    said = worker.messages("error")[0]
    assert "message.received" in said
    assert before == await stream_config(plain, "MESSAGE")


async def test_what_no_handler_needs_is_only_a_warning(stage: Stage, plain: Client) -> None:
    await make_stream(plain, "MEDIA", "media.received")

    worker = await stage.run(stage.app(APP))

    [said] = worker.messages("warning")
    assert said.startswith("stream MEDIA does not store media.>")


async def test_a_stream_of_another_name_that_owns_the_subjects_is_bound_to(
    stage: Stage, plain: Client
) -> None:
    before = await make_stream(plain, "EVENTS", "message.>", "custom.>", max_age=DAY)
    worker = await stage.run(
        stage.app(
            APP
            + """
    published = await app.publish("custom.thing", {})
    effect("published", stream=published.stream)
"""
        )
    )

    await plain.jetstream().publish(*foreign_event("message.received", id="one"))

    await stage.until_effects(2)
    await until_settled(plain, "r1", "EVENTS")
    assert stage.ids() == ["one"]
    assert [one["stream"] for one in stage.effects("published")] == ["EVENTS"]
    assert before == await stream_config(plain, "EVENTS")
    names = (await api(plain, "STREAM.NAMES"))["streams"]
    assert sorted(names) == ["ACCESS", "EVENTS", "IDENTITY", "INSTANCE", "MEDIA", "SYSTEM"]
    assert await worker.stop() == 0


async def test_a_partial_overlap_is_an_error_that_names_both(stage: Stage, plain: Client) -> None:
    before = await make_stream(plain, "TICKETS", "message.sent.>")
    target = stage.app(APP)

    worker = stage.spawn(target)
    code = await worker.exit()

    assert code == 1
    assert worker.messages("error") == [
        "no stream on the server stores message.received, message.received.>:"
        " stream MESSAGE cannot be created: TICKETS holds message.sent.>"
    ]
    assert before == await stream_config(plain, "TICKETS")


NO_STREAM = (
    "play.route: no stream on the server stores profile.synced, profile.synced.>:"
    " create one, or check the event type"
)


async def test_a_handler_no_stream_stores_is_named_at_the_end_of_its_tries(stage: Stage) -> None:
    app = stage.app(APP.replace("message.received", "profile.synced"))
    worker = stage.spawn(app, RECONNECT_MAX_RETRIES=2, RECONNECT_DELAY=0.01)

    code = await worker.exit()

    assert code == 1
    assert worker.messages("error") == [NO_STREAM]
    assert worker.messages("warning") == [
        f"{NO_STREAM}; waiting for it: the server is asked 2 times"
    ]


async def test_a_stream_that_a_worker_waited_for_is_read_from_its_first_event(
    stage: Stage, plain: Client
) -> None:
    worker = stage.spawn(stage.app(APP.replace("message.received", "profile.synced")))
    await until(lambda: worker.messages("warning"))
    await make_stream(plain, "PROFILE", "profile.>")

    await plain.jetstream().publish(*foreign_event("profile.synced", id="one"))

    await stage.until_effects(1, timeout=30)
    assert stage.ids() == ["one"]
    assert len(worker.messages("warning")) == 1
    assert await worker.stop() == 0


@pytest.mark.parametrize("widened", [False, True])
async def test_two_versions_of_one_app_start_at_once(
    stage: Stage, plain: Client, widened: bool
) -> None:
    old = stage.app(APP, "old")
    new = stage.app(APP.replace('"message.received", ', '"message.received", "message.sent", ')
                    if widened else APP, "new")  # fmt: skip

    workers = [stage.spawn(target) for target in (old, new, new)]
    await asyncio.gather(*(worker.ready() for worker in workers))
    bare, main = [(await consumer(plain, name))["config"] for name in ("r1-bare", "r1")]

    if widened:
        assert bare["filter_subjects"] == ["message.received", "message.sent"]
        assert main["filter_subjects"] == ["message.received.>", "message.sent.>"]
    else:
        assert bare["filter_subject"] == "message.received"
        assert main["filter_subject"] == "message.received.>"
    assert [await worker.stop() for worker in workers] == [0, 0, 0]


async def test_an_aggregate_and_a_changed_subject_are_read_by_what_they_store(
    stage: Stage, plain: Client
) -> None:
    await make_stream(plain, "EU", "eu.message.>")
    sources = [{"name": "EU", "subject_transforms": [{"src": "eu.>", "dest": ">"}]}]
    await make_stream(plain, "MESSAGE", sources=sources)
    changed = {"src": "hook.>", "dest": "shop.>"}
    await make_stream(plain, "HOOKS", "hook.>", subject_transform=changed)
    js = plain.jetstream()

    worker = await stage.run(
        stage.app(
            """
app = App("router")
app.registry.extend("shop.order")

@app.on("message.received", durable="r1", start_from="first")
async def route(event):
    effect("handled", id=event.id)

@app.on("shop.order", durable="r2", start_from="first")
async def thing(event):
    effect("handled", id=event.id)
"""
        )
    )
    await js.publish("eu.message.received.wa.i", *foreign_event("message.received", {}, id="1")[1:])
    await js.publish("hook.order", *foreign_event("shop.order", {}, id="2")[1:])
    await stage.until_effects(2)
    await until_settled(plain, "r1")

    assert sorted(stage.ids("handled")) == ["1", "2"]
    assert await worker.stop() == 0


async def test_a_mirror_beside_its_origin_is_not_read_in_addition(
    stage: Stage, plain: Client
) -> None:
    await make_stream(plain, "MESSAGE", "message.>")
    await make_stream(plain, "ARCHIVE", mirror={"name": "MESSAGE"})
    js = plain.jetstream()
    sent = []
    for number in range(20):
        there = {"channel": "wa", "instance": "i"} if number % 2 else {}
        sent.append(f"{number:02}")
        await js.publish(*foreign_event("message.received", {}, id=sent[-1], **there))
    await until_stored(plain, "ARCHIVE", 20)

    worker = await stage.run(
        stage.app(
            """
app = App("router")

@app.on("message.*", durable="r1", start_from="first")
async def route(event):
    effect("a pattern", id=event.id)

@app.on(">", durable="r2", start_from="first")
async def all_of_it(event):
    effect("everything", id=event.id)
"""
        )
    )
    await stage.until_effects(40)
    for durable in ("r1", "r2"):
        await until_settled(plain, durable)

    assert (await api(plain, "CONSUMER.NAMES.ARCHIVE"))["consumers"] in (None, [])
    assert sorted(stage.ids("a pattern")) == sorted(stage.ids("everything")) == sent
    assert await worker.stop() == 0


async def test_a_pattern_that_a_copy_from_elsewhere_may_store_is_refused_with_the_reason(
    stage: Stage, plain: Client
) -> None:
    far = {"name": "MESSAGE", "external": {"api": "$JS.hub.API", "deliver": "hub"}}
    await make_stream(plain, "MESSAGE", mirror=far)

    worker = stage.spawn(stage.app(APP.replace("message.received", "message.*")))
    code = await worker.exit()

    assert code == 1
    assert "stream MESSAGE is a copy of a stream that is not on this server" in worker.said()

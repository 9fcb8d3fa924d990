"""The worker end to end: events of a foreign program, handled once, streams and consumer made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client

from .support import (
    Stage,
    api,
    consumer,
    foreign_event,
    repeated,
    stored_at,
    stream_config,
    to_bytes,
    until_settled,
)

APP = """
app = App("router")


def tell(handler, event):
    effect("handled", handler=handler, id=event.id, type=event.type, payload=event.payload,
           channel=event.channel, instance=event.instance, timestamp=event.timestamp,
           metadata=event.metadata.model_dump(by_alias=True, exclude_none=True),
           extra=event.model_extra)


@app.on("message.received", queue="routers", durable="r1")
async def route(event):
    tell("route", event)


@app.on("message.sent", "message.read", channel="discord", durable="discord")
async def discord(event):
    tell("discord", event)


@app.on("custom.webhook.github", durable="github")
async def github(event):
    tell("github", event)


@app.on("custom.webhook.github.push", durable="push")
def push(event, ctx):
    tell("push", event)


@app.on("instance.*", instance="wa.eu.001", durable="instances")
async def instances(event):
    tell("instances", event)
"""

DAY = 86_400 * 10**9
SEVEN: dict[str, tuple[list[str], int, str]] = {
    "MESSAGE": (
        ["message.>"],
        30,
        "All message lifecycle events (received, sent, delivered, read, failed)",
    ),
    "INSTANCE": (
        ["instance.>"],
        7,
        "Instance lifecycle events (connected, disconnected, qr_code)",
    ),
    "IDENTITY": (
        ["identity.>"],
        90,
        "Identity management events (created, linked, merged, unlinked)",
    ),
    "MEDIA": (["media.>"], 7, "Media processing events (received, processed)"),
    "ACCESS": (["access.>"], 30, "Access control events (allowed, denied)"),
    "CUSTOM": (["custom.>"], 7, "User-defined custom events (webhooks, triggers, etc.)"),
    "SYSTEM": (
        ["system.>"],
        7,
        "Internal system events (dead_letter, replay, health, sync, batch-job, presence)",
    ),
}


async def test_events_of_a_foreign_program_reach_the_right_handler_once(
    stage: Stage, plain: Client
) -> None:
    worker = await stage.run(stage.app(APP))
    wanted: dict[str, tuple[str, str | None, str | None]] = {}

    async def send(
        handler: str | None,
        type: str,
        payload: Any = None,
        *,
        seen: tuple[str | None, str | None] = (None, None),
        without: Sequence[str] = (),
        **envelope: Any,
    ) -> str:
        subject, body = foreign_event(type, payload, **envelope)
        event = {key: value for key, value in json.loads(body).items() if key not in without}
        await plain.jetstream().publish(subject, to_bytes(event))
        id = str(event["id"])
        if handler is not None:
            wanted[id] = (handler, *seen)
        return id

    whatsapp = {"channel": "whatsapp", "instance": "wa-001"}
    await send("route", "message.received", **whatsapp, seen=("whatsapp", "wa-001"))
    await send("route", "message.received")
    # Only one of the two: the foreign bus falls back to the bare subject and keeps the metadata.
    only_instance = await send("route", "message.received", instance="dc-002")
    dotted = {"channel": "whatsapp-baileys", "instance": "wa.eu.001"}
    await send("route", "message.received", **dotted, seen=("whatsapp-baileys", "wa.eu.001"))
    address = {"channel": "whatsapp", "instance": "5511@s.whatsapp.net"}
    await send("route", "message.received", **address, seen=("whatsapp", "5511@s.whatsapp.net"))
    odd = await send("route", "message.received", {"text": 'olá ✅ " \\ 日本 \u2028'})
    extra = await send("route", "message.received", shard=7, timings={"received": 1})
    loose = await send("route", "message.received", metadata={"timings": [1, 2], "x": None})
    empty = await send("route", "message.received", metadata=None)
    rounded = await send("route", "message.received", timestamp=1769700000000.6)
    parsed = await send("route", "message.received", timestamp="2026-01-29T15:20:00.500Z")
    null_timestamp = await send("route", "message.received", timestamp=None)
    no_timestamp = await send("route", "message.received", without=["timestamp"])
    await send("route", "message.received", "just text")
    discord = {"channel": "discord", "instance": "dc-1"}
    await send("discord", "message.sent", **discord, seen=("discord", "dc-1"))
    await send("discord", "message.read", **discord, seen=("discord", "dc-1"))
    await send(None, "message.sent", **whatsapp)
    await send("github", "custom.webhook.github", {"ref": "main"})
    await send("push", "custom.webhook.github.push", {"ref": "main"})
    await send("push", "custom.webhook.github.push", {}, **dotted, seen=tuple(dotted.values()))
    await send("instances", "instance.connected", {}, **dotted, seen=tuple(dotted.values()))
    await send(None, "instance.connected", {}, **whatsapp)

    await stage.until_effects(len(wanted))
    for name, stream in (
        ("r1", "MESSAGE"),
        ("discord", "MESSAGE"),
        ("github", "CUSTOM"),
        ("push", "CUSTOM"),
        ("instances", "INSTANCE"),
    ):
        await until_settled(plain, name, stream)
    code = await worker.stop()

    handled = {one["id"]: one for one in stage.effects()}
    got = {id: (one["handler"], one["channel"], one["instance"]) for id, one in handled.items()}
    assert wanted == got
    assert repeated(stage.ids()) == {}
    assert handled[only_instance]["metadata"]["instanceId"] == "dc-002"
    assert handled[odd]["payload"] == {"text": 'olá ✅ " \\ 日本 \u2028'}
    assert handled[extra]["extra"] == {"shard": 7, "timings": {"received": 1}}
    assert handled[loose]["metadata"] == {"timings": [1, 2]}
    assert handled[empty]["metadata"] == {}
    assert handled[rounded]["timestamp"] == 1769700000001
    assert handled[parsed]["timestamp"] == 1769700000500
    for unstamped in (null_timestamp, no_timestamp):
        assert handled[unstamped]["timestamp"] == await stored_at(plain, unstamped)
    assert code == 0
    assert "ready" in worker.messages()
    assert worker.messages()[-1] == "stopped"
    assert worker.lines("error") == worker.lines("warning") == []


async def test_the_seven_streams_and_the_consumer_are_made_as_designed(
    stage: Stage, plain: Client
) -> None:
    await stage.run(stage.app(APP))

    for name, (subjects, days, description) in SEVEN.items():
        config = await stream_config(plain, name)
        assert subjects == config["subjects"]
        assert days * DAY == config["max_age"]
        assert description == config["description"]
        assert config["duplicate_window"] == 120 * 10**9
        assert (config["storage"], config["retention"]) == ("file", "limits")
        assert config["num_replicas"] == 1
    names = (await api(plain, "STREAM.NAMES"))["streams"]
    assert sorted(names) == sorted(SEVEN)
    for name, filter in (("r1-bare", "message.received"), ("r1", "message.received.>")):
        check_consumer(await consumer(plain, name), name, filter)


def check_consumer(info: dict[str, Any], name: str, filter: str) -> None:
    config = info["config"]
    assert config["durable_name"] == name
    assert config["ack_policy"] == "explicit"
    assert config["deliver_policy"] == "new"
    assert config["max_deliver"] == -1
    assert config["ack_wait"] == 30 * 10**9
    assert config["max_ack_pending"] == 1_000_000
    assert config["filter_subject"] == filter
    for absent in ("filter_subjects", "deliver_group", "backoff", "inactive_threshold"):
        assert absent not in config
    tag = {key: value for key, value in config["metadata"].items() if key[0] != "_"}
    assert tag == {
        "omni-worker.app": "router",
        "omni-worker.queue": "routers",
        "omni-worker.start_from": "new",
        "omni-worker.ack_wait": str(30 * 10**9),
        "omni-worker.handler": "r1",
        "omni-worker.function": "route",
        "omni-worker.pattern": "message.received message.received.>",
        **({"omni-worker.split": "r1-bare"} if name == "r1" else {}),
    }
    assert (info["num_pending"], info["num_ack_pending"]) == (0, 0)


async def test_without_durable_or_queue_every_process_sees_every_event(
    stage: Stage, plain: Client
) -> None:
    target = stage.app("""
        app = App("all")

        @app.on("message.received")
        async def see(event):
            effect("handled", id=event.id)
    """)
    workers = [stage.spawn(target), stage.spawn(target)]
    for worker in workers:
        await worker.ready()

    for number in range(10):
        await plain.jetstream().publish(*foreign_event("message.received", id=f"event-{number}"))

    await stage.until_effects(20)
    assert {id: 2 for id in stage.ids()} == repeated(stage.ids())
    assert {"w1", "w2"} == {one["worker"] for one in stage.effects()}
    for worker in workers:
        assert await worker.stop() == 0
    # Nobody reads them any more: they go with their process, not an hour later.
    assert (await api(plain, "CONSUMER.NAMES.MESSAGE"))["consumers"] == []

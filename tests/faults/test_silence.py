"""Silence: what keeps a handler from taking events is named within 15 s; mended, it goes on.

Nothing is patched here: the times are those of a worker.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker import Event, EventBus, Settings
from omni_worker.nats_server import NatsServer
from omni_worker.process.health import examine
from omni_worker.signals import (
    ConsumerEdited,
    ConsumerPaused,
    Listener,
    Signal,
    Stalled,
    StallEnded,
)

from ..processes.support import api, consumer, plain_client, stream_config
from ..waiting import until
from .servers import configured

SOON = 15.0  # seconds
GUARDS = "KV_omni-worker-guards"
RIGHT = "$KV.omni-worker-guards.>"
SECOND = 1_000_000_000

ACCOUNT = {
    "accounts": {
        "A": {
            "jetstream": {"max_streams": 20, "max_file": 100_000_000},
            "users": [
                {"user": "operations", "password": "o"},
                {"user": "worker", "password": "w"},
                {"user": "barred", "password": "b", "permissions": {"publish": {"deny": [RIGHT]}}},
                {
                    "user": "noteless",
                    "password": "n",
                    "permissions": {"publish": {"deny": ["$KV.omni-worker-notes.>"]}},
                },
                {
                    "user": "restricted",
                    "password": "r",
                    "permissions": {"publish": {"deny": ["$KV.omni-worker-limits.>"]}},
                },
            ],
        }
    }
}


class Handled:
    """A handler of `custom.thing`, what it handled, and what was signalled."""

    def __init__(self, server: NatsServer, user: str = "worker") -> None:
        self.url = server.url.replace("nats://", f"nats://{user}:{user[0]}@")
        self.events: list[Any] = []
        self.signals: list[Signal] = []
        self.bus: EventBus

    async def start(self, *durables: str, provision: str = "on", **options: Any) -> None:
        async def handle(event: Event[Any]) -> None:
            self.events.append(event.payload)

        self.bus = EventBus(
            name="silence", settings=Settings(urls=(self.url,), provision=provision)
        )
        self.bus.signals.add(Listener(self.signals.append))
        await self.bus.connect()
        for durable in durables or ("d",):
            await self.bus.subscribe("custom.thing", handle, durable=durable, **options)

    def of(self, kind: type[Signal]) -> list[Any]:
        return [one for one in self.signals if isinstance(one, kind)]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    with configured(tmp_path, json.dumps(ACCOUNT)) as server:
        yield server


@pytest.fixture
async def plain(server: NatsServer) -> AsyncIterator[Client]:
    """A client of operations, which may do everything."""
    client = await plain_client(server.url.replace("nats://", "nats://operations:o@"))
    yield client
    await client.close()


@pytest.fixture
async def handled(server: NatsServer, request: pytest.FixtureRequest) -> AsyncIterator[Handled]:
    """A handler, which is not subscribed yet."""
    handled = Handled(server)
    yield handled
    await handled.bus.close(0.0)


async def change(plain: Client, stream: str, **changes: Any) -> None:
    config = await stream_config(plain, stream)
    said = await api(plain, f"STREAM.UPDATE.{stream}", {**config, **changes})
    assert "error" not in said, said


async def edit(plain: Client, consumer_name: str, **changes: Any) -> None:
    config = {**(await consumer(plain, consumer_name, "CUSTOM"))["config"], **changes}
    request = {"stream_name": "CUSTOM", "config": config, "action": "update"}
    said = await api(plain, f"CONSUMER.CREATE.CUSTOM.{consumer_name}", request)
    assert "error" not in said, said


async def fill(plain: Client) -> None:
    """Make streams until the account has no room for one more."""
    for number in range(21):
        name = f"FILL-{number}"
        said = await api(
            plain, f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"fill.{number}"]}
        )
        if "error" in said:
            return
    raise AssertionError("there is room for more")


# --- the guards of exactly_once ------------------------------------------------------------


async def stalled(handled: Handled) -> str:
    """Return what is reported when the handler takes no events."""
    await until(lambda: handled.of(Stalled), SOON)
    [one] = handled.of(Stalled)
    assert f"handler d takes no events: {one.reason}" in examine(handled.bus, 0.0).not_ready
    return str(one.reason)


async def goes_on(handled: Handled, *events: int) -> None:
    """Wait until all events are handled, and nothing is said to be wrong any more."""
    await until(lambda: sorted(handled.events) == list(events), SOON)
    await until(lambda: handled.of(StallEnded), SOON)
    assert examine(handled.bus, 0.0).not_ready == ()


async def test_guards_that_are_full_are_named(handled: Handled, plain: Client) -> None:
    await handled.start(exactly_once=True)
    await handled.bus.publish("custom.thing", 0)
    await until(lambda: handled.events == [0])

    await change(plain, GUARDS, max_bytes=1)
    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)
    await change(plain, GUARDS, max_bytes=-1)

    assert f"omni-worker-guards is full: raise the limits of its stream {GUARDS}" in reason
    await goes_on(handled, 0, 1)


async def test_guards_that_are_sealed_are_named(handled: Handled, plain: Client) -> None:
    await handled.start(exactly_once=True)
    await handled.bus.publish("custom.thing", 0)
    await until(lambda: handled.events == [0])

    await change(plain, GUARDS, sealed=True)
    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)
    await api(plain, f"STREAM.DELETE.{GUARDS}")

    assert f"omni-worker-guards is sealed: delete its stream {GUARDS}" in reason
    await goes_on(handled, 0, 1)


async def test_the_right_to_write_guards_is_named(server: NatsServer) -> None:
    handled = Handled(server, "barred")
    await handled.start(exactly_once=True)

    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)

    assert "the bucket omni-worker-guards" in reason
    assert "$KV.omni-worker-guards." in reason
    await handled.bus.close(0.0)


async def test_guards_that_nobody_may_create_are_named(handled: Handled, plain: Client) -> None:
    await handled.start()
    await handled.bus.close()
    await handled.start(exactly_once=True, provision="off")

    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)
    async with EventBus(handled.url, name="operations") as operations:
        await operations.transport.bucket("omni-worker-guards", ttl=3_600.0)

    assert "omni-worker-guards is missing, and provisioning is off" in reason
    await goes_on(handled, 1)


async def test_an_account_without_room_for_guards_is_named(handled: Handled, plain: Client) -> None:
    await handled.start(exactly_once=True)
    await fill(plain)

    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)
    for name in ("FILL-0", "FILL-1"):  # the notes need room as well
        await api(plain, f"STREAM.DELETE.{name}")

    assert GUARDS in reason
    assert "maximum number of streams reached" in reason
    await goes_on(handled, 1)


# --- consumers in the hands of others -------------------------------------------------------

EDITS: dict[str, dict[str, Any]] = {
    "max-deliver": {"max_deliver": 1},
    "backoff": {"backoff": [600 * SECOND], "max_deliver": 5},
    "headers-only": {"headers_only": True},
    "ack-wait": {"ack_wait": 600 * SECOND},
}


async def test_what_operators_change_on_consumers_is_named_and_set_right(
    handled: Handled, plain: Client
) -> None:
    await handled.start(*EDITS, "paused", "recreated")
    before = {name: (await consumer(plain, name, "CUSTOM"))["config"] for name in EDITS}
    config = (await consumer(plain, "recreated", "CUSTOM"))["config"]
    unacked = {key: config[key] for key in config if key not in ("ack_wait", "max_ack_pending")}
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    for name, fields in EDITS.items():
        await edit(plain, name, **fields)
    await api(plain, "CONSUMER.PAUSE.CUSTOM.paused", {"pause_until": in_an_hour})
    await replace(plain, "recreated", {**unacked, "ack_policy": "none"})

    await until(lambda: len(handled.of(ConsumerEdited)) == 5, SOON)
    said = {one.consumer: one.changes for one in handled.of(ConsumerEdited)}
    for name in EDITS:
        assert name.replace("-", "_") in said[name]
        after = (await consumer(plain, name, "CUSTOM"))["config"]
        assert {key: after.get(key) for key in EDITS[name]} == {
            key: before[name].get(key) for key in EDITS[name]
        }
    assert "ack_policy none, wanted explicit" in said["recreated"]
    await until(lambda: handled.of(ConsumerPaused), SOON)
    assert "consumer paused on CUSTOM is paused by others" in examine(handled.bus, 0.0).warnings[0]


async def replace(plain: Client, name: str, config: dict[str, Any]) -> None:
    """Another consumer of the same name, by one who is faster than the worker sooner or later."""

    async def is_replaced() -> bool:
        await api(plain, f"CONSUMER.DELETE.CUSTOM.{name}")
        request = {"stream_name": "CUSTOM", "config": config, "action": "create"}
        said = await api(plain, f"CONSUMER.CREATE.CUSTOM.{name}", request)
        return "error" not in said and said["config"]["ack_policy"] == config["ack_policy"]

    await until(is_replaced, SOON)


async def test_a_program_that_deletes_a_consumer_again_and_again_is_named(
    handled: Handled, plain: Client
) -> None:
    await handled.start()

    async def is_named() -> bool:
        await api(plain, "CONSUMER.DELETE.CUSTOM.d-bare")
        return bool(handled.of(Stalled))

    await until(is_named, SOON)
    reason = await stalled(handled)

    assert "consumer d-bare on CUSTOM is deleted again and again by another program" in reason

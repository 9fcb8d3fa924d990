"""Buckets that take no writes: a handler, `doctor` and `status` name them, with the reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker import Event, EventBus, Settings
from omni_worker.nats_server import NatsServer
from omni_worker.notes import attempts, guards
from omni_worker.process.health import examine
from omni_worker.signals import Listener, NotesFailed, Signal

from ..operations.support import operate
from ..processes.support import api
from ..waiting import until
from .test_silence import SOON, change, fill, plain, server

__all__ = ["plain", "server"]  # fixtures

APP = """
from omni_worker import App

app = App("silence")

@app.on("custom.thing", durable="d", exactly_once=True)
async def handle(event): ...
"""
# What keeps a bucket from taking writes, and what is said about it.
REASONS = {
    "full": "when full,",
    "sealed": "sealed:",
    "forbidden": "$KV.{bucket}.>",
    "never made": "missing, and provisioning is off:",
    "no room": "missing, and this account is limited to 20 streams:",
}
BARRED = {guards.BUCKET: "barred", attempts.BUCKET: "noteless"}  # logins


def url_of(server: NatsServer, user: str) -> str:
    """The server's address for one of its logins."""
    return server.url.replace("nats://", f"nats://{user}:{user[0]}@")


async def spoil(bucket: str, reason: str, server: NatsServer, plain: Client) -> str:
    """Keep a bucket from taking writes; return the address of the worker."""
    async with EventBus(url_of(server, "operations"), name="operations") as operations:
        if reason in ("full", "sealed", "forbidden"):
            made = await operations.transport.bucket(bucket, ttl=3_600.0)
            await made.put("a", b"something")
    match reason:
        case "full":
            await change(plain, f"KV_{bucket}", max_bytes=1)
        case "sealed":
            await change(plain, f"KV_{bucket}", sealed=True)
        case "no room":
            await fill(plain)
    return url_of(server, BARRED[bucket] if reason == "forbidden" else "worker")


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("bucket", BARRED)
async def test_doctor_and_status_name_it_with_the_reason(
    tmp_path: Path, server: NatsServer, plain: Client, bucket: str, reason: str
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    url = await spoil(bucket, reason, server, plain)
    off = {"OMNI_WORKER_PROVISION": "off"} if reason == "never made" else {}

    for command in (("doctor",), ("status", "shop:app")):
        said = await asyncio.to_thread(operate, url, *command, "--json", folder=tmp_path, **off)
        told = json.loads(said.out)
        found = told["buckets"] if command[0] == "status" else told
        about = [one for one in found if bucket in f"{one['what']} {one['says']}"]
        seen = [f"{one['says']}; {one['advice']}" for one in about if one["level"] != "ok"]
        assert REASONS[reason].format(bucket=bucket) in "".join(seen), said.out


class Once:
    """A handler that fails once for each event, and what was signalled."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.handled: list[Any] = []
        self.signals: list[Signal] = []

    async def handle(self, event: Event[Any]) -> None:
        self.begun.append(event.payload)
        if self.begun.count(event.payload) == 1:
            raise RuntimeError("once")
        self.handled.append(event.payload)

    @asynccontextmanager
    async def running(
        self, url: str, provision: str = "on", **options: Any
    ) -> AsyncIterator[EventBus]:
        """Run it."""
        bus = EventBus(name="silence", settings=Settings(urls=(url,), provision=provision))
        bus.signals.add(Listener(self.signals.append))
        await bus.connect()
        await bus.subscribe("custom.thing", self.handle, durable="d", retry_delay=0.1, **options)
        yield bus
        await bus.close(0.0)


@pytest.mark.parametrize("reason", REASONS)
async def test_without_notes_a_handler_goes_on_and_says_why_they_fail(
    server: NatsServer, plain: Client, reason: str
) -> None:
    url = await spoil(attempts.BUCKET, reason, server, plain)
    once = Once()
    if reason == "never made":
        async with once.running(url):
            pass  # which leaves the consumer, and the notes
        await api(plain, f"STREAM.DELETE.KV_{attempts.BUCKET}")
    async with once.running(url, provision="off" if reason == "never made" else "on") as bus:
        await bus.publish("custom.thing", 1)

        await until(lambda: once.handled == [1], SOON)
        [failed] = [one for one in once.signals if isinstance(one, NotesFailed)]
        assert attempts.BUCKET in str(failed.cause)
        assert attempts.BUCKET in "".join(examine(bus, 0.0).warnings)


@pytest.mark.parametrize("bucket", BARRED)
async def test_one_that_is_deleted_is_created_again(
    server: NatsServer, plain: Client, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    once = Once()
    async with once.running(url_of(server, "worker"), exactly_once=True) as bus:
        await bus.publish("custom.thing", 1)
        await until(lambda: once.handled == [1])

        await api(plain, f"STREAM.DELETE.KV_{bucket}")
        await bus.publish("custom.thing", 2)
        await until(lambda: once.handled == [1, 2], SOON)

        assert examine(bus, 0.0).not_ready == ()
        assert f"the bucket {bucket} was deleted and is created again" in caplog.text
        assert not [one for one in once.signals if isinstance(one, NotesFailed)]

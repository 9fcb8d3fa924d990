"""Servers for the operators' tests: one with much on it, and those that refuse."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer
from omni_worker.transports.base import Message
from tests.processes.support import foreign_event

MANY = 100_000
LETTERS_WANTED = 1_000  # of the many letters, those of the handler `wanted`


@pytest.fixture(scope="package")
def large_server() -> Iterator[NatsServer]:
    """100 000 events in MESSAGE and as many dead letters in SYSTEM."""
    with NatsServer() as server:
        asyncio.run(_fill(server.url))
        yield server


async def _fill(url: str) -> None:
    async with EventBus(url, name="filler") as bus:
        for first in range(0, MANY, 5_000):
            numbers = range(first, first + 5_000)
            await bus.transport.publish_many([_event(one) for one in numbers], timeout=60)
            await bus.transport.publish_many([_letter(one) for one in numbers], timeout=60)


def _event(number: int) -> Message:
    id = f"event-{number}"
    subject, body = foreign_event(
        "message.received", channel="whatsapp", instance=f"wa-{number % 50}", id=id
    )
    return Message(subject, body, id)


def _letter(number: int) -> Message:
    id = f"letter-{number}"
    handler = "wanted" if number % (MANY // LETTERS_WANTED) == 0 else "other"
    payload = {
        "originalEventId": f"event-{number}", "originalEventType": "message.received",
        "error": "no such chat", "retryCount": 3, "timestamp": time.time_ns() // 1_000_000,
        "subject": "message.received.whatsapp.wa-1", "stream": "MESSAGE", "sequence": number + 1,
        "handler": handler, "body": "{}", "traceback": "x" * 500,
    }  # fmt: skip
    event = {
        "id": id, "type": "system.dead_letter", "payload": payload, "timestamp": 1,
        "metadata": {"source": "filler", "correlationId": f"event-{number}"},
    }  # fmt: skip
    return Message("system.dead_letter", json.dumps(event).encode(), id)


@pytest.fixture(scope="package")
def server_without_jetstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server whose clients' account has no JetStream, so that nothing changes on it."""
    config = tmp_path_factory.mktemp("plain") / "plain.conf"
    config.write_text(
        "accounts { A { users: [{user: a, password: a}] }\n"
        "S { users: [{user: s, password: s}] } }\n"
        "system_account: S\nno_auth_user: a\n"
    )  # fmt: skip
    with NatsServer(arguments=["-c", str(config)]) as server:
        yield server


@pytest.fixture(scope="package")
def restricted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Everything stands, made by `admin`; who does not log in may look at streams, no more.

    One for all, since nobody can change anything on it: one for each of them was a hundred
    streams to be made, every one with a deadline that a busy machine may miss.
    """
    config = tmp_path_factory.mktemp("restricted") / "restricted.conf"
    config.write_text(
        """
        jetstream: enabled
        accounts { A { jetstream: enabled, users: [
            {user: admin, password: admin}
            {user: looker, password: looker, permissions: {
                publish: ["$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.*"], subscribe: "_INBOX.>"
            }}
        ]}}
        no_auth_user: looker
        """
    )
    with NatsServer(arguments=["-c", str(config)]) as server:
        asyncio.run(_provision(server.url.replace("nats://", "nats://admin:admin@")))
        yield server


async def _provision(url: str) -> None:
    async with EventBus(url, name="admin") as bus:
        await bus.publish("custom.thing", {})
        await bus.publish("system.dead_letter", {"error": "x"})

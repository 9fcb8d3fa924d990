"""Every type: each of Omni's, from another program and from us, is handled once, on any server."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from nats.aio.client import Client
from pydantic import BaseModel

from omni_worker import App, Event, EventBus, Settings
from omni_worker.nats_server import NatsServer
from omni_worker.payloads import CORE_PAYLOADS

from .processes.support import make_stream
from .transports.servers import oldest
from .waiting import until

# The core types that the oldest of the other programs knows, and what all of them may send.
CORE = [
    type for type in CORE_PAYLOADS
    if type.split(".")[0] in ("message", "reaction", "media", "identity", "instance", "access",
                              "presence", "sync", "batch-job", "profile")
    and type not in ("message.pinned", "message.unpinned", "media.processing.failed",
                     "access.pairing_requested", "access.pairing_approved")
]  # fmt: skip
CUSTOM = ["custom.order", "custom.webhook.github", "custom.webhook.github.push"]
SYSTEM = [
    "system.dead_letter", "system.replay.started", "system.replay.completed",
    "system.health.degraded", "system.health.check",
]  # fmt: skip
DEEP = ["agent.task.completed", "media.processing.failed", "agent.run.cancel_requested"]
TYPES = [*CORE, *CUSTOM, *SYSTEM, *DEEP]
FOREIGN = {
    "REACTION": ("reaction.>",),
    "SYSTEM": ("system.>", "sync.>", "batch-job.>", "presence.>"),
    "PROFILE": ("profile.>",),
    "AGENT": ("agent.>",),
}
USUAL = {"correlationId": "evt-1", "traceId": "t", "source": "omni"}
METADATA: list[dict[str, Any] | None] = [
    USUAL,
    USUAL | {"instanceId": "wa-001", "channelType": "whatsapp-baileys"},
    USUAL | {"instanceId": "wa-001"},  # goes out bare
    USUAL | {"instanceId": "wa.eu.001", "channelType": "discord", "personId": "p"},
    USUAL | {"traceId": "", "ingestMode": "realtime", "timings": {"received": 1},
             "tenantId": "t-1", "envelopeVersion": 1},
    None,
]  # fmt: skip
Sent = dict[str, tuple[str, str, dict[str, Any]]]  # by id: subject, type, payload


def sample(annotation: Any, *, full: bool) -> Any:
    """A value as another program writes it."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(one for one in get_args(annotation) if one is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return payload_of(annotation, full=full)
    origin = get_origin(annotation) or annotation
    if origin is list:
        return [sample(get_args(annotation)[0], full=full)]
    return {str: "olá ✅", int: 5, float: 0.5, bool: True, dict: {"a": [None]}}[origin]


def payload_of(model: type[BaseModel] | None, *, full: bool) -> dict[str, Any]:
    """A payload with what is required, or with everything."""
    if model is None:
        return {"any": {"thing": [1]}} if full else {}
    return {
        str(field.alias): sample(field.annotation, full=full)
        for field in model.model_fields.values()
        if full or field.is_required()
    }


def cases() -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Each type with each payload and each form of metadata."""
    for type in TYPES:
        for full in (False, True):
            payload = payload_of(CORE_PAYLOADS.get(type), full=full)
            for metadata in METADATA:
                yield type, payload, metadata


async def sent_by_another_program(client: Client) -> Sent:
    """Publish as the other programs do: no headers, no schema, the address by the metadata."""
    sent: Sent = {}
    for type, payload, metadata in cases():
        id = str(uuid.uuid4())
        channel, instance = (metadata or {}).get("channelType"), (metadata or {}).get("instanceId")
        subject = f"{type}.{channel}.{instance}" if channel and instance else type
        envelope = {"id": id, "type": type, "payload": payload, "timestamp": 1_769_700_000_000}
        body = json.dumps(envelope | {"metadata": metadata}, ensure_ascii=False).encode()
        await client.publish(subject, body)
        sent[id] = (subject, type, payload)
    await client.flush()
    return sent


async def sent_by_us(url: str) -> Sent:
    """Publish the same by a bus, checked against the schemas."""
    sent: Sent = {}
    async with EventBus(url, name="us") as bus:
        bus.registry.register("system.health.check")
        for type, payload, metadata in cases():
            rest = dict(metadata or {})
            channel = rest.pop("channelType", None)
            instance = rest.pop("instanceId", None) if channel else None
            published = await bus.publish(
                type, payload, channel=channel, instance=instance, metadata=rest
            )
            subject = f"{type}.{channel}.{instance}" if channel else type
            sent[published.id] = (subject, type, payload)
    return sent


def app_of(url: str, *, is_typed: bool) -> tuple[App, list[tuple[str, Event[Any]]]]:
    """An app with a handler for each type, or one for all; and what they were given, with where."""
    app, handled = App("all", settings=Settings(urls=url)), list[tuple[str, Event[Any]]]()

    def declare(pattern: str, durable: str, model: type[BaseModel] | None) -> None:
        @app.on(pattern, durable=durable, start_from="first", schema=model)
        async def handle(event: Event[Any]) -> None:
            handled.append((pattern, event))

    for number, type in enumerate(TYPES if is_typed else [">"]):
        declare(type, f"d{number}", CORE_PAYLOADS.get(type))
    return app, handled


@pytest.fixture
def server(where: str) -> Iterator[NatsServer]:
    with NatsServer() if where == "newest" else oldest() as server:
        yield server


@pytest.fixture
async def client(server: NatsServer) -> AsyncIterator[Client]:
    """A connection of another program, whose streams are there."""
    client = Client()
    await client.connect(server.url)
    for name, subjects in FOREIGN.items():
        await make_stream(client, name, *subjects)
    yield client
    await client.close()


@pytest.mark.parametrize("by_us", [False, True], ids=["theirs", "ours"])
# The oldest server loses events of a consumer with a type and all below it (nats-server#6824): a
# handler of a type has two consumers.
@pytest.mark.parametrize("where", ["newest", "oldest"])
@pytest.mark.parametrize("is_typed", [True, False])
async def test_every_type_payload_and_metadata_is_handled_once(
    server: NatsServer, client: Client, is_typed: bool, by_us: bool
) -> None:
    app, handled = app_of(server.url, is_typed=is_typed)
    async with app.running(start=False):
        pass  # the streams are there before anything is published

    sent = await (sent_by_us(server.url) if by_us else sent_by_another_program(client))
    async with app.running():
        more = await (sent_by_us(server.url) if by_us else sent_by_another_program(client))
        await until(lambda: len(handled) >= len(sent) + len(more), 60, seen=lambda: len(handled))

    sent |= more
    assert len(sent) == 2 * len(TYPES) * 2 * len(METADATA)
    assert Counter(event.id for _, event in handled) == Counter(sent.keys())
    for pattern, event in handled:
        subject, type, payload = sent[event.id]
        address = [event.channel, event.instance] if event.channel else []
        assert (pattern in (type, ">"), event.type, ".".join([type, *address])) == (  # type: ignore[list-item]
            True, type, subject,
        )  # fmt: skip
        given = event.payload
        if isinstance(given, BaseModel):
            given = given.model_dump(by_alias=True, exclude_none=True)
        assert given == payload

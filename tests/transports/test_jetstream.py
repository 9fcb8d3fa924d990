"""The JetStream transport keeps the port's promises, over a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest

from omni_worker.errors import BucketUnavailable, PublishError
from omni_worker.nats_server import LOOPBACK, NatsServer
from omni_worker.settings import Settings
from omni_worker.transports.base import Message, Transport
from omni_worker.transports.jetstream import JetStreamTransport

from ..ports import free_port
from ..waiting import until
from .proxy import Proxy
from .suite import TransportSuite
from .suite.backend import make_stream


class JetStreamBackend:
    """A real server behind a proxy that can break, and the transports connected through it."""

    features = frozenset({"disconnect", "odd bytes", "future start", "pins"})
    tries: int | None = None

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.proxy = Proxy(server.port)
        self.transports: list[JetStreamTransport] = []

    async def __aenter__(self) -> Self:
        await self.proxy.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self.transports:
            await transport.close()
        await self.proxy.cut()

    def settings(self, **given: Any) -> Settings:
        return Settings(
            urls=(given.pop("url", self.proxy.url),),
            reconnect_delay=0.02,
            reconnect_max_delay=0.05,
            reconnect_max_retries=self.tries,
            **given,
        )

    def unopened(self) -> JetStreamTransport:
        return JetStreamTransport(self.settings())

    async def connect(self) -> JetStreamTransport:
        transport = self.unopened()
        await transport.open("suite")
        self.transports.append(transport)
        return transport

    async def beside(self) -> JetStreamTransport:
        transport = JetStreamTransport(self.settings(url=self.server.url))
        await transport.open("beside")
        self.transports.append(transport)
        return transport

    async def store(self, subject: bytes, body: bytes, headers: bytes | None = None) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.server.port)
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
        if headers is None:
            writer.write(b"PUB %b %d\r\n%b\r\n" % (subject, len(body), body))
        else:
            size = len(headers) + len(body)
            writer.write(
                b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, len(headers), size, headers, body)
            )
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"PONG\r\n"
        writer.close()
        await writer.wait_closed()

    async def delete_stream(self, name: str) -> None:
        transport = await self.beside()
        await transport._api.ask(f"STREAM.DELETE.{name}")

    async def disconnect(self) -> None:
        await self.proxy.cut()

    async def reconnect(self) -> None:
        await self.proxy.mend()

    async def give_up(self, transport: Transport) -> None:
        """Its tries run out by themselves while the proxy refuses."""

    def drop_answers(self, transport: Transport, count: int) -> None:
        raise NotImplementedError


class TestJetStream(TransportSuite):
    """All of the suite."""

    @pytest.fixture
    async def backend(self, nats_server: NatsServer) -> AsyncIterator[JetStreamBackend]:
        async with JetStreamBackend(nats_server) as backend:
            yield backend


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_bytes": 10}, "the bucket notes is full: raise the limits of its stream KV_notes"),
        ({"sealed": True}, "the bucket notes is sealed: delete its stream KV_notes"),
    ],
)
async def test_a_bucket_says_what_to_do_when_it_takes_no_writes(
    nats_server: NatsServer, change: dict[str, Any], says: str
) -> None:
    async with JetStreamBackend(nats_server) as backend:
        transport = await backend.connect()
        bucket = await transport.bucket("notes", ttl=60)
        await bucket.put("key", b"value")
        info = await transport.operators.stream_info("KV_notes")
        assert info is not None

        await transport.operators.update_stream({**info.config.raw, **change})

        with pytest.raises(BucketUnavailable, match=says):
            await bucket.create("other", b"value")


async def test_a_missing_bucket_is_not_created_without_provisioning(
    nats_server: NatsServer,
) -> None:
    async with JetStreamBackend(nats_server) as backend:
        transport = JetStreamTransport(backend.settings(provision="off"))
        await transport.open("suite")
        backend.transports.append(transport)
        bucket = await transport.bucket("notes", ttl=60)

        with pytest.raises(BucketUnavailable, match="missing, and provisioning is off"):
            await bucket.create("key", b"value")


async def test_a_server_that_was_killed_comes_back_with_another_identity(
    nats_server: NatsServer,
) -> None:
    async with JetStreamBackend(nats_server) as backend:
        transport = await backend.beside()
        before = transport.server_id

        nats_server.kill()
        nats_server.start()
        await until(lambda: transport.is_connected and transport.server_id != before)

        assert transport.server_id


async def test_an_updated_consumer_has_the_creation_it_was_created_with_after_a_restart_too(
    tmp_path: Path,
) -> None:
    """The server's answer to an update has another one then."""
    config = {"durable_name": "c", "name": "c", "ack_policy": "explicit", "filter_subject": "s.x"}
    with NatsServer(port=free_port(), store=tmp_path) as server:
        transport = await JetStreamBackend(server).beside()
        operators = transport.operators
        await operators.create_stream({"name": "S", "subjects": ["s.>"]})
        created = await operators.create_consumer("S", config)
        server.kill()
        await until(lambda: not transport.is_connected)
        server.start()
        await until(lambda: transport.is_connected)

        updated = await operators.update_consumer("S", {**config, "max_ack_pending": 7})

        assert updated.config.max_ack_pending == 7
        assert updated.created == created.created
        await transport.close()


async def test_a_batch_may_be_stored_if_the_link_breaks_before_the_answer_to_its_commit(
    nats_server: NatsServer,
) -> None:
    async with JetStreamBackend(nats_server) as backend:
        transport, other = await backend.connect(), await backend.beside()
        await make_stream(other, allow_atomic=True)
        ask = transport._requests.ask_once

        async def deaf(*what: Any, headers: bytes, accept: Any, **others: Any) -> Any:
            hears = (lambda _: False) if b"Nats-Batch-Commit" in headers else accept
            return await ask(*what, headers=headers, accept=hears, **others)

        async def is_stored() -> bool:
            info = await other.operators.stream_info("S")
            return info is not None and info.state.messages == 2

        transport._requests.ask_once = deaf  # type: ignore[method-assign]
        messages = [Message("s.a", b"", ""), Message("s.b", b"", "")]
        batch = asyncio.create_task(transport.publish_atomic(messages, timeout=10))
        await until(is_stored)
        await backend.disconnect()

        with pytest.raises(PublishError, match="the connection broke; the batch may or may not"):
            await batch
        await backend.reconnect()

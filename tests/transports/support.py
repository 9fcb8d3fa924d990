"""Support for the JetStream adapter's tests: receivers that record, servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from omni_worker.nats_server import LOOPBACK, NatsServer
from omni_worker.settings import Settings
from omni_worker.transports.base import Delivery, Message, Source
from omni_worker.transports.infos import ConsumerInfo
from omni_worker.transports.jetstream import JetStreamTransport

from ..waiting import until

STREAM = "EVENTS"
CONSUMER = "reader"


# --- ours -----------------------------------------------------------------------------------


def settings(*urls: str, **options: Any) -> Settings:
    """Settings that try again quickly."""
    quick: dict[str, Any] = {
        "reconnect_delay": 0.05, "reconnect_max_delay": 0.1, "reconnect_max_retries": 100,
        "connect_timeout": 3.0,
    }  # fmt: skip
    return Settings(urls=urls, **(quick | options))


@asynccontextmanager
async def connected(*urls: str, **options: Any) -> AsyncIterator[JetStreamTransport]:
    """A transport that is open."""
    transport = JetStreamTransport(settings(*urls, **options))
    await transport.open("tests")
    try:
        yield transport
    finally:
        await transport.close()


class Reader:
    """A Receiver that keeps `credit` deliveries asked for, acks each, and remembers everything."""

    def __init__(self, credit: int = 100) -> None:
        self.credit = credit
        self.deliveries: list[Delivery] = []
        self.resumptions = 0
        self.replenishments = 0
        self.cause: Exception | None = None

    def receive(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        delivery.ack()
        self.replenish(delivery.source)

    def replenish(self, source: Source) -> None:
        self.replenishments += 1
        source.request(self.credit - source.outstanding)

    def resumed(self, source: Source) -> None:
        self.resumptions += 1
        source.request(self.credit - source.outstanding)

    def lost(self, source: Source, cause: Exception) -> None:
        self.cause = cause

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    @property
    def sequences(self) -> list[int]:
        return [delivery.sequence for delivery in self.deliveries]


async def make_stream(
    transport: JetStreamTransport, *subjects: str, name: str = STREAM, **config: Any
) -> None:
    """A stream over these subjects (default `events.>`)."""
    await transport.operators.create_stream(
        {"name": name, "subjects": list(subjects or ("events.>",)), **config}
    )


async def make_consumer(transport: JetStreamTransport, **config: Any) -> None:
    """A durable consumer of everything in the stream."""
    await transport.operators.create_consumer(
        STREAM,
        {"name": CONSUMER, "durable_name": CONSUMER, "ack_policy": "explicit", **config},
    )


async def read(transport: JetStreamTransport, reader: Reader) -> Source:
    """Read the consumer, with the reader's whole credit asked for."""
    source = await transport.consume(STREAM, CONSUMER, reader)
    source.request(reader.credit)
    return source


async def consumer_info(transport: JetStreamTransport) -> ConsumerInfo:
    """What the server says of the consumer."""
    info = await transport.operators.consumer_info(STREAM, CONSUMER)
    assert info is not None
    return info


async def parked(transport: JetStreamTransport) -> None:
    """Wait until a request waits at the consumer: one still on its way vanishes with it."""
    async with asyncio.timeout(10):
        while True:
            if (await consumer_info(transport)).num_waiting:
                return


async def stored(transport: JetStreamTransport) -> int:
    """How many messages the stream holds."""
    info = await transport.operators.stream_info(STREAM)
    assert info is not None
    return info.state.messages


def message(body: bytes = b"{}", *, id: str = "1", subject: str = "events.one") -> Message:
    """A message on its way out."""
    return Message(subject, body, id)


# --- real servers ---------------------------------------------------------------------------


def configured(folder: Path, config: str, *arguments: str, port: int = -1) -> NatsServer:
    """A nats-server with this configuration file, not started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "server.conf"
    path.write_text(config)
    return NatsServer(port=port, store=folder / "store", arguments=["-c", str(path), *arguments])


def pause(server: NatsServer) -> None:
    """Stop a server in its tracks (SIGSTOP), and see that it did."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    os.waitpid(server.process.pid, os.WUNTRACED)


def resume(server: NatsServer) -> None:
    """Let a paused server go on."""
    assert server.process is not None
    server.process.send_signal(signal.SIGCONT)


async def raw(url: str, data: bytes, options: bytes = b"{}") -> bytes:
    """Send bytes to a server as they are, behind a CONNECT; returns all it said."""
    host, _, port = url.removeprefix("nats://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"CONNECT %b\r\n%bPING\r\n" % (options, data))
    said = await reader.readuntil(b"PONG\r\n")
    writer.close()
    await writer.wait_closed()
    return said


# --- servers that misbehave -----------------------------------------------------------------


class FakeServer:
    """A server of our own making on loopback. Subclasses override what it says to a line.

    It greets, answers PING, and records every byte it was sent and every connection it took.
    """

    info: dict[str, Any] = {  # noqa: RUF012  # a template, copied per server
        "server_id": "FAKE", "version": "2.11.3", "proto": 1, "headers": True,
        "max_payload": 1_048_576,
    }  # fmt: skip

    def __init__(self, **info: Any) -> None:
        self.info = {**type(self).info, **info}
        self.received = b""
        self.connections = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await until(lambda: not self._writers)

    def greet(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO %b\r\n" % json.dumps(self.info).encode())

    def answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        if line == b"PING\r\n":
            writer.write(b"PONG\r\n")

    def say(self, data: bytes) -> None:
        """To everybody who is connected."""
        for writer in self._writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            self.greet(writer)
            while line := await reader.readline():
                self.received += line
                self.answer(line, writer)
        except (ConnectionError, ValueError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


class Proxy:
    """Loopback TCP to a server: counts connections, can break them, lose frames and answers."""

    def __init__(self, server: NatsServer) -> None:
        self._target = server
        self.port = 0
        self.connections = 0
        self.drop: Callable[[bytes], bool] = lambda line: False  # by the frame's first line
        self.deaf = False  # nothing the server says arrives
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await until(lambda: not self._writers)

    def cut(self) -> None:
        """Break every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        back, forth = None, None
        try:
            back, forth = await asyncio.open_connection(LOOPBACK, self._target.port)
            down = asyncio.create_task(self._down(back, writer))
            try:
                await self._up(reader, forth)
            finally:
                down.cancel()
                await asyncio.gather(down, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, forth):
                if end is not None:
                    end.transport.abort()
            self._writers.discard(writer)

    async def _up(self, reader: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            frame = line
            if line.startswith((b"PUB ", b"HPUB ")):
                frame += await reader.readexactly(int(line.split()[-1]) + 2)
            if not self.drop(line):
                forth.write(frame)
                await forth.drain()

    async def _down(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await back.read(65_536):
            if not self.deaf:
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


def permissions(publish: Sequence[str] = (), subscribe: Sequence[str] = ()) -> str:
    """A configuration with one user, `worker`/`secret`, who is denied these subjects."""
    return json.dumps(
        {
            "authorization": {
                "users": [
                    {
                        "user": "worker",
                        "password": "secret",
                        "permissions": {
                            "publish": {"allow": ">", "deny": list(publish)},
                            "subscribe": {"allow": ">", "deny": list(subscribe)},
                        },
                    }
                ]
            }
        }
    )

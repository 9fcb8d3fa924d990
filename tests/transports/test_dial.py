"""A name with several addresses connects to the first that answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from omni_worker.transports.jetstream.dial import dial

SILENT, ANSWERING = "127.0.0.2", "127.0.0.1"


@contextmanager
def deaf(port: int) -> Iterator[None]:
    """An address that drops packets: its queue of connections is full, and nobody accepts."""
    with socket.socket() as listening:
        listening.bind((SILENT, port))
        listening.listen(0)
        waiting: list[socket.socket] = []
        try:
            while True:
                one = socket.socket()
                waiting.append(one)
                one.settimeout(0.2)
                one.connect((SILENT, port))
        except TimeoutError:
            yield
        finally:
            for one in waiting:
                one.close()


@asynccontextmanager
async def answering(accepted: list[asyncio.StreamWriter]) -> AsyncIterator[int]:
    server = await asyncio.start_server(
        lambda _, writer: accepted.append(writer), ANSWERING, 0, reuse_address=True
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in accepted:
            writer.close()


def name(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every host name have these addresses."""

    async def resolved(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)


async def test_an_address_that_drops_packets_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted: list[asyncio.StreamWriter] = []
    async with answering(accepted) as port:
        with deaf(port):
            name(monkeypatch, SILENT, ANSWERING)

            _, writer = await dial("nats.example.org", port, limit=1_024, timeout=2.0)

            assert writer.get_extra_info("peername")[0] == ANSWERING
            writer.close()


async def test_an_address_that_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[asyncio.StreamWriter] = []
    async with answering(accepted) as port:
        name(monkeypatch, SILENT, ANSWERING)

        _, writer = await dial("nats.example.org", port, limit=1_024, timeout=2.0)

        assert writer.get_extra_info("peername")[0] == ANSWERING
        writer.close()


async def test_when_every_address_refuses_the_cause_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind((SILENT, 0))  # not listening: it refuses
        port = taken.getsockname()[1]
        name(monkeypatch, SILENT, "127.0.0.3")

        with pytest.raises(ConnectionRefusedError):
            await dial("nats.example.org", port, limit=1_024, timeout=2.0)


async def test_when_no_address_answers_the_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind((SILENT, 0))
        port = free.getsockname()[1]
    with deaf(port):
        name(monkeypatch, SILENT, SILENT + "1")  # 127.0.0.21 refuses

        with pytest.raises(TimeoutError):
            await dial("nats.example.org", port, limit=1_024, timeout=0.6)

"""Tcp: the socket of a connection, and what takes its bytes before and after the login."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from nats import errors
from nats.aio.transport import TcpTransport

from ...forks import let_go_in_forks
from .dial import dial

READ_SIZE = 262_144  # bytes
PONG = b"PONG\r\n"


class ConnectionLost(errors.Error):
    """Connection ended; the text is the server's or the system's reason."""


class TcpWire(TcpTransport):
    """nats-py's TCP transport, except that a login is read with care and letting go is ours.

    nats-py's own close waits for a peer that hangs; nothing here calls it.
    """

    _introduced = False  # whether the server's first INFO is read

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        let_go_in_forks(self, TcpWire.descriptors)

    def descriptors(self) -> list[int]:
        """Descriptor of the socket; a child that keeps it keeps a dead worker's pulls."""
        if self._io_writer is None or self.is_closing():
            return []
        return [self._io_writer.get_extra_info("socket").fileno()]

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: float) -> None:
        await self._dial(uri.hostname, uri.port, connect_timeout)

    async def _dial(self, host: str, port: int, timeout: float) -> None:
        # nats-py tries one address after the other, all within one timeout.
        streams = await dial(host, port, limit=READ_SIZE, timeout=timeout)
        self._bare_io_reader, self._bare_io_writer = streams
        self._io_reader, self._io_writer = streams

    def __bool__(self) -> bool:
        return True  # nats-py puts a transport of its own in the place of a falsy one

    async def readline(self) -> bytes:
        """Read the next line of the handshake; nats-py accepts anything but -ERR as success."""
        while True:
            line = bytes(await super().readline())  # type: ignore[no-untyped-call]
            if not line:
                raise ConnectionLost("the server closed the connection while we logged in")
            if line.startswith(b"-ERR"):
                raise ConnectionLost(error_text(line))
            if line.startswith(b"PING"):
                self.write(PONG)  # type: ignore[no-untyped-call]
            elif self._introduced and line.startswith(b"INFO"):
                continue  # the cluster changed; the next INFO says so too
            else:
                self._introduced = True
                return line

    async def hand_over(self, reading: Reading) -> bytes:
        """Send incoming data to ``reading`` from now on; return the data that is here already."""
        assert self._io_reader is not None
        assert self._io_writer is not None
        reading.before = self._read_by(reading)
        if self._io_reader.at_eof():
            reading.eof_received()
            return b""
        self._io_reader.feed_eof()
        return bytes(await self._io_reader.read())

    def _read_by(self, reading: asyncio.Protocol) -> asyncio.BaseProtocol:
        """Let ``reading`` take what arrives; return the protocol that took it before."""
        assert self._io_writer is not None
        transport = self._io_writer.transport
        before = transport.get_protocol()
        transport.set_protocol(reading)
        return before

    def is_closing(self) -> bool:
        return self._io_writer is None or self._io_writer.transport.is_closing()

    async def finish(self) -> None:
        """Close in order: written data reaches the operating system first."""
        if self._io_writer is not None:
            self._io_writer.close()
            await self._io_writer.wait_closed()

    def is_encrypted(self) -> bool:
        writer = self._io_writer
        return writer is not None and writer.get_extra_info("ssl_object") is not None

    def abort(self) -> None:
        for writer in {self._io_writer, self._bare_io_writer} - {None}:
            if writer is not None:
                with contextlib.suppress(Exception):
                    writer.transport.abort()


class Reading(asyncio.Protocol):
    """Protocol that hands everything from the socket to the parser at once.

    A stream and a task in between copy every byte twice more and wake the loop once more.
    """

    before: asyncio.BaseProtocol | None = None  # asked by tasks that wait for the end of writing

    def __init__(
        self, on_data: Callable[[bytes], None], on_end: Callable[[Exception | None], None]
    ) -> None:
        self._on_data = on_data
        self._on_end = on_end

    def data_received(self, data: bytes) -> None:
        self._on_data(data)

    def eof_received(self) -> None:
        self._on_end(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self.before is not None:
            self.before.connection_lost(error)
        self._on_end(error)


def error_text(line: bytes) -> str:
    return line[4:].decode("utf-8", "replace").strip(" '\r\n")

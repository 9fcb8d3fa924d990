"""WebSocket: the server's bytes in binary frames, for `ws://` and `wss://` (`omni-worker[ws]`).

The connection below is that of `tcp`, so that a name's addresses, TLS and forks are handled
alike; the library only makes and reads frames. Only this file imports websockets.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import WebSocketURI

from ...errors import ConnectError
from ...urls import is_encrypted_web
from .tcp import ConnectionLost, TcpWire

MAX_FRAME = 65_536  # bytes; servers and proxies on the way refuse frames above a size of their own
DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)
NORMAL_CLOSURE = 1000
CLOSED = "the server closed the connection during the handshake"

# The library logs each frame at DEBUG: the password in CONNECT, and people's messages. This logger
# is not in the tree of loggers, so that no configuration turns it on.
_silent = logging.Logger("omni_worker.transport.web_socket", level=logging.CRITICAL + 1)


class WebSocketWire(TcpWire):
    """Wire whose bytes are the content of frames. TLS is below the frames, never inside."""

    def __init__(self, tls_name: str | None) -> None:
        super().__init__()
        self._tls_name = tls_name
        self._frames: Frames | None = None

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: float) -> None:
        """Connect without TLS."""
        async with asyncio.timeout(connect_timeout):
            await self._dial(uri.hostname, _port(uri), connect_timeout)
            await self._upgrade(uri)

    async def connect_tls(
        self, uri: Any, ssl_context: Any, buffer_size: int, connect_timeout: Any
    ) -> None:
        """Connect with TLS. nats-py asks again when INFO says so: the frames are encrypted then."""
        if self._frames is not None:
            return
        async with asyncio.timeout(connect_timeout):
            await self._dial(uri.hostname, _port(uri), connect_timeout)
            name = self._tls_name or uri.hostname
            await super().connect_tls(name, ssl_context, buffer_size, connect_timeout)
            await self._upgrade(uri)

    def write(self, data: bytes) -> None:
        if self._frames is not None:
            self._frames.send(data)

    async def finish(self) -> None:
        if self._frames is not None:
            self._frames.send_close()
        await super().finish()

    def _read_by(self, reading: asyncio.Protocol) -> asyncio.BaseProtocol:
        assert self._frames is not None
        before, self._frames.inner = self._frames.inner, reading
        return before

    async def _upgrade(self, uri: Any) -> None:
        assert self._io_reader is not None
        assert self._io_writer is not None
        transport = self._io_writer.transport
        where = WebSocketURI(uri.scheme == "wss", uri.hostname, _port(uri), uri.path, "")
        inner = transport.get_protocol()
        if not isinstance(inner, asyncio.Protocol):  # broken since, as by a missing certificate
            raise self._io_reader.exception() or ConnectionLost(CLOSED)
        self._frames = Frames(where, inner, transport)
        transport.set_protocol(self._frames)
        await self._frames.opened


class Frames(asyncio.Protocol):
    """Protocol between the socket and the reader of a connection: opens frames and makes them."""

    def __init__(
        self, uri: WebSocketURI, inner: asyncio.Protocol, transport: asyncio.WriteTransport
    ) -> None:
        self.inner = inner  # gets the content
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._answer = b""  # to the handshake
        # Sizes are bounded by the parser, and the server's max_payload.
        self._protocol = ClientProtocol(uri, max_size=None, logger=_silent)
        self._protocol.send_request(self._protocol.connect())
        self._write_out()

    def send(self, data: bytes) -> None:
        """Write bytes in as many frames as they need; after a close they go nowhere."""
        if self._protocol.state is not State.OPEN:
            return
        for start in range(0, len(data), MAX_FRAME):
            self._protocol.send_binary(data[start : start + MAX_FRAME])
        self._write_out()

    def send_close(self) -> None:
        """Say that we close in good order."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(NORMAL_CLOSURE)
            self._write_out()

    # --- what the event loop calls ---------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self._answer += data
        self._protocol.receive_data(data)
        self._write_out()  # the answer to a ping or a close
        self._take_events()

    def eof_received(self) -> None:
        if not self.opened.done():
            self._refuse(ConnectionLost(CLOSED))
        self.inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._refuse(error or ConnectionLost("the server closed the connection"))
        self.inner.connection_lost(error)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    # --- helpers ---------------------------------------------------------------------------

    def _take_events(self) -> None:
        if not self.opened.done():
            self._check_answer()
        frames = [one for one in self._protocol.events_received() if isinstance(one, Frame)]
        # The library's frames hold bytearrays, and the parser needs bytes.
        content = b"".join(frame.data for frame in frames if frame.opcode in DATA)
        if content:
            self.inner.data_received(content)
        broken, closed = self._protocol.parser_exc, self._protocol.close_rcvd
        if broken is not None:
            self.inner.connection_lost(ConnectionLost(f"not a WebSocket frame: {broken}"))
        elif closed is not None:
            self.inner.connection_lost(ConnectionLost(f"the server closed the WebSocket: {closed}"))

    def _check_answer(self) -> None:
        if (refusal := self._protocol.handshake_exc) is not None:
            self._refuse(_explained(refusal, self._answer))
        elif self._protocol.state is not State.CONNECTING:
            self.opened.set_result(None)

    def _refuse(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # read, in case the wait was given up

    def _write_out(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and not self._transport.is_closing():
            self._transport.write(data)


def _port(uri: Any) -> int:
    return uri.port or (443 if is_encrypted_web(uri.geturl()) else 80)


def _explained(refusal: Exception, answer: bytes) -> Exception:
    """Return what a person can do about a refused handshake."""
    status = answer.split(b"\r\n")[0].decode("ascii", "replace")
    if isinstance(refusal, InvalidStatus) or status.startswith("HTTP/1.0 "):
        hint = "; wss:// if it expects TLS" if " 400 " in status else ""
        text = f"the server answers the WebSocket handshake with {status[:80]!r}{hint}"
    elif isinstance(refusal, InvalidMessage):
        text = "no WebSocket answers there; nats:// is for the server's port for clients"
    else:
        text = f"the server's WebSocket handshake is not valid: {refusal}"
    return ConnectError(text, is_answered=True)

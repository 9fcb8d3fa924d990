"""The nats-py client, with its traps closed. Only this file and `tcp` use private names of nats-py.

nats-py does the handshake (INFO, TLS, CONNECT, authentication) and the pings; reading and writing
are ours. A client lives for one connection: when that is lost, connection makes a new one, so none
of nats-py's own reconnecting is used. The traps it closes are the tests of
`tests/transports/test_traps.py`; the pinned minor version in pyproject.toml belongs to this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from nats import errors
from nats.aio import client as nats_client

from ...urls import is_web
from .parser import Parser, Sink
from .tcp import PONG, ConnectionLost, Reading, TcpWire, error_text

log = logging.getLogger("omni_worker.transport")

PING_INTERVAL = 5.0  # seconds; a server that leaves two pings unanswered is gone after three
PING = b"PING\r\n"


class Client(nats_client.Client):
    """Connection to one server: subscriptions are sinks, writes are joined per loop turn."""

    def __init__(
        self, *, require_tls: bool, on_lost: Callable[[Exception], None],
        on_denied: Callable[[str], None], on_info: Callable[[dict[str, Any]], None],
    ) -> None:  # fmt: skip
        super().__init__()
        self._wire = self._transport = TcpWire()
        self.sinks: dict[bytes, Sink] = {}  # by subscription id, as it is written
        self._parser = Parser(self.sinks, self.on_control)
        self._ps = self._parser  # type: ignore[assignment]
        self._require_tls = require_tls
        self._on_lost = on_lost
        self._on_denied = on_denied
        self._on_info = on_info
        self._out: list[bytes] = []
        self._write_scheduled = False
        self._over = False

    # --- what connection uses --------------------------------------------------------------

    async def start(self, url: str, *, timeout: float, options: Mapping[str, Any]) -> None:
        """Connect once, without retries. Raises the cause itself, within ``timeout`` seconds."""
        if is_web(url):
            from .web_socket import WebSocketWire  # of an extra

            self._wire = self._transport = WebSocketWire(options.get("tls_hostname"))
        connecting = asyncio.ensure_future(
            self.connect(
                servers=[url],
                allow_reconnect=False,
                connect_timeout=timeout,  # type: ignore[arg-type]
                ping_interval=PING_INTERVAL,  # type: ignore[arg-type]
                max_outstanding_pings=2,
                error_cb=_ignore,  # the raised exception has the same text
                **options,
            )
        )
        try:
            # Bounded, because a failing TLS handshake may leave nats-py waiting for ever; and a
            # task of its own, because its wait_for (Python 3.11) may swallow our cancellation.
            done, _ = await asyncio.wait([connecting], timeout=timeout * 2)
            if not done:
                raise TimeoutError
            connecting.result()
        except BaseException:
            connecting.cancel()
            self._wire.abort()
            await asyncio.wait([connecting], timeout=1.0)
            self.abandon()
            raise

    def send(self, data: bytes) -> None:
        """Write soon: all data sent in one turn of the loop goes out in one piece."""
        self._out.append(data)
        if not self._write_scheduled:
            self._write_scheduled = True
            asyncio.get_running_loop().call_soon(self._write_out)

    def pong(self) -> asyncio.Future[bool]:
        """Barrier: returns when the server has read everything sent before."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        self.send(PING)
        return future

    def info(self) -> dict[str, Any]:
        """INFO of the server."""
        return dict(self._server_info)

    async def finish(self, timeout: float) -> None:
        """Write everything out and close, within ``timeout`` seconds."""
        self._write_out()
        self._over = True
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._wire.finish(), timeout)
        self.abandon()

    def abandon(self) -> None:
        """Drop the socket and the tasks at once, in any state."""
        self._over = True
        self._status = nats_client.Client.CLOSED
        current = asyncio.current_task()
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None and task is not current:
                task.cancel()
        for pong in self._pongs:
            if not pong.done():
                pong.cancel()
        self._wire.abort()

    def lose(self, cause: Exception) -> None:
        """Report to the owner, once, that the connection is unusable."""
        if not self._over:
            self.abandon()
            self._on_lost(cause)

    # --- what nats-py calls ----------------------------------------------------------------

    async def _select_next_server(self) -> None:
        # nats-py tries max_reconnect_attempts + 1 times at a constant wait, the first connect
        # included, and hides the cause. One try here; the budget is connection's.
        server = self._server_pool[0]
        await self._connect_to_server(server)
        self._current_server = server

    def _connect_command(self) -> bytes:
        # A plaintext server silently drops the wish for TLS, and CONNECT carries the password:
        # this is the last moment to refuse.
        if self._require_tls and not self._wire.is_encrypted():
            raise errors.SecureConnWantedError
        return bytes(super()._connect_command())

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self.send(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> None:
        # Nothing waits in nats-py's own queue: see send.
        return None

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # Through the same queue as publishes, or a PING overtakes them and is no barrier.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self.send(PING)

    async def _flusher(self) -> None:
        return None

    async def _read_loop(self) -> None:
        # Called once, after the login: from here on no task reads, see Reading.
        try:
            self._on_data(await self._wire.hand_over(Reading(self._on_data, self._on_end)))
        except Exception as error:  # it broke since the login: only we can report it
            self.lose(error)
        if self._wire.is_closing():
            self._on_end(None)

    def _on_data(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._parser.feed(data)
        except Exception as error:  # nats-py would log, stop reading and stay "connected"
            self.lose(error)

    def _on_end(self, cause: Exception | None) -> None:
        self.lose(cause or ConnectionLost("the server closed the connection"))

    async def _process_op_err(self, e: Exception) -> None:
        stale = isinstance(e, errors.StaleConnectionError)
        self.lose(ConnectionLost("the server does not answer pings") if stale else e)

    # --- what the parser calls -------------------------------------------------------------

    def on_control(self, line: bytes) -> None:
        """Handle every protocol line other than messages."""
        if line.startswith(b"PING"):
            self.send(PONG)
        elif line.startswith(b"PONG"):
            self._on_pong()
        elif line.startswith(b"-ERR"):
            self._on_error(error_text(line))
        elif line.startswith(b"INFO"):
            self._server_info = json.loads(line[4:])
            self._on_info(self._server_info)
        elif not line.startswith(b"+OK"):
            raise errors.ProtocolError

    def _on_pong(self) -> None:
        self._pings_outstanding = 0
        if self._pongs:
            future = self._pongs.pop(0)
            if not future.done():  # its waiter gave up; nats-py's reader dies of this
                future.set_result(True)

    def _on_error(self, text: str) -> None:
        if text.lower().startswith("permissions violation"):
            self._on_denied(text)  # the connection stays
        else:
            self.lose(ConnectionLost(text))

    def _write_out(self) -> None:
        self._write_scheduled = False
        if self._out and not self._over:
            data = b"".join(self._out)
            self._out.clear()
            self._wire.write(data)  # type: ignore[no-untyped-call]


async def _ignore(error: Exception) -> None:
    """Ignore an error: nats-py reports every error twice, and once is enough."""

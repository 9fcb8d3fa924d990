"""HTTP: a process's port, served by threads of their own.

A blocked event loop must be reported as unhealthy, not make clients hang. Clients may be slow or
hostile: the size and the time of a request are limited here; the router gives the answers.
"""

from __future__ import annotations

import http.client
import logging
import socket
import socketserver
import threading
import time
import urllib.parse
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

from ..errors import ConfigError
from ..forks import let_go_in_forks
from ..routes import Answer, Request
from ..tasks import own
from .router import Router, refusal

log = logging.getLogger("omni_worker.http")

IDLE = 5.0  # seconds between two bytes of a client
OVERDUE = 15.0  # seconds one connection may take, answer included
CONNECTIONS = 64  # at a time; one more ends the oldest
MAX_HEAD = 32_768  # bytes of all headers; the request line may have 65 536 of its own
MAX_BODY = 65_536  # bytes
MAX_QUERY = 100  # fields
READ_ONLY = ("GET", "HEAD")


class HttpServer:
    """Serve a router until closed. Raises ConfigError if the port is taken; 0 takes a free one."""

    def __init__(
        self, host: str, port: int, router: Router, *,
        overdue: float = OVERDUE, option: str = "--health-port",
    ) -> None:  # fmt: skip
        try:
            self._server = _Server(host, port, router, overdue)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"{option} {port} on {host}: {error}") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name=own("http"), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """URL of the port."""
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else host
        return f"http://{shown!s}:{port}"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, router: Router, overdue: float) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.router = router
        self._overdue = overdue
        self._begun: dict[socket.socket, float] = {}  # when each open connection was accepted
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)
        let_go_in_forks(self, _Server.descriptors)

    def descriptors(self) -> list[int]:
        """Descriptors of the port and of every open connection."""
        return [self.fileno(), *(one.fileno() for one in list(self._begun))]

    def server_bind(self) -> None:
        # HTTPServer asks DNS for the host's full name here: unused, and it may take long.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._begun) >= CONNECTIONS:
                oldest = next(iter(self._begun))
                del self._begun[oldest]  # at once: its thread may take a while to end
                _cut(oldest)
            self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called ten times a second: end what takes too long, byte by byte or not."""
        due = time.monotonic() - self._overdue
        with self._lock:
            for connection, begun in self._begun.items():
                if begun < due:
                    _cut(connection)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._begun.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Mostly a client that went away; what a route raises never comes this far.
        log.debug("a request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = IDLE

    def setup(self) -> None:
        super().setup()
        self.rfile: BinaryIO = _Head(self.rfile)  # type: ignore[assignment]

    def do_GET(self) -> None:
        answer = self._answer()
        if answer is not None:
            self._send(answer)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def version_string(self) -> str:
        """Value of the header Server."""
        return "omni-worker"

    def log_message(self, format: str, *args: object) -> None:
        """A probe every few seconds is no news."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no HTTP, without repeating it."""
        self.close_connection = True
        self.request_version = "HTTP/1.0"  # else one that was not read is answered without a status
        self._send(refusal(code, self.responses.get(code, ("bad request", ""))[0].lower()))

    def _answer(self) -> Answer | None:
        path, _, query = self.path.partition("?")
        try:
            fields = urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY)
        except ValueError:
            return refusal(400, f"more than {MAX_QUERY} fields in the query")
        body = b""
        if self.command not in READ_ONLY:
            refused = self._refuse_stranger()
            if refused is not None:
                return refused
            length = self.headers.get("Content-Length", "0")
            if not (length.isascii() and length.isdigit()):
                return refusal(411, "expected a Content-Length")
            if len(length) > 9 or int(length) > MAX_BODY:
                return refusal(413, f"a body may have {MAX_BODY} bytes")
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                return None  # the client is gone
        return self.server.router.answer(
            Request(
                method=self.command,
                path=urllib.parse.unquote(path, errors="replace"),
                query=dict(fields),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=body,
            )
        )

    def _refuse_stranger(self) -> Answer | None:
        """A page of another site must not change anything here through a user's browser."""
        if "Transfer-Encoding" in self.headers:
            return refusal(411, "expected a Content-Length")
        origin = self.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != self.headers.get("Host"):
            return refusal(403, "a page of another site asked for this")
        return None

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


class _Head:
    """A request as a file whose head is of limited size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = 65_537 + MAX_HEAD  # the request line has its own limit, in the standard server
        self.read = file.read
        self.close = file.close

    @property
    def closed(self) -> bool:
        return self._file.closed

    def readline(self, limit: int = -1) -> bytes:
        line = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("all headers")  # answered with 431
        return line


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended just now
        connection.shutdown(socket.SHUT_RDWR)

"""Probes: `/healthz` and `/readyz` over HTTP, answered by threads of their own.

A blocked event loop must turn red, not hang whoever asks.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..errors import ConfigError
from ..tasks import own
from .health import Report

OK = 200
FAILING = 503
NO_SUCH_PATH = 404


class Probes:
    """Answers while it is open. Raises ConfigError when the port cannot be had; 0 is a free one."""

    def __init__(self, host: str, port: int, report: Callable[[], Report]) -> None:
        try:
            self._server = _Server(host, port, report)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--health-port {port} on {host}: {error}") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name=own("probes"), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else host
        return f"http://{shown!s}:{port}"

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, report: Callable[[], Report]) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.report = report
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer asks DNS for the host's full name here, which nobody needs and may take long.
        socketserver.TCPServer.server_bind(self)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5.0

    def do_GET(self) -> None:
        report = self.server.report()
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer(report.not_alive, report.facts)
        elif path == "/readyz":
            self._answer(report.why_not_ready, report.facts)
        else:
            self._send(NO_SUCH_PATH, {"paths": ["/healthz", "/readyz"]})

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """A probe every few seconds is no news."""

    def _answer(self, reasons: tuple[str, ...], facts: Any) -> None:
        status = "failing" if reasons else "ok"
        self._send(
            FAILING if reasons else OK, {"status": status, "reasons": list(reasons), **facts}
        )

    def _send(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

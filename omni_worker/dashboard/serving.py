"""Serving: the dashboard as a program of its own, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ConfigError
from ..process.exit_codes import INTERRUPTED
from ..settings import Settings
from ..transports.base import Transport
from . import dashboard
from .access import Access

log = logging.getLogger("omni_worker.dashboard")

PATIENCE = 1  # seconds an open page may hold up the end; a live one would for ever


async def serve(
    transport: Transport,
    settings: Settings,
    access: Access,
    *,
    host: str,
    port: int,
    fd: int | None = None,
    target: str = "",
    told: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve until a signal; ``told`` hears the address. Return the exit code.

    ``fd`` is a socket that listens already, in the place of host and port; ``target`` as in
    `dashboard`.
    """
    app = dashboard(
        transport, access, server=settings.shown_urls, create=settings.provision == "on",
        replicas=settings.replicas, target=target,
    )  # fmt: skip
    import uvicorn

    class Server(uvicorn.Server):
        """A server whose signals are ours."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    listener = _listen(host, port) if fd is None else socket.socket(fileno=fd)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, proxy_headers=False, server_header=False,
        ws="none",  # pages have none
        timeout_graceful_shutdown=PATIENCE,
    )  # fmt: skip
    server = Server(config)
    code = 0

    def stop(ended: int) -> None:
        nonlocal code
        code = ended
        server.should_exit = True

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop, 0)
    loop.add_signal_handler(signal.SIGINT, stop, INTERRUPTED)
    told(address(host, listener.getsockname()[1]))
    try:
        await server.serve(sockets=[listener])
    finally:
        listener.close()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
    return code


def address(host: str, port: int) -> str:
    """Return the URL a person opens."""
    name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--port {port}: {host} cannot be listened on ({error.strerror or error}); --port 0"
            " takes any free one"
        ) from None
    listener.listen(128)
    listener.setblocking(False)
    return listener

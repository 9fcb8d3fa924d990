"""Dev server: the one `dev` uses, its own or a running one or that of NATS_URL."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...errors import ConfigError, TransportError
from ...nats_server import ANY_PORT, LOOPBACK, USUAL_PORT, NatsServer
from ...settings import Settings
from ...urls import server_urls, shown_urls
from ..common_options import EnvFile
from .messages import Messages
from .options import DevOptions

FOLDER = Path(".omni-worker")  # with a store of dev's own in it: PM2's server may run as well


@dataclass(frozen=True, slots=True)
class ServerEnded:
    """Our nats-server ended by itself."""


class DevServer:
    """A server, and the environment with which the children find it."""

    def __init__(self, server: NatsServer | None, url: str | None, lock: IO[str] | None) -> None:
        self._server = server
        self._lock = lock
        self._closing = False
        self._post: Callable[[object], None] | None = None
        # By the session, consumers without a durable keep their name from child to child.
        more = {"OMNI_WORKER_SESSION": f"dev-{secrets.token_hex(3)}", "PYTHONUNBUFFERED": "1"}
        if url is not None:
            more["NATS_URL"] = url
        self._more = more
        self.environment: Mapping[str, str] = {**os.environ, **more}

    def environment_with(self, file: EnvFile) -> Mapping[str, str]:
        """Return the environment with the variables that a file has now."""
        return {**file.read(), **file.real, **self._more}

    def watch(self, post: Callable[[object], None]) -> None:
        """Post ServerEnded when our server ends by itself."""
        self._post = post
        if self._server is not None:
            threading.Thread(target=self._wait, args=(post,), daemon=True).start()

    def start_again(self, messages: Messages) -> None:
        """Start it again after a crash, on the same port, with the same data."""
        if self._server is None or self._closing:
            return
        try:
            self._server.start()
        except TransportError as error:
            messages.warn(f"nats-server ended and does not start again: {error}")
            return
        messages.warn(f"nats-server ended by itself; started again on {self._server.url}")
        assert self._post is not None
        self.watch(self._post)

    def close(self) -> None:
        """Stop our server, if there is one."""
        self._closing = True
        if self._server is not None:
            self._server.stop()
        if self._lock is not None:
            self._lock.close()

    def _wait(self, post: Callable[[object], None]) -> None:
        process = self._server.process if self._server else None
        if process is not None:
            process.wait()
            if not self._closing:
                post(ServerEnded())


def open_server(options: DevOptions, messages: Messages) -> DevServer:
    """Find or start the server, and report which. Raises ConfigError or TransportError."""
    port, ephemeral, given = options.port, options.ephemeral, options.given
    if given.server is not None:
        messages.say(f"using {shown_urls(server_urls(given.server))} (--server)")
        return DevServer(None, given.server, None)
    if os.environ.get("NATS_URL"):
        file = given.env_file
        where = f"NATS_URL in {file.path}" if file and not file.real.get("NATS_URL") else "NATS_URL"
        messages.say(f"using {Settings().shown_urls} ({where})")
        return DevServer(None, None, None)
    running = speaks_nats(port) if port else None
    url = f"nats://{LOOPBACK}:{port}"
    if options.use_running:
        if running is None:
            raise TransportError(f"--use-running: nothing that speaks NATS listens on {url}")
        messages.say(f"using {running} on {url}")
        return DevServer(None, url, None)
    lock = None if ephemeral else _lock()
    server = NatsServer(
        port=port if port and _is_free(port) else ANY_PORT,
        store=None if ephemeral else FOLDER / "dev",
    )
    try:
        server.start()
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    if running is not None:
        messages.warn(
            f"{running} listens on port {port} already: not touched (--use-running uses it)"
        )
    elif port and server.port != port:
        messages.warn(f"port {port} is taken by something that does not speak NATS")
    messages.say(f"nats-server of its own on {server.url}")
    if server.port != USUAL_PORT:
        messages.say(f"in other terminals: export NATS_URL={server.url}")
    kept = f"data in {server.store}, kept between runs; --ephemeral for none"
    messages.say("data is not kept after this run" if ephemeral else kept)
    if lock is not None:
        lock.write(f"{os.getpid()} {server.url}")
        lock.flush()
    return DevServer(server, server.url, lock)


def speaks_nats(port: int) -> str | None:
    """Name and version of what listens there, if it greets as a NATS server does."""
    with suppress(OSError, ValueError), socket.create_connection((LOOPBACK, port), 1.0) as one:
        one.settimeout(1.0)
        with one.makefile("rb") as lines:
            kind, _, rest = lines.readline(65_536).partition(b" ")
        if kind == b"INFO":
            return f"nats-server {json.loads(rest).get('version', '')}".strip()
    return None


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _lock() -> IO[str]:
    """Lock the store: two servers would destroy it. Raises ConfigError naming the other dev."""
    import fcntl

    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    lock = (FOLDER / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        pid, _, url = lock.read().partition(" ")
        lock.close()
        raise ConfigError(
            f"another dev (pid {pid}) runs in this project, on {url}: stop it, use its server"
            f" (NATS_URL={url}) or give this one none to keep (--ephemeral)"
        ) from None
    lock.truncate(0)
    return lock

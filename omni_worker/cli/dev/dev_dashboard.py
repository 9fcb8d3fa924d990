"""Dev dashboard: its port is open at once, its process starts when a browser first comes.

So nothing is spent before it is wanted, neither time at the start nor memory.
"""

from __future__ import annotations

import importlib.util
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ...nats_server import LOOPBACK, die_with_parent
from ..environment import DASHBOARD_FD
from .messages import Messages

PORT = 8787
NEEDS = ("jinja2", "starlette", "uvicorn")
PATIENCE = 3.0  # seconds it may take to end
REST = 2.0  # seconds until one that ended by itself is started again


class DevDashboard:
    """A port on this machine, and the process that serves it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._socket = _listen()
        self._environment: Mapping[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://localhost:{self._socket.getsockname()[1]}"

    def start(self, environment: Mapping[str, str]) -> None:
        """Wait for a browser in the background; its process finds the server by ``environment``."""
        self._environment = environment
        # The process ends with the thread that started it, so this one lives as long as we do.
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """End its process, and free the port."""
        with self._lock:
            self._closed.set()
            process = self._process
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            process.wait()
        self._socket.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                select.select([self._socket], [], [])
                with self._lock:
                    if self._closed.is_set():
                        return
                    self._process = self._spawn()
            except (OSError, ValueError):  # the port was closed
                return
            self._process.wait()
            self._closed.wait(REST)

    def _spawn(self) -> subprocess.Popen[bytes]:
        number = self._socket.fileno()
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "omni_worker", "dashboard", *self._arguments),
                "--allow-actions",
            ],
            env={**self._environment, DASHBOARD_FD: str(number)}, pass_fds=[number],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=die_with_parent(),
        )  # fmt: skip


def open_dashboard(arguments: Sequence[str], messages: Messages) -> DevDashboard | None:
    """Open a dashboard's port, and tell where it is; None if its extra is not installed.

    ``arguments`` are those of the command `dashboard`.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDS):
        return None
    dashboard = DevDashboard(arguments)
    messages.say(f"dashboard on {dashboard.url}")
    return dashboard


def _listen() -> socket.socket:
    """Listen on the usual port, or on a free one if it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, PORT))
    except OSError:
        listener.bind((LOOPBACK, 0))
    listener.listen(64)
    return listener

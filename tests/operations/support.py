"""Support for the operators' commands: call one, sit at a terminal, measure what it needed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from omni_worker.nats_server import LOOPBACK
from tests.cli.support import Said, call, too_wide
from tests.ports import free_port
from tests.processes.support import PROGRAM, clean_environment
from tests.waiting import wait_until

from .forked import call_forked

__all__ = [
    "Measured",
    "Said",
    "Terminal",
    "call",
    "least",
    "lines_of",
    "measure",
    "on_a_terminal",
    "operate",
    "table_of",
    "too_wide",
]  # fmt: skip

PATIENCE = 180.0  # seconds after which a command hangs, on a busy machine as well

# The command as the terminal starts it; the last argument is the file for its peak of memory.
_MEASURED = """
import atexit, pathlib, sys
file = pathlib.Path(sys.argv.pop())
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: file.write_text(status.read_text().partition("VmHWM:")[2].split()[0]))
sys.argv[0] = "omni-worker"
from omni_worker.cli import main
main()
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """How a command ended, and how much memory it needed at most, in MB."""

    said: Said
    peak: float


def operate(url: str, *arguments: str, folder: Path = Path(), **environment: str) -> Said:
    """Run `omni-worker …` against a server; none of its lines may be too wide."""
    said = call_forked(*arguments, folder=folder, NATS_URL=url, **environment)
    if "--json" not in arguments and "--body" not in arguments:
        # A path is one word, and stays whole.
        assert [line for line in too_wide(said.out + said.err) if " " in line.strip()] == []
    return said


def measure(url: str, *arguments: str, folder: Path, **environment: str) -> Measured:
    """The same, with its peak of memory."""
    file = folder / "peak"
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments, str(file)],
        cwd=folder, env=clean_environment() | {"NATS_URL": url} | environment,
        capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False,
    )  # fmt: skip
    said = Said(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    return Measured(said, int(file.read_text()) / 1024)


def least(folder: Path, *arguments: str) -> float:
    """Return the peak of a command that finds no server: what its imports cost, in MB."""
    measured = measure(
        f"nats://{LOOPBACK}:{free_port()}", *arguments or ("status",), folder=folder,
        OMNI_WORKER_RECONNECT_MAX_RETRIES="0",
    )  # fmt: skip
    assert measured.said.code == 1
    return measured.peak


class Terminal:
    """Somebody at a terminal of 80 columns and 24 lines, who has started a command."""

    def __init__(self, url: str, folder: Path, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._process = subprocess.Popen(
            [PROGRAM, *arguments], stdin=slave, stdout=slave, stderr=slave, cwd=folder,
            env=clean_environment() | {"NATS_URL": url, "NO_COLOR": "1"} | environment,
            start_new_session=True, preexec_fn=_take_the_terminal,
        )  # fmt: skip
        os.close(slave)
        self._shown = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def shown(self) -> str:
        """Everything that was written to the terminal so far."""
        return self._shown.decode(errors="replace").replace("\r\n", "\n")

    def until(self, text: str, timeout: float = 30.0) -> None:
        """Wait until this is shown."""
        wait_until(
            lambda: text in self.shown or not self._read(),
            timeout,
            what=repr(text),
            seen=lambda: self.shown,
        )
        assert text in self.shown, f"{text!r} was not shown when it ended: {self.shown!r}"

    def type(self, keys: str) -> None:
        """Press these keys; \\x03 is Ctrl-C."""
        os.write(self._master, keys.encode())

    def ended(self, timeout: float = 30.0) -> int:
        """Wait for its end; returns its exit code."""
        wait_until(lambda: not self._read(), timeout, what="its end", seen=lambda: self.shown)
        return self._process.wait(timeout)

    def _read(self) -> bool:
        """Take what was written meanwhile; says whether more may come."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            piece = os.read(self._master, 65_536)
        except OSError:  # Linux's word for: nobody writes any more
            return False
        self._shown += piece
        return bool(piece)


def _take_the_terminal() -> None:
    """Ctrl-C in a terminal goes to whom it belongs to."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_a_terminal(url: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command to its end at a terminal; its exit code, and what was shown."""
    with Terminal(url, folder, *arguments) as terminal:
        return terminal.ended(), terminal.shown


def lines_of(said: Said) -> list[dict[str, Any]]:
    """What `--json` printed, one object a line."""
    return [json.loads(line) for line in said.out.splitlines()]


def table_of(said: Said) -> list[list[str]]:
    """The cells of the table that was printed, without its head."""
    rows = [line for line in said.out.split("\n\n")[0].splitlines()]
    return [[cell for cell in row.split("  ") if cell.strip()] for row in rows[1:]]

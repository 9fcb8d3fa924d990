"""Processes: starts the measured ones, and sees what they, the server and others cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from omni_worker.nats_server import die_with_parent

from .jobs import Figures, Job, to_json

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / "peers" / ".venv" / "bin" / "python"
PATIENCE = 180.0  # seconds for a run that lasts 10 on a machine that has nothing else to do
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Failed(Exception):
    """A measured process ended with an error, or handled another number than was published."""


def interpreter() -> str:
    """The peers' Python for everybody, so that all have the same libraries; else our own."""
    return str(PEERS) if PEERS.exists() else sys.executable


@dataclass(frozen=True, slots=True)
class Code:
    """The code that a measured process runs: a folder with both packages, and its interpreter."""

    folder: Path
    python: str


_measured: ContextVar[Code | None] = ContextVar("measured", default=None)


@contextmanager
def running(code: Code) -> Iterator[None]:
    """Run this code in the processes that are started meanwhile, not that of this folder."""
    token = _measured.set(code)
    try:
        yield
    finally:
        _measured.reset(token)


def measured_code() -> Code:
    """The code that a process started now runs."""
    return _measured.get() or Code(ROOT, interpreter())


def command(job: Job) -> list[str]:
    """How a measured process is started."""
    return [measured_code().python, "-m", "benchmarks.systems", to_json(job)]


class Measured:
    """One measured process. Leaving it ends it, whatever it does, and so does ``PATIENCE``."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed in __exit__
        self.process = subprocess.Popen(
            command(job),
            cwd=measured_code().folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            preexec_fn=die_with_parent(),
        )
        self._patience = threading.Timer(PATIENCE, self.process.kill)
        self._patience.daemon = True
        self._patience.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patience.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._said):
            if pipe is not None:
                pipe.close()

    def ready(self) -> None:
        """Wait until it is."""
        if self._line() != "ready":
            raise self._failure()

    def tell(self) -> None:
        """The word it waits for: to begin, later to end."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def figures(self) -> Figures:
        """Wait for its figures and its end."""
        line = self._line()
        if not line.startswith("{") or self.process.wait() != 0:
            raise self._failure()
        figures: Figures = json.loads(line)
        return figures

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def _failure(self) -> Failed:
        self.process.kill()
        self.process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        words = said[-1:]  # of a traceback what was raised: results name no path of a machine
        if self._patience.finished.is_set():
            words.insert(0, f"no answer within {PATIENCE:.0f} s")
        return Failed(f"{self.job.system} {self.job.work}: {'; '.join(words)}")


def cpu_of(pid: int) -> float:
    """CPU seconds a process has used; 0.0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def cpu_of_machine() -> float:
    """CPU seconds everybody has used; 0.0 where /proc does not tell."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICK

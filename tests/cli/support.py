"""Support for the command line's tests: call it, and read what it printed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from omni_worker.listeners.text import columns_of
from tests.processes.support import PROGRAM, clean_environment

WIDTH = 80


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """What it complained of, as one line again."""
        return " ".join(self.err.split())


def call(*arguments: str, folder: Path, typed: str = "", **environment: str) -> Said:
    """Run `omni-worker …` in ``folder`` to its end, with ``typed`` on its standard input."""
    ended = subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=clean_environment() | environment,
        input=typed.encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    return Said(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def too_wide(text: str) -> list[str]:
    """The lines that do not fit a terminal."""
    return [line for line in text.splitlines() if sum(map(columns_of, line)) > WIDTH]

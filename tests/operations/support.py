"""Support for the operators' commands: call one, and measure what it needed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.support import Said, call, too_wide
from tests.processes.support import clean_environment

__all__ = ["Measured", "Said", "call", "lines_of", "measure", "operate", "table_of", "too_wide"]

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
    said = call(*arguments, folder=folder, NATS_URL=url, **environment)
    if "--json" not in arguments and "--body" not in arguments:
        # A path is one word, and stays whole.
        assert [line for line in too_wide(said.out + said.err) if " " in line.strip()] == []
    return said


def measure(url: str, *arguments: str, folder: Path) -> Measured:
    """The same, with its peak of memory."""
    file = folder / "peak"
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments, str(file)],
        cwd=folder, env=clean_environment() | {"NATS_URL": url}, capture_output=True,
        stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    said = Said(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    return Measured(said, int(file.read_text()) / 1024)


def lines_of(said: Said) -> list[dict[str, Any]]:
    """What `--json` printed, one object a line."""
    return [json.loads(line) for line in said.out.splitlines()]


def table_of(said: Said) -> list[list[str]]:
    """The cells of the table that was printed, without its head."""
    rows = [line for line in said.out.split("\n\n")[0].splitlines()]
    return [[cell for cell in row.split("  ") if cell.strip()] for row in rows[1:]]

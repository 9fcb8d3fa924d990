"""The C client: makes the consumer, then becomes the program built from peers/client.c."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ..jobs import Figures, Job
from ..loads import pulled_at_once, stream_of
from .nats_py import connected, make_consumer

_PEERS = Path(__file__).parent.parent / "peers"
SOURCE = _PEERS / "client.c"
BINARY = _PEERS / ".build" / "client"


def build() -> str | None:
    """Compile it when that was not done yet; else why it cannot be had, and what helps."""
    if BINARY.exists() and BINARY.stat().st_mtime > SOURCE.stat().st_mtime:
        return None
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return "no C compiler: apt install gcc libnats-dev"
    BINARY.parent.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-o", str(BINARY), str(SOURCE), "-lnats", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode == 0:
        return None
    missing = "nats/nats.h" in built.stderr or "-lnats" in built.stderr
    return "no libnats: apt install libnats-dev" if missing else built.stderr.splitlines()[0]


async def drain(job: Job) -> Figures:
    """Does not return: the process goes on as the C program, which prints the figures."""
    async with connected(job) as client:
        await make_consumer(client, job)
    load = job.load
    figures = (str(load.events), str(pulled_at_once(load)))
    os.execv(BINARY, ["client", job.url, stream_of(load), job.durable, *figures])

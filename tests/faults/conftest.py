"""Fixtures of the fault tests: a scene with a server of its own, and the table at the end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from omni_worker.nats_server import NatsServer

from ..ports import free_port
from .accounts import Row, table
from .scene import Scene

_ROWS: list[Row] = []


@pytest.fixture
def rows() -> list[Row]:
    """The table's rows so far; a scenario adds its own."""
    return _ROWS


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """One whose data stays when it is killed."""
    with NatsServer(port=free_port(), store=tmp_path / "store") as server:
        yield server


@pytest.fixture
async def scene(tmp_path: Path, nats_server: NatsServer, rows: list[Row]) -> AsyncIterator[Scene]:
    """A publisher and a stage on that server."""
    async with Scene(tmp_path, nats_server, rows) as scene:
        yield scene


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table: every scenario with its account. FAULTS_TABLE names a file for it too."""
    if not _ROWS:
        return
    text = table(_ROWS)
    terminalreporter.section("faults: where every event ended")
    terminalreporter.write_line(text)
    if where := os.environ.get("FAULTS_TABLE"):
        Path(where).write_text(text + "\n")

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

ROW = "a row of the table of faults"


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> Iterator[list[Row]]:
    """The test's rows of the table; they reach its end with the test's report."""
    rows: list[Row] = []
    yield rows
    request.node.user_properties += [(ROW, row.cells) for row in rows]


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
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    rows = [
        cells
        for report in sorted(reports, key=lambda report: getattr(report, "nodeid", ""))
        if getattr(report, "when", "") == "teardown"
        for name, cells in report.user_properties
        if name == ROW
    ]
    if not rows:
        return
    text = table(rows)
    terminalreporter.section("faults: where every event ended")
    terminalreporter.write_line(text)
    if where := os.environ.get("FAULTS_TABLE"):
        Path(where).write_text(text + "\n")

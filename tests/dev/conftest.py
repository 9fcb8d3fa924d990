"""Fixtures of the tests of dev mode: a project, and a server that stands beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from omni_worker import EventBus
from omni_worker.nats_server import NatsServer

from ..processes.support import Stage
from .support import Project


@pytest.fixture
def project(tmp_path: Path, nats_server: NatsServer) -> Iterator[Project]:
    """Where this test's app lives; whatever still runs at the end is stopped, before the server."""
    project = Project(Stage(tmp_path, ""))
    yield project
    for dev in project.devs:
        dev.end()
        print(f"--- dev said:\n{dev.said()[-8_000:]}")  # noqa: T201 - shown when a test fails


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[EventBus]:
    """Another program on the server."""
    async with EventBus(nats_server.url, name="publisher") as bus:
        yield bus

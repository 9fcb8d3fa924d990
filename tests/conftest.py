"""Fixtures every test may use: a real nats-server for the run, a clean one for a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omni_worker.server import NatsServer


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A real nats-server of this test's own: nothing another test left behind is on it."""
    with NatsServer() as server:
        yield server

"""Fixtures of the process tests: a stage on which workers play, cleared at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from omni_worker.nats_server import NatsServer

from .support import Stage, plain_client


@pytest.fixture
def stage(tmp_path: Path, nats_server: NatsServer) -> Iterator[Stage]:
    """Stage of this test's workers; those that still run at the end are killed."""
    with Stage(tmp_path, nats_server.url) as stage:
        yield stage


@pytest.fixture
async def plain(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A plain nats-py client: a program that knows nothing of omni-worker."""
    client = await plain_client(nats_server.url)
    yield client
    await client.close()


@pytest.fixture
def jetstream(plain: Client) -> JetStreamContext:
    """JetStream of the plain client."""
    return plain.jetstream()

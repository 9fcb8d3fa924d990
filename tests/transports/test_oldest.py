"""The JetStream transport keeps the port's promises over the oldest server we promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from omni_worker.nats_server import NatsServer

from .servers import emptied, oldest
from .suite import TransportSuite
from .test_jetstream import JetStreamBackend


@pytest.fixture(scope="module")
def old_server() -> Iterator[NatsServer]:
    with oldest() as server:
        yield server


class OldestBackend(JetStreamBackend):
    """What it cannot do yet: wait for a start sequence of the future."""

    features = JetStreamBackend.features - {"future start", "pins"}


class TestOldest(TransportSuite):
    """All of the suite."""

    @pytest.fixture
    async def backend(self, old_server: NatsServer) -> AsyncIterator[OldestBackend]:
        await emptied(old_server)
        async with OldestBackend(old_server) as backend:
            yield backend

    async def test_it_is_the_oldest(self, backend: JetStreamBackend) -> None:
        assert (await backend.connect()).server_version == (2, 10, 26)

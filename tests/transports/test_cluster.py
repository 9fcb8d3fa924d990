"""The JetStream transport keeps the port's promises over a cluster of three, with R3 streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from omni_worker.nats_server import NatsServer
from omni_worker.settings import Settings
from omni_worker.transports.base import Operators
from omni_worker.transports.jetstream import JetStreamTransport

from .servers import NODES, cluster, emptied, formed
from .suite import TransportSuite
from .suite.backend import consume, held, info, make_consumer, make_stream, publish
from .support import pause, resume
from .test_jetstream import JetStreamBackend


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NatsServer]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


class ClusterBackend(JetStreamBackend):
    """A node of the cluster; every stream that does not say otherwise is on all of them."""

    features = JetStreamBackend.features | {"replicas"}

    def settings(self, **given: Any) -> Settings:
        return super().settings(replicas=NODES, **given)

    def unopened(self) -> JetStreamTransport:
        transport = super().unopened()
        create = partial(_create_replicated, transport.operators)
        transport.operators.create_stream = create  # type: ignore[method-assign]
        return transport


async def _create_replicated(operators: Operators, config: Mapping[str, Any]) -> dict[str, Any]:
    return await type(operators).create_stream(operators, {"num_replicas": NODES, **config})


class TestCluster(TransportSuite):
    """All of the suite."""

    @pytest.fixture
    async def backend(self, nodes: list[NatsServer]) -> AsyncIterator[ClusterBackend]:
        await formed(nodes)
        await emptied(nodes[0])
        async with ClusterBackend(nodes[0]) as backend:
            yield backend

    async def test_a_stop_waits_for_deliveries_a_majority_has_yet_to_hear_of(
        self, nodes: list[NatsServer]
    ) -> None:
        await formed(nodes)
        await emptied(nodes[0])
        async with ClusterBackend(nodes[0]) as backend:
            transport = await backend.connect()
            await make_stream(transport)
            await make_consumer(transport)
            await publish(transport, *range(100))
            leader = (await info(transport)).raw["cluster"]["leader"]
        followers = [node for number, node in enumerate(nodes) if leader != f"n{number}"]
        async with ClusterBackend(*(node for node in nodes if node not in followers)) as backend:
            transport = await backend.connect()
            for follower in followers:
                pause(follower)
            source, recorder = await consume(transport, 100)
            stopping = asyncio.create_task(source.stop())
            await asyncio.sleep(0.1)  # the fault itself: nobody hears of the deliveries
            early = len(recorder.deliveries)
            for follower in followers:
                resume(follower)
            await stopping

            assert early == 0
            assert len(recorder.deliveries) == await held(transport) == 100

"""JetStream domains: an app at a leaf node works with the streams of the hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus, PublishError, Settings
from omni_worker.errors import TransportError

from ..ports import free_port
from ..waiting import until
from .support import STREAM, configured, connected, make_stream, message

HUB = """
jetstream { domain: hub }
leafnodes { listen: "127.0.0.1:%d" }
"""
LEAF = """
jetstream { domain: leaf }
leafnodes { remotes: [ { url: "nats://127.0.0.1:%d" } ] }
"""


@asynccontextmanager
async def leaf_of_a_hub(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """URLs of a hub and of a leaf node with a JetStream of its own, connected to each other."""
    port = free_port()
    hub = configured(folder / "hub", HUB % port, "--server_name", "hub")
    leaf = configured(folder / "leaf", LEAF % port, "--server_name", "leaf")
    with hub, leaf:
        async with asyncio.timeout(15):
            while True:  # until the two have found each other
                async with connected(leaf.url, js_domain="hub") as transport:
                    try:
                        await transport.operators.streams()
                        break
                    except TransportError:
                        await asyncio.sleep(0.05)
        yield hub.url, leaf.url


async def names(url: str, domain: str) -> set[str]:
    async with connected(url, js_domain=domain) as transport:
        return {info.name for info in await transport.operators.streams()}


async def test_an_app_at_a_leaf_node_works_with_the_hub_alone(tmp_path: Path) -> None:
    seen: list[str] = []
    tries: list[int] = []

    async def handle(event: Event[Any], ctx: Any) -> None:
        if event.payload["bad"]:
            tries.append(ctx.attempt)
            raise ValueError("bad")
        seen.append(event.id)

    async with leaf_of_a_hub(tmp_path) as (_, leaf):
        async with EventBus(leaf, settings=Settings(js_domain="hub")) as bus:
            await bus.subscribe(
                "custom.x", handle, durable="x", exactly_once=True, max_retries=1, retry_delay=0.01
            )
            good = await bus.publish("custom.x", {"bad": False})
            await bus.publish("custom.x", {"bad": True})
            await until(lambda: seen == [good.id])
            await until(lambda: tries == [1, 2])
            async with asyncio.timeout(10):
                while not [one async for one in bus.dead_letters.list()]:
                    await asyncio.sleep(0.05)

        assert {"CUSTOM", "KV_omni-worker-guards", "KV_omni-worker-notes"} <= await names(
            leaf, "hub"
        )
        assert await names(leaf, "leaf") == set()


async def test_only_the_wanted_domain_confirms_what_both_store(tmp_path: Path) -> None:
    async with leaf_of_a_hub(tmp_path) as (_, leaf):
        async with connected(leaf, js_domain="leaf") as transport:
            await make_stream(transport)
        async with connected(leaf, js_domain="hub") as transport:
            with pytest.raises(PublishError, match="domain leaf confirmed it, not hub"):
                await transport.publish(message(id="1"), timeout=0.5)
            await make_stream(transport)

            stored = await transport.publish(message(id="2"), timeout=5)

            info = await transport.operators.stream_info(STREAM)
            assert info is not None
            assert (stored.sequence, info.state.messages) == (1, 1)

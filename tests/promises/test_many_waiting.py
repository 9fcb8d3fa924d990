"""Many events that wait for a retry: max_ack_pending is as high as allowed, and said when near."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from omni_worker import Event, EventBus, Retry
from omni_worker.topology import MAX_ACK_PENDING

from ..faults.servers import configured
from ..waiting import until
from .conftest import World, body


async def test_when_most_of_what_may_be_unanswered_waits_a_line_and_a_warning_say_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    bus = await world.bus(long_retry=None)

    async def fail(event: Event[Any]) -> None:
        raise Retry(after=600)

    subscription = await bus.subscribe("custom.thing", fail, durable="d", channel="whatsapp")
    config = (await world.info("CUSTOM", "d")).config.raw
    await bus.transport.operators.update_consumer("CUSTOM", {**config, "max_ack_pending": 1000})
    [known] = bus._subscriptions.bindings

    await asyncio.gather(
        *(world.store("custom.thing.whatsapp.wa-1", body(f"e-{n}", payload=n)) for n in range(900))
    )
    await until(lambda: subscription.counts.retried == 900)
    await known.refresh()
    near = (list(subscription.warnings), list(subscription.stalls))
    await asyncio.gather(
        *(world.store("custom.thing.whatsapp.wa-1", body(f"f-{n}", payload=n)) for n in range(200))
    )
    await until(lambda: subscription.counts.retried == 1000)
    await known.refresh()
    full = list(subscription.stalls)

    assert near[0][0].startswith("900 of at most 1000 events of consumer d on CUSTOM wait")
    assert near[1] == []
    assert "1000 of at most 1000" in full[0]
    assert "takes no events" in caplog.text


async def test_a_consumer_allows_a_million_unanswered_events(world: World) -> None:
    bus = await world.bus()

    async def handle(event: Event[Any]) -> None: ...

    await bus.subscribe("custom.thing", handle, durable="d", channel="whatsapp")

    assert (await world.info("CUSTOM", "d")).config.max_ack_pending == MAX_ACK_PENDING


async def test_where_the_server_allows_fewer_it_is_as_many_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = "jetstream { limits { max_ack_pending: 5000 } }"
    seen = []

    async def handle(event: Event[Any]) -> None: ...

    with configured(tmp_path, limits) as server:
        for _ in range(2):
            async with EventBus(server.url, name="limits") as bus:
                await bus.subscribe("custom.thing", handle, durable="d", channel="whatsapp")
                info = await bus.transport.operators.consumer_info("CUSTOM", "d")
                assert info is not None
                seen.append((info.config.max_ack_pending, info.created))

    assert [most for most, _ in seen] == [5000, 5000]
    assert seen[0] == seen[1]
    assert "updated" not in caplog.text

"""Limits whose bucket does not work: named within 15 s, nothing runs; mended, it goes on."""

from __future__ import annotations

from typing import Any

import pytest
from nats.aio.client import Client

from omni_worker import EventBus
from omni_worker.limits import BUCKET, STREAM, TTL
from omni_worker.nats_server import NatsServer

from ..processes.support import api
from ..waiting import until
from .test_silence import Handled, change, goes_on, handled, plain, server, stalled

__all__ = ["handled", "plain", "server"]  # fixtures

BOTH = pytest.mark.parametrize("options", [{"rate": "1000/m"}, {"limit": 2}], ids=["rate", "limit"])


async def rested(handled: Handled) -> None:
    """Wait until a handler has run once and has no place any more."""
    await handled.bus.publish("custom.thing", 0)
    await until(lambda: handled.events == [0])
    bucket = await handled.bus.transport.bucket(BUCKET, ttl=TTL)
    key = f"limit.{handled.bus.name}.d"

    async def has_none() -> bool:
        entry = await bucket.get(key)
        return entry is None or entry.value == b"[]"

    await until(has_none)


@BOTH
async def test_a_bucket_that_is_full_is_named(
    handled: Handled, plain: Client, options: dict[str, Any]
) -> None:
    await handled.start(**options)
    await rested(handled)

    await change(plain, STREAM, max_bytes=1)
    for number in range(1, 25):
        await handled.bus.publish("custom.thing", number)
    reason = await stalled(handled)
    ran = len(handled.events)
    await change(plain, STREAM, max_bytes=-1)

    assert f"{BUCKET} is full: raise the limits of its stream {STREAM}" in reason
    assert ran < 25  # a server lets the last write through that replaces a value
    await goes_on(handled, *range(25))


@BOTH
async def test_a_bucket_that_is_sealed_is_named(
    handled: Handled, plain: Client, options: dict[str, Any]
) -> None:
    await handled.start(**options)
    await rested(handled)

    await change(plain, STREAM, sealed=True)
    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)
    await api(plain, f"STREAM.DELETE.{STREAM}")

    assert f"{BUCKET} is sealed: delete its stream {STREAM}" in reason
    await goes_on(handled, 0, 1)


@BOTH
async def test_a_bucket_that_may_not_be_made_is_named(
    handled: Handled, options: dict[str, Any]
) -> None:
    await handled.start()
    await handled.bus.close()
    await handled.start(provision="off", **options)

    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)
    async with EventBus(handled.url, name="operations") as operations:
        await operations.transport.bucket(BUCKET, ttl=TTL)

    assert f"{BUCKET} is missing" in reason
    assert "plan MODULE:APP --apply creates it" in reason
    await goes_on(handled, 1)


@BOTH
async def test_the_right_to_write_is_named(server: NatsServer, options: dict[str, Any]) -> None:
    handled = Handled(server, "restricted")
    await handled.start(**options)

    await handled.bus.publish("custom.thing", 1)
    reason = await stalled(handled)

    assert f"$KV.{BUCKET}." in reason
    assert handled.events == []
    await handled.bus.close(0.0)

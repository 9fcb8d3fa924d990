"""A first start asks whether others read its consumers; where nobody is, it does not wait."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from omni_worker import App, Event
from omni_worker.bus import latecomers
from omni_worker.nats_server import NatsServer
from omni_worker.operations.processes import processes
from omni_worker.settings import Settings

PATIENCE = 60.0  # seconds for answers; a start that waits for them runs into the limit below


async def test_a_first_start_waits_for_no_answers_where_nobody_is(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latecomers, "processes", partial(processes, within=PATIENCE))
    app = App("alone")

    @app.on("custom.thing", durable="first")
    async def handle(event: Event) -> None: ...

    async with asyncio.timeout(PATIENCE / 2):
        async with app.running(settings=Settings(urls=nats_server.url)) as bus:
            assert len(bus.subscriptions) == 1

"""omni-worker's worker: `omni-worker run benchmarks.scenarios.omni:app`."""

from __future__ import annotations

import os
from typing import Any

from omni_worker import App, Event

from .work import work

app = App("scenarios")


@app.on(
    "message.received",
    durable="r1",
    start_from="first",
    concurrency=int(os.environ.get("WORK_AT_ONCE", "10")),
    ack_wait=float(os.environ.get("WORK_ACK_WAIT", "30")),
)
async def handle(event: Event[dict[str, Any]]) -> None:
    await work(event.id)

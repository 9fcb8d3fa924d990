"""Streams and subjects that come while a worker runs: found in the time that is promised."""

from __future__ import annotations

import time

from nats.aio.client import Client

from omni_worker.binding import REFRESH

from .support import Stage, api, foreign_event, make_stream

LOOK = 8.0  # seconds that a look, and the event, may take on a busy machine


async def test_a_new_stream_and_a_new_subject_are_read_within_ten_seconds(
    stage: Stage, plain: Client
) -> None:
    config = await make_stream(plain, "FIRST", "first.>")
    worker = await stage.run(
        stage.app(
            """
app = App("router")

@app.on("*.synced", durable="r1")
async def route(event):
    effect("handled", id=event.id)
"""
        )
    )
    await make_stream(plain, "SECOND", "second.>")
    wider = {**config, "subjects": ["first.>", "third.>"]}
    assert "error" not in await api(plain, "STREAM.UPDATE.FIRST", wider)
    created = time.monotonic()
    for type in ("second.synced", "third.synced"):
        for channel, instance in ((None, None), ("wa", "1")):
            there = {"channel": channel, "instance": instance}
            subject, body = foreign_event(type, {}, id=f"{type} {channel}", **there)
            await plain.jetstream().publish(subject, body)

    await stage.until_effects(4, timeout=REFRESH + LOOK)

    assert REFRESH == 10.0
    assert sorted(stage.ids()) == [
        "second.synced None", "second.synced wa", "third.synced None", "third.synced wa",
    ]  # fmt: skip
    assert max(one["at"] for one in stage.effects()) - created <= REFRESH + LOOK
    assert await worker.stop() == 0

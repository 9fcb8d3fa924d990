"""Another program that replies to whatever has a reply subject, before the server does."""

from __future__ import annotations

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from .support import Stage, publish_foreign

HANDLES = """
app = App("plain")

@app.on("message.received", durable="r1")
async def handle(event):
    effect("handled", id=event.id)
"""


@pytest.mark.parametrize("answer", [b"+ACK", b"", b'{"ok": true}', b"[" * 5_000, b"\xff"])
async def test_answers_of_another_program_do_not_end_a_worker(
    stage: Stage, plain: Client, answer: bytes
) -> None:
    async def reply(message: Msg) -> None:
        if message.reply:
            await plain.publish(message.reply, answer)

    await plain.subscribe("$JS.API.>", cb=reply)
    await plain.flush()

    worker = await stage.run(stage.app(HANDLES))
    await publish_foreign(plain, 1)
    await stage.until_effects(1, "handled")

    assert await worker.stop() == 0
    assert "Traceback" not in worker.said()

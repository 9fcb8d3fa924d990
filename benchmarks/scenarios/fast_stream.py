"""FastStream's worker: a durable pull subscriber with batches of 100 and the default ack policy."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from faststream import AckPolicy as Policy
from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pydantic import BaseModel

from .work import work

AT_ONCE = int(os.environ.get("WORK_AT_ONCE", "10"))
POLICY = {"ack_policy": Policy.NACK_ON_ERROR} if os.environ.get("WORK_NACK") else {}


class Event(BaseModel):
    """The envelope."""

    id: str
    type: str
    payload: dict[str, Any]


broker = NatsBroker(os.environ["NATS_URL"])
app = FastStream(broker)


@broker.subscriber(  # type: ignore[untyped-decorator,unused-ignore]
    "message.received.>",
    durable="r1",
    stream=JStream("MESSAGE", declare=bool(os.environ.get("WORK_DECLARES"))),
    pull_sub=PullSub(batch_size=100),
    max_workers=AT_ONCE,
    config=ConsumerConfig(
        durable_name="r1",
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=float(os.environ.get("WORK_ACK_WAIT", "30")),
    ),
    **POLICY,
)
async def handle(event: Event) -> None:
    await work(event.id)


if __name__ == "__main__":
    asyncio.run(app.run())

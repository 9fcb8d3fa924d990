"""A small shop of handlers, some well and some not: what the pictures show, and tests read."""

from __future__ import annotations

import asyncio
import random

from omni_worker import App, Event, Reject, RetryPolicy

app = App("shop")
once = RetryPolicy(retries=1, delay=0.2)


@app.on("message.received", channel="whatsapp", durable="greeter", concurrency=20)
async def greet(event: Event) -> None:
    """Go well."""
    await asyncio.sleep(0.01)


@app.on("message.received", durable="router")
async def route(event: Event) -> None:
    """Publish what follows."""
    if random.random() < 0.3:
        await app.publish(
            "custom.reply.queued", {"chat": "c1"}, channel="whatsapp", instance="wa-1"
        )


@app.on("custom.reply.queued", durable="replies", retry=RetryPolicy(retries=3, delay=1))
async def reply(event: Event) -> None:
    """Fail now and then."""
    if random.random() < 0.1:
        raise ConnectionError("the gateway closed the connection")


@app.on("custom.image.uploaded", durable="thumbnails", retry=once)
async def shrink(event: Event) -> None:
    """Give some up."""
    if event.payload.get("broken"):
        raise ValueError(f"cannot read image {event.payload['name']!r}: unexpected end of data")


@app.on("custom.invoice.due", durable="billing")
async def bill(event: Event) -> None:
    """Reject a few."""
    if event.payload.get("plan") is None:
        raise Reject("the customer has no plan")


@app.on("instance.>", durable="audit-trail")
async def audit(event: Event) -> None:
    """Go well, rarely."""

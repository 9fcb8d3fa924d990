"""The demo: route WhatsApp and Discord messages, retry what fails, keep what cannot be handled.

Run it with `make demo`, or against your own server: omni-worker run examples.router:app
"""

from __future__ import annotations

from pydantic import BaseModel

from omni_worker import App, Context, Event, Reject


class Received(BaseModel):
    """What we need of a `message.received`; other fields may be there."""

    externalId: str
    chatId: str


app = App("router")


@app.on("message.received", channel="whatsapp", durable="whatsapp-router", schema=Received)
async def route_whatsapp(event: Event[Received]) -> None:
    print(f"whatsapp {event.instance}: message {event.payload.externalId} routed", flush=True)
    await app.publish(
        "custom.reply.queued",
        {"chat": event.payload.chatId},
        channel=event.channel,
        instance=event.instance,
    )


@app.on("message.received", channel="discord", durable="discord-router", retry_delay=0.2)
async def route_discord(event: Event[Received], ctx: Context) -> None:
    """Its service is shaky: the first two attempts fail, the third works."""
    if ctx.attempt < 3:
        print(f"discord {event.instance}: attempt {ctx.attempt} failed", flush=True)
        raise ConnectionError("the discord service did not answer")
    print(f"discord {event.instance}: attempt {ctx.attempt} worked", flush=True)


@app.on("custom.reply.queued", durable="replies")
async def reply(event: Event) -> None:
    print(f"reply queued for {event.payload['chat']} on {event.channel}", flush=True)


@app.on("message.failed", durable="failures")
async def look_into(event: Event) -> None:
    raise Reject("nobody can handle this one")


@app.on("system.dead_letter", durable="letters")
async def report(event: Event) -> None:
    letter = event.payload
    print(f"dead letter from {letter['handler']}: {letter['error']}", flush=True)

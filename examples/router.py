"""Route WhatsApp and Discord messages: retry what fails, keep what nobody can handle.

`make demo` shows it at work. On a server of your own: omni-worker run examples.router:app
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from omni_worker import App, Context, Event, Reject


class Received(BaseModel):
    """What we need of a `message.received`; other fields may be there."""

    externalId: str
    chatId: str


class ReplyQueued(BaseModel):
    """What we tell others: somebody shall answer in this chat."""

    chat: str


app = App("router")
app.registry.register("custom.reply.queued", ReplyQueued, description="A chat wants an answer")


@app.on("message.received", channel="whatsapp", durable="whatsapp-router", schema=Received)
async def route_whatsapp(event: Event[Received]) -> None:
    """Pass it on as an event of our own, for the same channel and instance."""
    print(f"whatsapp {event.instance}: message {event.payload.externalId} routed", flush=True)
    reply = ReplyQueued(chat=event.payload.chatId)
    await app.publish("custom.reply.queued", reply, channel=event.channel, instance=event.instance)


@app.on("custom.reply.queued", durable="replies")
async def answer(event: Event[ReplyQueued]) -> None:
    """Nobody else sees this event: whoever shares the durable shares its events."""
    print(f"{event.channel} {event.instance}: reply to {event.payload.chat} queued", flush=True)


@app.on("message.received", channel="discord", durable="discord-router", retry_delay=0.2)
async def route_discord(event: Event[Received], ctx: Context) -> None:
    """Its service is shaky: the first two attempts fail, the third works."""
    if ctx.attempt < 3:
        raise ConnectionError("discord did not answer")
    print(
        f"discord {event.instance}: message {event.payload.externalId} routed"
        f" at attempt {ctx.attempt}",
        flush=True,
    )


@app.on("message.failed", durable="failures")
async def look_into(event: Event[Any]) -> None:
    """Trying again would not help, so it says so: the event becomes a dead letter at once."""
    raise Reject(f"chat {event.payload['chatId']} is closed")


@app.on("system.dead_letter", durable="letters")
async def report(event: Event[Any]) -> None:
    """Dead letters are events as well; the original is in there, byte for byte."""
    print(f"dead letter: {event.payload['error']}", flush=True)


# Output for one message from WhatsApp, one from Discord and one that failed:
#
# whatsapp wa-001: message m-1 routed
# whatsapp wa-001: reply to chat-1 queued
# discord dc-001: message m-2 routed at attempt 3
# dead letter: chat chat-3 is closed

"""The bot: four handlers. Its times are arguments, so that a test need not wait for a day."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from omni_worker import App, Batch, Context, Event, MessageReceivedPayload

DAY = 86_400.0  # seconds


class Reply(BaseModel):
    """A text that is to be sent to a chat."""

    chat: str
    text: str


class FollowUp(BaseModel):
    """A chat in which nobody has written for a while."""

    chat: str


class Due(BaseModel):
    """The payload of a cron's event."""

    due: str = Field(description="the time, with its zone")


def chat_of(event: Event[MessageReceivedPayload]) -> str:
    """Return the chat of a message; two numbers may be in chats of one name."""
    return f"{event.instance}:{event.payload.chat_id}"


def number_of(event: Event[Reply]) -> str | None:
    """Return the number a reply is sent from."""
    return event.instance


async def queue(ctx: Context, event: Event[Any], reply: Reply) -> None:
    """Queue a reply, on the number that the event came to."""
    await ctx.publish("custom.reply.queued", reply, channel=event.channel, instance=event.instance)


def create_app(
    *, quiet: float = 3.0, wait: float = 30.0, follow_up: float = DAY, rate: str = "1/s"
) -> App:
    """Make the bot. It waits until a chat is ``quiet``, ``wait`` seconds at most."""
    app = App("chatbot")

    @app.on_batch(
        "message.received", channel="whatsapp", durable="answers",
        by=chat_of, quiet=quiet, wait=wait,
    )  # fmt: skip
    async def answer(batch: Batch[MessageReceivedPayload]) -> None:
        last = batch.events[-1]
        ctx, chat, key = batch.context(last), last.payload.chat_id, f"follow-up:{batch.key}"
        texts = [payload.content.text or "" for payload in batch.payloads]
        if texts[-1].lower() == "bye":
            await ctx.cancel(key)
            await queue(ctx, last, Reply(chat=chat, text="Bye!"))
            return
        await queue(ctx, last, Reply(chat=chat, text=f"You said: {', '.join(texts)}"))
        # The next message of this chat replaces it: the day begins again.
        await ctx.publish(
            "custom.follow_up", FollowUp(chat=chat), after=follow_up, key=key,
            channel=last.channel, instance=last.instance,
        )  # fmt: skip

    @app.on("custom.follow_up", durable="follow-ups")
    async def ask(event: Event[FollowUp], ctx: Context) -> None:
        await queue(ctx, event, Reply(chat=event.payload.chat, text="Are you still there?"))

    @app.on("custom.reply.queued", durable="sender", rate=rate, rate_by=number_of)
    async def send(event: Event[Reply]) -> None:
        print(f"{event.instance} to {event.payload.chat}: {event.payload.text}", flush=True)

    @app.cron("0 8 * * mon-fri", tz="America/Sao_Paulo", durable="report")
    async def report(event: Event[Due]) -> None:
        print(f"report of {event.payload.due}", flush=True)

    return app

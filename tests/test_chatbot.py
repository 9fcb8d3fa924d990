"""The chat bot of the examples: in virtual time with its own times, on a server with short ones."""

from __future__ import annotations

from typing import Any

import pytest

from examples.chatbot import app as chatbot
from examples.chatbot.bot import create_app
from omni_worker import EventBus
from omni_worker.nats_server import NatsServer
from omni_worker.operations.schedules import find_schedule, run_schedule_now, scheduled_events
from omni_worker.settings import Settings
from omni_worker.testing import TestWorker

from .waiting import until


def message(number: int, text: str, chat: str = "ana") -> dict[str, Any]:
    return {
        "externalId": f"m-{number}",
        "chatId": chat,
        "from": chat,
        "content": {"type": "text", "text": text},
    }


async def say(t: TestWorker, *texts: str, chat: str = "ana", instance: str = "wa-1") -> None:
    """Write messages, a second apart."""
    for number, text in enumerate(texts):
        await t.publish(
            "message.received", message(number, text, chat), channel="whatsapp", instance=instance,
            id=f"{instance}-{chat}-{text}",
        )  # fmt: skip
        await t.advance(seconds=1)


def replies(t: TestWorker) -> list[str]:
    return [event.payload["text"] for event in t.published("custom.reply.queued")]


async def test_three_messages_get_one_answer_once_the_chat_is_quiet() -> None:
    async with TestWorker(chatbot) as t:
        await say(t, "hello", "are you there", "?")
        early = replies(t)
        await t.advance(seconds=5)

        assert early == []
        assert replies(t) == ["You said: hello, are you there, ?"]


async def test_it_follows_up_a_day_after_the_last_message() -> None:
    async with TestWorker(chatbot) as t:
        await say(t, "hello")
        await t.advance(hours=23)
        await say(t, "one thing more")
        await t.advance(hours=23)
        before = len(replies(t))
        await t.advance(hours=2)

        assert before == 2
        assert replies(t)[2:] == ["Are you still there?"]


async def test_a_bye_cancels_the_follow_up() -> None:
    async with TestWorker(chatbot) as t:
        await say(t, "hello")
        await t.advance(hours=1)
        await say(t, "bye")
        await t.advance(hours=48)

        assert replies(t) == ["You said: hello", "Bye!"]


async def test_a_number_sends_one_message_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    async with TestWorker(chatbot) as t:
        for chat in ("ana", "bea", "caio", "davi"):
            await t.publish(
                "message.received", message(1, "hi", chat), channel="whatsapp", instance="wa-1",
                id=chat,
            )  # fmt: skip
        await t.advance(seconds=4.5)
        first = capsys.readouterr().out.count("wa-1 to ")
        await t.advance(seconds=5)
        rest = capsys.readouterr().out.count("wa-1 to ")

    assert first < 4
    assert first + rest == 4


async def test_it_reports_on_working_days(capsys: pytest.CaptureFixture[str]) -> None:
    async with TestWorker(chatbot) as t:
        await t.advance(hours=24 * 7)

    lines = [one for one in capsys.readouterr().out.splitlines() if one.startswith("report of")]
    assert len(lines) == 5
    assert all("T08:00:00-03:00" in one for one in lines)


async def test_on_a_real_server_with_short_times(
    nats_server: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    bot = create_app(quiet=0.3, wait=2.0, follow_up=1.0, rate="20/s")
    said: list[str] = []

    def has(text: str) -> bool:
        said.extend(capsys.readouterr().out.splitlines())
        return any(text in line for line in said)

    settings = Settings(urls=(nats_server.url,))
    async with bot.running(settings=settings) as bus, EventBus(nats_server.url) as people:
        for number, (chat, text) in enumerate(
            [("ana", "hello"), ("bea", "hi"), ("ana", "you there?"), ("bea", "bye")]
        ):
            await people.publish(
                "message.received", message(number, text, chat), channel="whatsapp",
                instance="wa-1", id=f"m-{number}",
            )  # fmt: skip
        await until(lambda: has("wa-1 to ana: You said: hello, you there?"))
        await until(lambda: has("wa-1 to bea: Bye!"))
        await until(lambda: has("wa-1 to ana: Are you still there?"))
        await run_schedule_now(bus.transport, await find_schedule(bus.transport, "report", None))
        await until(lambda: has("report of "))
        left = [one.name for one in await scheduled_events(bus.transport)]

    assert left == ["report"]
    assert not any("bea: Are you" in line for line in said)

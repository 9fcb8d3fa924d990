"""Batches of a key: what belongs together once it has been quiet, by the times of the stream."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from pydantic import BaseModel

from omni_worker import App, Batch, ConfigError, Event
from omni_worker.outcomes import Done, Failed
from omni_worker.testing import TestWorker


class Said(BaseModel):
    chat: str
    n: int


def chat_of(event: Event[Any]) -> Any:
    return event.payload.chat


class Bot:
    """An app whose groups are recorded, with the seconds since its start."""

    def __init__(self, takes: float = 0.0, **options: Any) -> None:
        self.app = App("bot")
        self.groups: list[tuple[float, str, list[int]]] = []
        self.fails: set[str] = set()  # chats
        self._numbers: dict[str, int] = {}
        self._began: float | None = None

        @self.app.on_batch(
            "custom.said", durable="bot", **{"by": chat_of, "quiet": 3.0, "wait": 30.0, **options}
        )
        async def answer(batch: Batch[Said]) -> None:
            self.groups.append((self.now(), batch.key, [one.n for one in batch.payloads]))
            if batch.key in self.fails:
                raise ValueError(batch.key)
            await asyncio.sleep(takes)

        self.answer = answer

    def now(self) -> float:
        time = asyncio.get_running_loop().time()
        self._began = time if self._began is None else self._began
        return round(time - self._began, 3)

    async def say(self, t: TestWorker, chat: str, *, then: float = 0.0) -> str:
        """Publish the next message of a chat, and let some seconds pass."""
        self.now()
        number = self._numbers[chat] = self._numbers.get(chat, -1) + 1
        sent = await t.publish("custom.said", {"chat": chat, "n": number})
        if then:
            await t.advance(seconds=then)
        return sent.id


async def test_the_messages_of_a_chat_come_together_once_it_is_quiet() -> None:
    bot = Bot()

    async with TestWorker(bot.app) as t:
        for _ in range(4):
            await bot.say(t, "a", then=2)
        await t.settle()

    assert bot.groups == [(9.0, "a", [0, 1, 2, 3])]  # 3 s after the last


async def test_a_chat_that_is_never_quiet_is_answered_after_its_wait() -> None:
    bot = Bot(wait=29.0)

    async with TestWorker(bot.app) as t:
        for _ in range(20):
            await bot.say(t, "a", then=2)
        await t.settle()

    assert bot.groups == [(29.0, "a", [*range(15)]), (41.0, "a", [*range(15, 20)])]


async def test_chats_do_not_wait_for_each_other() -> None:
    bot = Bot(takes=10)

    async with TestWorker(bot.app) as t:
        await bot.say(t, "a", then=1)
        await bot.say(t, "b", then=1)
        await bot.say(t, "a")
        await t.settle()

    assert bot.groups == [(4.0, "b", [0]), (5.0, "a", [0, 1])]


async def test_one_group_of_a_key_runs_at_a_time_and_the_next_is_behind_it() -> None:
    bot = Bot(takes=20)

    async with TestWorker(bot.app) as t:
        await bot.say(t, "a", then=5)
        await bot.say(t, "a", then=5)
        await bot.say(t, "a")
        await t.settle()

    assert bot.groups == [(3.0, "a", [0]), (23.0, "a", [1, 2])]


async def test_a_full_group_begins_at_once() -> None:
    bot = Bot(size=3)

    async with TestWorker(bot.app) as t:
        for _ in range(4):
            await bot.say(t, "a")
        await t.settle()

    assert [(at, numbers) for at, _, numbers in bot.groups] == [(0.0, [0, 1, 2]), (3.0, [3])]


async def test_a_restart_begins_no_wait_anew() -> None:
    bot = Bot()

    async with TestWorker(bot.app) as t:
        for _ in range(14):
            await bot.say(t, "a", then=2)
            await t.restart()
        await bot.say(t, "b", then=2)
        await t.restart()
        await t.settle()

    # Quiet 3 s after it was stored, whoever held it, and at most 30 s after the first.
    assert bot.groups == [(29.0, "a", [*range(14)]), (31.0, "b", [0])]


async def test_what_waited_while_nothing_ran_is_one_group_at_once() -> None:
    bot, server = Bot(), None

    async with TestWorker(bot.app) as t:
        server = t.server
    async with TestWorker(App("other"), server=server) as t:
        for _ in range(5):
            await bot.say(t, "a", then=10)
    async with TestWorker(bot.app, server=server) as t:
        await t.settle()

    [(at, _, numbers)] = bot.groups
    assert numbers == [*range(5)]
    assert at <= 51.0


async def test_at_the_bound_the_oldest_group_runs_early() -> None:
    bot = Bot(size=2, concurrency=3, quiet=20.0, prefetch=0)

    async with TestWorker(bot.app) as t:
        for number in range(7):
            await bot.say(t, f"chat-{number}", then=1)
        await t.advance(seconds=1)
        early = list(bot.groups)
        await t.settle()

    assert [chat for _, chat, _ in early] == ["chat-0", "chat-1"]  # six may be held
    assert len(bot.groups) == 7


async def test_a_group_fails_as_a_whole_and_comes_again_with_what_was_said_since() -> None:
    bot = Bot(retry_delay=10.0)
    bot.fails = {"a"}

    async with TestWorker(bot.app) as t:
        first = await bot.say(t, "a")
        await bot.say(t, "a", then=4)
        bot.fails = set()
        await t.advance(seconds=7)
        await bot.say(t, "a")
        await t.settle()
        outcomes = [type(one) for one in t.outcomes(bot.answer, first)]

    assert [numbers for _, _, numbers in bot.groups] == [[0, 1], [0, 1, 2]]
    assert outcomes == [Failed, Done]


async def test_a_group_that_never_succeeds_is_dead_letters_without_halves() -> None:
    bot = Bot()
    bot.fails = {"a"}

    async with TestWorker(bot.app) as t:
        for chat in ("a", "a", "b"):
            await bot.say(t, chat)
        await t.settle()

    assert [numbers for _, chat, numbers in bot.groups if chat == "a"] == [[0, 1]] * 4
    assert len(t.dead_letters) == 2


async def test_a_key_that_cannot_be_had_fails_its_event_alone() -> None:
    def key(event: Event[Any]) -> Any:
        return {} if event.payload.chat == "odd" else event.payload.chat

    bot = Bot(by=key, max_retries=0)

    async with TestWorker(bot.app) as t:
        odd = await bot.say(t, "odd")
        await bot.say(t, "a")
        await t.settle()

    assert [chat for _, chat, _ in bot.groups] == ["a"]
    assert [one.payload["originalEventId"] for one in t.dead_letters] == [odd]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"quiet": None}, "by= without quiet=: give the seconds a key has to be quiet"),
        ({"by": None}, "quiet=3.0 without by=: give by=, a function of the event"),
        ({"by": "chat"}, "by='chat': expected a function of the event"),
        ({"quiet": 31.0}, "quiet=31.0: expected at most wait=30.0"),
        ({"quiet": -1}, "quiet=-1: expected seconds, 0 to 86400"),
    ],
)
def test_what_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Bot(**given)


def test_its_defaults_are_those_of_a_conversation() -> None:
    bot = Bot(wait=None)

    [handler] = bot.app.handlers
    assert handler.batch is not None
    assert (handler.batch.size, handler.batch.wait, handler.options.concurrency) == (100, 30.0, 10)
    assert handler.batch.shown == "by key, at most 100 events, after 3 s of quiet or 30 s in all"

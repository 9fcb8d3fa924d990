"""Groups of a key on memory and on a real server: deploys, the bound, a pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from omni_worker import Batch, Event
from tests.promises.conftest import World
from tests.waiting import until

from .test_promises import Play


def key_of(event: Event[Any]) -> Any:
    return event.payload["chat"]


class Chats(Play):
    """Groups, with the time at which each began."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        super().__init__(world, stack)
        self.groups: list[tuple[float, str, list[int]]] = []

    async def chat(self, **options: Any) -> tuple[Any, Any]:
        given = {"by": key_of, "quiet": 0.5, "wait": 5.0, "size": 50, **options}
        return await self.run(self.answer, **given)

    async def answer(self, batch: Batch) -> None:
        numbers = [one["n"] for one in batch.payloads]
        self.groups.append((time.time(), batch.key, numbers))
        self.seen.update((batch.key, number) for number in numbers)

    async def say(self, chat: str, *numbers: int) -> float:
        for number in numbers:
            await self.world.buses[0].publish("custom.thing", {"chat": chat, "n": number})
        return time.time()


@pytest.fixture
async def chats(world: World) -> AsyncIterator[Chats]:
    await world.bus("publisher")
    async with AsyncExitStack() as stack:
        yield Chats(world, stack)


async def test_a_group_begins_when_its_key_has_been_quiet(chats: Chats) -> None:
    await chats.chat()

    await chats.say("a", 0, 1)
    await chats.say("b", 0)
    said = await chats.say("a", 2)
    await chats.settled(4)

    groups = {chat: (at, numbers) for at, chat, numbers in chats.groups}
    assert groups["a"][1] == [0, 1, 2]
    assert 0.45 <= groups["a"][0] - said <= 1.5
    assert len(chats.groups) == 2


async def test_a_deploy_hands_open_groups_over_and_begins_no_wait_anew(chats: Chats) -> None:
    _, stop = await chats.chat(quiet=2.0)
    said = await chats.say("a", 0, 1, 2)
    bus = chats.world.buses[0]
    for _ in range(3):
        _, following = await chats.chat(quiet=2.0)
        await stop()
        stop = following
        await bus.transport.flush(1.0)
    await chats.settled(3)

    [(at, _, numbers)] = chats.groups
    assert numbers == [0, 1, 2]
    assert 1.9 <= at - said <= 3.2  # not 2 s after the last deploy, nor in parts


async def test_open_groups_hold_credit_and_at_the_bound_the_oldest_runs_early(
    chats: Chats,
) -> None:
    bus, _ = await chats.chat(quiet=5.0, size=5, concurrency=2, prefetch=0)

    for number in range(40):
        await chats.say(f"chat-{number}", 0)
    await until(lambda: len(chats.groups) >= 30, seen=lambda: len(chats.groups))

    begun = [chat for _, chat, _ in chats.groups]
    assert begun == [f"chat-{number}" for number in range(len(begun))]
    assert bus.subscriptions[0].held <= 10 + 1


async def test_a_pause_hands_open_groups_back(chats: Chats) -> None:
    bus, _ = await chats.chat(quiet=1.0)
    await chats.say("a", 0, 1)
    await until(lambda: bus.subscriptions[0].held == 2)

    await bus.pause("d", reason="night")
    await until(lambda: bus.subscriptions[0].held == 0)
    paused, info = list(chats.groups), await chats.world.info("CUSTOM", "d")
    await bus.resume("d")
    await chats.settled(2)

    assert paused == []
    assert info.num_ack_pending == 2
    assert [numbers for _, _, numbers in chats.groups] == [[0, 1]]


async def test_leases_are_kept_while_a_group_waits(chats: Chats) -> None:
    await chats.chat(quiet=2.0, ack_wait=0.5)

    await chats.say("a", 0, 1)
    await chats.settled(2)

    assert (await chats.world.info("CUSTOM", "d")).deliveries == 2
    assert len(chats.groups) == 1


async def test_exactly_once_holds_for_groups(chats: Chats) -> None:
    await chats.chat(exactly_once=True)

    await asyncio.gather(*(chats.say(f"chat-{number % 5}", number) for number in range(30)))
    await chats.settled(30)

    assert set(chats.seen.values()) == {1}

"""Letter search: the newest dead letters first, in steps, and how many there are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from omni_worker.letters.read import LetterFilter
from omni_worker.nats_server import NatsServer
from omni_worker.operations import newest
from omni_worker.operations.dead_letters import DeadLetters
from omni_worker.operations.letter_search import count_matching, count_open, search_letters
from omni_worker.operations.newest import windows
from omni_worker.provision import Provisioner
from omni_worker.settings import Settings
from omni_worker.transports.base import Message
from omni_worker.transports.jetstream import JetStreamTransport
from omni_worker.transports.memory import MemoryTransport

# Written by JSON in more than one way.
SAME = ["{}", "a b", 'quote"d', "ümlaut", "r/1", "r<1>"]


@pytest.fixture
async def transport(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryTransport]:
    """A server with streams, whose windows are small."""
    monkeypatch.setattr(newest, "FIRST_WINDOW", 2)
    found = MemoryTransport()
    await found.open("test")
    await Provisioner(found.operators, create=True, replicas=1).ensure_streams()
    yield found
    await found.close()


async def store(transport: MemoryTransport, **facts: Any) -> None:
    payload = {"originalEventId": "e", "originalEventType": "a.b", "error": "no", "handler": "r1",
               "body": "{}", **facts}  # fmt: skip
    body = {"id": f"{facts}", "type": "system.dead_letter", "payload": payload,
            "metadata": {"source": "shop"}}  # fmt: skip
    await transport.publish(Message("system.dead_letter", json.dumps(body).encode(), ""), timeout=5)


async def numbers(transport: MemoryTransport, limit: int = 100, **wanted: Any) -> list[int]:
    found: list[int] = []
    async for step in search_letters(transport, LetterFilter(**wanted), limit=limit):
        found = [one.sequence for one in step.letters]
    return found


async def test_every_letter_is_found_once_the_newest_first(transport: MemoryTransport) -> None:
    for number in range(11):
        await store(transport, error=f"error {number}")

    assert await numbers(transport) == list(range(11, 0, -1))


async def test_a_search_goes_on_where_it_stopped(transport: MemoryTransport) -> None:
    for number in range(11):
        await store(transport, error=f"error {number}")
    found: list[int] = []
    before = None
    while True:
        async for step in search_letters(transport, LetterFilter(), limit=3, before=before):
            last = step
        found += [one.sequence for one in last.letters]
        before = last.before
        if last.is_complete:
            break

    assert found == list(range(11, 0, -1))


async def test_a_search_says_how_far_it_is(transport: MemoryTransport) -> None:
    for number in range(11):
        await store(transport, error=f"error {number}")

    shares = [
        step.share
        async for step in search_letters(transport, LetterFilter(error="nothing"), limit=3)
    ]

    assert shares == sorted(shares)
    assert len(shares) > 1
    assert shares[-1] == 1.0


@pytest.mark.parametrize("name", SAME)
async def test_names_that_json_escapes_are_found(transport: MemoryTransport, name: str) -> None:
    await store(transport, handler=name, originalEventType="other.type")
    await store(transport, handler="r1", originalEventType=name)

    assert await numbers(transport, handlers={name}) == [1]
    assert await numbers(transport, type=name) == [2]


async def test_what_is_retried_or_discarded_is_found_only_with_all(
    transport: MemoryTransport,
) -> None:
    for number in range(4):
        await store(transport, error=f"error {number}")
    letters = DeadLetters(transport)
    await letters.discard(await letters.get(2))

    counted = [count async for count, _ in count_matching(transport, LetterFilter())]

    assert await numbers(transport) == [4, 3, 1]
    assert await numbers(transport, all=True) == [4, 3, 2, 1]
    assert counted[-1] == 3
    assert (await count_open(transport)).by_handler == {("shop", "r1"): 3}


async def test_a_server_without_letters_has_none() -> None:
    transport = MemoryTransport()
    await transport.open("test")

    counted = [step async for step in count_matching(transport, LetterFilter())]

    assert await numbers(transport) == []
    assert counted == [(0, 1.0)]
    assert (await count_open(transport)).by_handler == {}


async def test_windows_hold_what_lies_between_their_bounds(transport: MemoryTransport) -> None:
    for number in range(9):
        await store(transport, error=f"error {number}")

    async def read(**bounds: Any) -> list[int]:
        return [
            message.sequence
            async for window in windows(transport, "SYSTEM", **bounds)
            for message in window.messages
        ]

    future = datetime.now(UTC) + timedelta(hours=1)
    assert await read() == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert await read(before=4) == [3, 2, 1]
    assert await read(after=6) == [9, 8, 7]
    assert await read(before=99, after=8) == [9]
    assert await read(before=1) == []
    assert await read(since=future) == []
    assert await read(filters=("system.other",)) == []


async def test_few_among_very_many_are_found_and_counted(large_server: NatsServer) -> None:
    transport = JetStreamTransport(Settings(urls=(large_server.url,)))
    await transport.open("test")
    wanted = LetterFilter(handlers={"wanted"})
    try:
        async for step in search_letters(transport, wanted, limit=2_000):
            found = step
        counted = [count async for count, _ in count_matching(transport, wanted)]
    finally:
        await transport.close()

    assert len(found.letters) == len({one.sequence for one in found.letters}) == 1_000
    assert found.is_complete
    assert counted[-1] == 1_000

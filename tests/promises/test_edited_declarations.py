"""A declaration is edited and deployed while events come: nothing is lost, nothing runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from omni_worker import Event, EventBus

from ..waiting import until
from .conftest import World

ONE = {"types": "custom.x", "channel": "a"}
TWO = {"types": "custom.x", "channel": ["a", "b"]}
X = {"types": "custom.x"}
XY = {"types": ["custom.x", "custom.y"]}
ALL = {"types": "custom.*"}


@pytest.fixture
def kind() -> str:
    return "jetstream"  # the server decides what an edited filter delivers


@pytest.mark.parametrize(
    ("before", "after"),
    [(ONE, TWO), (TWO, ONE), (X, XY), (XY, X), (XY, ALL), (ALL, XY), (X, ONE), (ONE, X)],
    ids=[
        "a channel more", "a channel less", "a type more", "a type less",
        "types to a pattern", "a pattern to types", "only one channel", "every channel",
    ],
)  # fmt: skip
async def test_what_both_versions_read_runs_once_while_one_follows_the_other(
    world: World, before: dict[str, Any], after: dict[str, Any]
) -> None:
    runs: Counter[str] = Counter()
    sent: list[str] = []
    over = asyncio.Event()
    # Events without an address have a consumer of their own, which the edit changes as well.
    reads_bare = "channel" not in before | after

    async def handle(event: Event[Any]) -> None:
        runs[event.id] += 1

    async def keep_publishing(one: EventBus) -> None:
        while not over.is_set():
            is_bare = reads_bare and len(sent) % 2 == 0
            there = {} if is_bare else {"channel": "a", "instance": "i"}
            published = await one.publish("custom.x", {}, **there)
            sent.append(published.id)
            await asyncio.sleep(0.005)

    old, new = await world.bus(), await world.bus()
    subscription = await old.subscribe(before["types"], handle, durable="d", **_rest(before))
    publishing = asyncio.create_task(keep_publishing(old))
    await until(lambda: len(runs) > 20)

    await new.subscribe(after["types"], handle, durable="d", **_rest(after))
    both = len(sent)
    await until(lambda: len(sent) > both + 20)
    await subscription.unsubscribe()
    alone = len(sent)
    await until(lambda: len(sent) > alone + 20)
    over.set()
    await publishing

    await until(lambda: set(sent) <= set(runs), timeout=20)
    assert runs == Counter(sent)


def _rest(declaration: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in declaration.items() if key != "types"}

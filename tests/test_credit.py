"""Credit: a pause takes back what was requested, and a release always requests again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker.subscription import credit
from omni_worker.subscription.credit import Credit
from omni_worker.subscription.source_state import SourceState

from .waiting import until


class Source:
    """A source whose withdrawal lasts until it is let go, and then fails."""

    stream, consumer = "CUSTOM", "d"

    def __init__(self) -> None:
        self.outstanding = 0
        self.withdrawing = False
        self.go_on = asyncio.Event()

    def request(self, count: int) -> None:
        if not self.withdrawing:
            self.outstanding += count

    async def withdraw(self) -> None:
        self.withdrawing, self.outstanding = True, 0
        try:
            await self.go_on.wait()
            raise OSError("a fault")
        finally:
            self.withdrawing = False


async def test_a_release_during_a_withdrawal_that_fails_requests_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credit, "TAKEN_BACK_AFTER", 0.0)
    source: Any = Source()
    held = Credit(
        {source: SourceState(source)},
        concurrency=2,
        prefetch=None,
        streams=1,
        ordered=False,
        now=asyncio.get_running_loop().time,
    )
    held.sources_changed()

    held.hold("paused")
    await until(lambda: source.withdrawing)
    held.release("paused")
    before = source.outstanding
    source.go_on.set()
    await until(lambda: source.outstanding > 0)

    assert before == 0
    task = held._taking_back
    assert task is not None
    assert isinstance(task.exception(), OSError)


async def test_a_smaller_concurrency_takes_back_what_was_requested_beyond_it() -> None:
    source: Any = Source()
    source.go_on.set()
    held = Credit(
        {source: SourceState(source)},
        concurrency=20,
        prefetch=None,
        streams=1,
        ordered=False,
        now=asyncio.get_running_loop().time,
    )
    held.sources_changed()
    many = source.outstanding

    held.scale(2)
    await until(lambda: source.outstanding == 4)
    held.scale(5)

    assert many == 40
    assert (held.limit, source.outstanding) == (10, 10)
    assert held._taking_back is not None
    assert isinstance(held._taking_back.exception(), OSError)

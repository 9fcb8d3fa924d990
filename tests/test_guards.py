"""Guards over a bucket whose link breaks between the write and its answer."""

from __future__ import annotations

from typing import Any

from omni_worker import Event
from omni_worker.handlers import declare
from omni_worker.notes import Busy, DoneBefore, Guard, Guards
from omni_worker.signals import Signals
from omni_worker.transports.base import Entry


class AskedAgain:
    """A bucket that writes, and then is asked the same again: the second answer is a refusal."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.breaks = True

    async def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    async def create(self, key: str, value: bytes) -> int | None:
        return await self.update(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        standing = self.entries.get(key)
        if (standing.revision if standing else 0) != revision:
            return None
        self.revision += 1
        self.entries[key] = Entry(value, self.revision)
        return None if self.breaks else self.revision

    async def put(self, key: str, value: bytes) -> int:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        self.entries.pop(key)


def _guards(bucket: AskedAgain) -> Guards:
    async def opened() -> AskedAgain:
        return bucket

    async def route(event: Event[Any]) -> None: ...

    handler = declare(route, app="a", types=["custom.note"], options={"durable": "r1"})
    return Guards(opened, handler, Signals())


async def test_a_guard_we_wrote_ourselves_is_ours_though_the_answer_was_lost() -> None:
    bucket = AskedAgain()

    guard = await _guards(bucket).enter("one", 30)

    assert isinstance(guard, Guard)
    assert await guard.finish()
    assert isinstance(await _guards(bucket).enter("one", 30), DoneBefore)


async def test_a_guard_of_somebody_else_is_not_taken_for_ours() -> None:
    bucket = AskedAgain()
    await _guards(bucket).enter("one", 30)

    bucket.breaks = False

    assert isinstance(await _guards(bucket).enter("one", 30), Busy)

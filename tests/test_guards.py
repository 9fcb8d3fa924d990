"""Guards over a bucket whose link breaks between the write and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from omni_worker import Event
from omni_worker.errors import TransportError
from omni_worker.handlers import declare
from omni_worker.notes import Busy, DoneBefore, Guard, Guarded, Guards, digest_of, guards
from omni_worker.signals import IdUsedAgain, Listener, Signals
from omni_worker.transports.key_value import Entry

from .waiting import until


class AskedAgain:
    """A bucket that writes, and then is asked the same again: the second answer is a refusal."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.breaks = True
        self.is_away = False

    async def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    async def create(self, key: str, value: bytes) -> int | None:
        return await self.update(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        if self.is_away and revision:
            raise TransportError("no answer")
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


ONE = Guarded("CUSTOM", "one", digest_of("custom.note", {"n": 1}), 1)
OTHER = Guarded("CUSTOM", "one", digest_of("custom.note", {"n": 2}), 2)  # another event, one id


def _guards(bucket: AskedAgain, signals: Signals | None = None, app: str = "a") -> Guards:
    async def opened() -> AskedAgain:
        return bucket

    async def route(event: Event[Any]) -> None: ...

    handler = declare(route, app=app, types=["custom.note"], options={"durable": "r1"})
    return Guards(opened, handler, signals or Signals())


async def test_a_guard_we_wrote_ourselves_is_ours_though_the_answer_was_lost() -> None:
    bucket = AskedAgain()

    guard = await _guards(bucket).enter(ONE, 30)

    assert isinstance(guard, Guard)
    await guard.finish()
    assert isinstance(await _guards(bucket).enter(ONE, 30), DoneBefore)


async def test_a_guard_of_somebody_else_is_not_taken_for_ours() -> None:
    bucket = AskedAgain()
    await _guards(bucket).enter(ONE, 30)

    bucket.breaks = False

    assert isinstance(await _guards(bucket).enter(ONE, 30), Busy)


async def test_a_guard_lives_as_long_as_it_says_though_the_newcomer_has_a_shorter_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = AskedAgain()
    bucket.breaks = False
    await _guards(bucket).enter(ONE, 30)
    newcomer = _guards(bucket)
    loop = asyncio.get_running_loop()
    began = loop.time()

    first = await newcomer.enter(ONE, 2)
    monkeypatch.setattr(loop, "time", lambda: began + 29)
    later = await newcomer.enter(ONE, 2)
    monkeypatch.setattr(loop, "time", lambda: began + 31)
    last = await newcomer.enter(ONE, 2)

    assert (type(first), type(later), type(last)) == (Busy, Busy, Guard)


async def test_an_event_that_waits_for_a_guard_is_looked_at_four_times_in_its_lease() -> None:
    """Each time maybe by another process, which then counts the lease from there."""
    bucket = AskedAgain()
    bucket.breaks = False
    await _guards(bucket).enter(ONE, 30)

    entered = await _guards(bucket).enter(ONE, 30)

    assert isinstance(entered, Busy)
    assert 7 < entered.delay < 8


@pytest.mark.parametrize(("end", "then"), [(Guard.clear, Guard), (Guard.finish, DoneBefore)])
async def test_how_a_run_ended_is_written_as_soon_as_the_server_is_back(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[Guard], Awaitable[None]], then: type[object]
) -> None:
    monkeypatch.setattr(guards, "AGAIN", 0.01)
    bucket = AskedAgain()
    bucket.breaks = False
    guard = await _guards(bucket).enter(ONE, 30)
    assert isinstance(guard, Guard)

    bucket.is_away = True
    await end(guard)
    while_away = await _guards(bucket).enter(ONE, 30)
    bucket.is_away = False

    async def is_known() -> bool:
        return isinstance(await _guards(bucket).enter(ONE, 30), then)

    await until(is_known)
    assert isinstance(while_away, Busy)


async def test_an_app_a_stream_and_another_content_have_a_guard_of_their_own() -> None:
    heard: list[IdUsedAgain] = []
    signals = Signals([Listener(heard.append, (IdUsedAgain,))])
    bucket = AskedAgain()
    bucket.breaks = False
    await _guards(bucket).enter(ONE, 30)

    other_app = await _guards(bucket, app="b").enter(ONE, 30)
    other_stream = await _guards(bucket).enter(Guarded("MESSAGE", ONE.id, ONE.digest, 1), 30)
    other_content = await _guards(bucket, signals).enter(OTHER, 30)

    assert isinstance(other_app, Guard)
    assert isinstance(other_stream, Guard)
    assert isinstance(other_content, Guard)
    assert [one.event_id for one in heard] == ["one"]


async def test_a_guard_that_is_open_again_keeps_its_key_from_another_event_of_the_same_id() -> None:
    bucket = AskedAgain()
    bucket.breaks = False
    first = await _guards(bucket).enter(ONE, 30)
    other = await _guards(bucket).enter(OTHER, 30)
    assert isinstance(first, Guard)
    assert isinstance(other, Guard)
    await other.finish()

    await first.clear()

    assert isinstance(await _guards(bucket).enter(OTHER, 30), DoneBefore)
    assert isinstance(await _guards(bucket).enter(ONE, 30), Guard)


async def test_a_second_message_with_the_same_content_is_a_duplicate() -> None:
    bucket = AskedAgain()
    bucket.breaks = False
    guard = await _guards(bucket).enter(ONE, 30)
    assert isinstance(guard, Guard)
    await guard.finish()

    again = await _guards(bucket).enter(ONE, 30)
    copy = await _guards(bucket).enter(Guarded("CUSTOM", "one", ONE.digest, 9), 30)

    assert again == DoneBefore(duplicate=False)
    assert copy == DoneBefore(duplicate=True)


def test_a_digest_ignores_how_json_was_formatted() -> None:
    written = digest_of("custom.note", {"a": 1, "b": [2.0, {"c": None}]})

    assert written == digest_of("custom.note", {"b": [2, {"c": None}], "a": 1.0})
    assert written != digest_of("custom.note", {"a": 1, "b": ["2", {"c": None}]})
    assert written != digest_of("custom.other", {"a": 1, "b": [2, {"c": None}]})


async def test_an_id_cannot_be_written_so_that_it_takes_the_guard_of_another_event() -> None:
    bucket = AskedAgain()
    bucket.breaks = False
    await _guards(bucket).enter(ONE, 30)
    forged = Guarded("CUSTOM", f"one\n{OTHER.digest}", OTHER.digest, 3)
    guard = await _guards(bucket).enter(forged, 30)
    assert isinstance(guard, Guard)
    await guard.finish()

    assert isinstance(await _guards(bucket).enter(OTHER, 30), Guard)

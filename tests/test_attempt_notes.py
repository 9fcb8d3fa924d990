"""Notes that are stored late, or not at all: no event is charged for a death that was none."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from omni_worker import Event, EventBus
from omni_worker.errors import BucketUnavailable
from omni_worker.handlers import declare
from omni_worker.notes import AttemptNotes, Note, NoteState, attempts
from omni_worker.signals import DeadLettered, Listener, NeverEnded, Signal, Signals
from omni_worker.transports.bucket import Bucket
from omni_worker.transports.key_value import Entry
from omni_worker.transports.memory import MemoryServer, MemoryTransport

from .waiting import until


async def _handle(event: Event[Any]) -> None: ...


DELIVERY: Any = SimpleNamespace(
    source=SimpleNamespace(stream="CUSTOM"), sequence=1, stored_at=1, subject="custom.thing"
)


class Silent:
    """A bucket that gets everything in order, and stores and answers once it is back."""

    def __init__(self) -> None:
        self.is_back = asyncio.Event()
        self.sent: list[tuple[str, bytes]] = []

    async def get(self, key: str) -> Entry | None:
        stored = dict(self.sent)
        return Entry(stored[key], 1) if key in stored else None

    async def put(self, key: str, value: bytes) -> int:
        self.sent.append((key, value))
        await self.is_back.wait()
        return 1


def _notes(bucket: Silent) -> AttemptNotes:
    async def opened() -> Any:
        return bucket

    handler = declare(_handle, app="tests", types=["custom.thing"], options={"durable": "d"})
    return AttemptNotes(opened, handler, Signals())


async def test_a_note_that_is_stored_late_is_followed_by_the_one_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "PATIENCE", 0.01)
    bucket = Silent()
    one, other = _notes(bucket), _notes(bucket)
    started = Note(state=NoteState.STARTED, failures=0, first_seen=0.0, alone=True)
    failed = Note(state=NoteState.FAILED, failures=1, first_seen=0.0)

    await one.keep(DELIVERY, started)
    assert not one.works
    await one.keep(DELIVERY, failed)  # in the rest after a failure
    bucket.is_back.set()

    noted = await other.recall(DELIVERY)
    assert noted is not None
    assert (noted.state, noted.failures) == (NoteState.FAILED, 1)
    assert one.is_ours(noted)
    assert not other.is_ours(noted)


async def test_a_settled_event_does_not_keep_others_from_being_repaired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "PATIENCE", 0.01)
    monkeypatch.setattr(attempts, "MOST_UNSURE", 1)
    bucket, settled = Silent(), SimpleNamespace(**{**vars(DELIVERY), "sequence": 2})
    notes: Any = _notes(bucket)
    await notes.keep(settled, Note(state=NoteState.STARTED, failures=0, first_seen=0.0))
    await notes.forget(settled)

    notes.failure = None  # the rest is over
    await notes.keep(DELIVERY, Note(state=NoteState.STARTED, failures=0, first_seen=0.0))
    await notes.keep(DELIVERY, Note(state=NoteState.FAILED, failures=1, first_seen=0.0))

    assert [key for key, _ in bucket.sent].count(bucket.sent[-1][0]) == 2
    assert b'"failed"' in bucket.sent[-1][1]


async def test_a_handback_of_what_did_not_begin_here_hides_no_death() -> None:
    bucket = Silent()
    bucket.is_back.set()
    one, other = _notes(bucket), _notes(bucket)
    again: Any = SimpleNamespace(**vars(DELIVERY), count=2)
    back = Note(state=NoteState.BACK, failures=0, first_seen=1.0)

    await one.keep_back([(again, back)])  # its first run, which noted nothing, may have died
    assert await one.recall(again) is None

    begun = Note(state=NoteState.STARTED, failures=0, first_seen=1.0, deaths=1)
    await other.keep(again, begun)
    await one.keep_back([(again, back)])
    noted = await one.recall(again)
    assert noted is not None
    assert (noted.state, noted.deaths) == (NoteState.STARTED, 1)

    await other.keep_back([(again, back)])  # by the process that began it, and lives
    noted = await one.recall(again)
    assert noted is not None
    assert (noted.state, noted.deaths) == (NoteState.BACK, 1)


async def test_a_run_that_failed_here_is_no_death_though_its_note_could_not_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "REST", 0.0)
    stored, runs, signals = Bucket.put, 0, list[Signal]()

    async def refuse_failures(bucket: Bucket, key: str, value: bytes) -> int:
        if b'"failed"' in value:
            raise BucketUnavailable("full")
        return await stored(bucket, key, value)

    monkeypatch.setattr(Bucket, "put", refuse_failures)

    async def fail(event: Event[Any]) -> None:
        nonlocal runs
        runs += 1
        raise RuntimeError("always")

    async with EventBus(transport=MemoryTransport(MemoryServer()), name="tests") as bus:
        bus.signals.add(Listener(signals.append))
        await bus.subscribe("custom.thing", fail, durable="d", max_retries=5, retry_delay=0.01)

        await bus.publish("custom.thing", {})

        await until(lambda: any(isinstance(one, DeadLettered) for one in signals))
    assert runs == 6
    assert not [one for one in signals if isinstance(one, NeverEnded)]

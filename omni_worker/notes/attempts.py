"""AttemptNotes: how often an event was really tried, kept across processes.

The server counts deliveries, and over-counts: a redeploy, a crash of a neighbour, a lost answer.
So a failure and a handback leave a note before their nak, and from the second delivery on a start
leaves one too. A redelivery without such a note is a suspect: its last run may have killed its
process. A first delivery pays nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from ..errors import OmniWorkerError
from ..handlers import Handler
from ..signals import NotesFailed, Signals
from ..transports.base import Delivery, KeyValue

BUCKET = "omni-worker-notes"
TTL = 7 * 86_400.0  # seconds after the last word on an event
MAX_ERROR = 300  # characters
REST = 5.0  # seconds until notes that did not work are tried again


class NoteState(StrEnum):
    """What happened last to the event."""

    FAILED = "failed"  # its handler failed, it waits for its retry
    BACK = "back"  # handed back in good order, no attempt spent
    STARTED = "started"  # a run began; if it is still so when it comes again, the run never ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known of one event in one handler."""

    state: NoteState
    failures: int
    first_seen: float  # epoch seconds
    error: str = ""  # of the last failure, short
    alone: bool = False  # nothing else ran beside it: if the process died, it was this


class AttemptNotes:
    """The notes of one handler. Where they cannot be kept it says so once and does without."""

    def __init__(
        self, bucket: Callable[[], Awaitable[KeyValue]], handler: Handler, signals: Signals
    ) -> None:
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._handler = handler
        self._signals = signals
        self._rests_until = 0.0  # loop time
        self.works = True

    async def recall(self, delivery: Delivery) -> Note | None:
        """The note on an event; None when there is none, or when notes do not work."""
        if self._rests():
            return None
        try:
            entry = await (await self._notes()).get(self._key(delivery))
        except OmniWorkerError as error:
            self._give_up(error)
            return None
        self.works = True
        return None if entry is None else read_note(entry.value)

    async def keep(self, delivery: Delivery, note: Note) -> None:
        """Write it, and return when it is stored (or cannot be)."""
        if self._rests():
            return
        try:
            await (await self._notes()).put(self._key(delivery), _write(note))
        except OmniWorkerError as error:
            self._give_up(error)
        else:
            self.works = True

    async def keep_all(self, notes: Iterable[tuple[Delivery, Note]]) -> None:
        """The same for many at once."""
        await asyncio.gather(*(self.keep(delivery, note) for delivery, note in notes))

    async def _notes(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._open_bucket()
        return self._bucket

    def _key(self, delivery: Delivery) -> str:
        stream = delivery.source.stream
        return note_key(self._handler.name, stream, delivery.sequence, delivery.stored_at)

    def _rests(self) -> bool:
        """Just after a failure nobody waits for a bucket that does not answer."""
        return not self.works and asyncio.get_running_loop().time() < self._rests_until

    def _give_up(self, error: OmniWorkerError) -> None:
        self._rests_until = asyncio.get_running_loop().time() + REST
        if self.works:
            self.works = False
            self._signals.emit(NotesFailed(handler=self._handler, cause=error))


def note_key(handler: str, stream: str, sequence: int, stored_at: int) -> str:
    """Where the note on one event in one handler is kept."""
    identity = f"{handler}\n{stream}\n{sequence}\n{stored_at}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _write(note: Note) -> bytes:
    return json.dumps(
        {
            "state": note.state,
            "failures": note.failures,
            "firstSeen": note.first_seen,
            "error": note.error[:MAX_ERROR],
            "alone": note.alone,
        }
    ).encode()


def read_note(value: bytes) -> Note | None:
    """Whatever is not ours to understand is no note: the event is looked at with suspicion."""
    try:
        raw = json.loads(value)
        return Note(
            state=NoteState(raw["state"]),
            failures=int(raw["failures"]),
            first_seen=float(raw["firstSeen"]),
            error=str(raw.get("error", "")),
            alone=raw.get("alone") is True,
        )
    except (ValueError, KeyError, TypeError):
        return None

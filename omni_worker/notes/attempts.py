"""AttemptNotes: the real number of attempts of an event, kept across processes.

The server counts deliveries, and a redeploy, a crash of another process or a lost answer adds to
that count. So a failure and a handback write a note before their nak, and from the second delivery
on the start of a run writes one too, before the event is read. A redelivery without such a note, or
with a start alone, may have killed its process. A first delivery writes no note and costs nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from ..errors import BucketUnavailable, OmniWorkerError, TransportError
from ..handlers import Handler
from ..signals import NotesFailed, Signals
from ..topology import NOTES_BUCKET
from ..transports.base import Delivery
from ..transports.key_value import KeyValue
from ..transports.returned import identity_of

T = TypeVar("T")

BUCKET = NOTES_BUCKET
TTL = 7 * 86_400.0  # seconds after the last note on an event
MAX_ERROR = 300  # characters
# Seconds an event waits for its note, and a slot of its handler with it. A bucket whose server goes
# away in good order may have no leader for 9 s, and all that came again would stand still so long.
PATIENCE = 2.0
REST = 5.0  # seconds after a failure until notes are tried again
BRIEFLY = 0.2  # seconds; until a note is sent, if not answered
MOST_UNSURE = 10_000


class NoteState(StrEnum):
    """Last known state of the event."""

    FAILED = "failed"  # its handler failed; the event waits for its retry
    BACK = "back"  # handed back at a stop; no attempt was used
    STARTED = "started"  # a run began; found at the next delivery, the run never ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Facts about one event in one handler."""

    state: NoteState
    failures: int
    first_seen: float  # epoch seconds
    error: str = ""  # of the last failure, short
    alone: bool = False  # no other event ran at the same time: if the process died, this one did it
    deaths: int = 0  # runs since the last that ended, whose processes died
    by: str = ""  # the process that wrote it
    scheduled: bool = False  # its retry was to be kept by a schedule


class AttemptNotes:
    """Notes of one handler. If they cannot be kept, one warning is logged and work goes on."""

    def __init__(
        self, bucket: Callable[[], Awaitable[KeyValue]], handler: Handler, signals: Signals
    ) -> None:
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._opening = asyncio.Lock()  # who asks first writes first
        self._handler = handler
        self._signals = signals
        self._rests_until = 0.0  # loop time
        self.failure: OmniWorkerError | None = None  # None while notes work
        self._name = secrets.token_hex(8)  # of this process
        self._unsure: set[str] = set()  # keys whose last write may be stored later

    @property
    def works(self) -> bool:
        """Return True unless the last try to read or write a note failed."""
        return self.failure is None

    async def recall(self, delivery: Delivery) -> Note | None:
        """Return the note on an event; None if there is none, or if notes do not work."""
        if self._rests():
            return None
        try:
            entry = await _soon((await self._notes()).get(self._key(delivery)))
        except OmniWorkerError as error:
            self._give_up(error)
            return None
        self.failure = None
        return None if entry is None else read_note(entry.value)

    async def keep(self, delivery: Delivery, note: Note) -> None:
        """Write a note; return when it is stored (or cannot be)."""
        key, rests = self._key(delivery), self._rests()
        # The server may still store a note that it did not confirm: this one has to come after it.
        if rests and key not in self._unsure:
            return
        try:
            bucket = await self._notes()
            value = self._write(delivery, note)
            await _soon(bucket.put(key, value), BRIEFLY if rests else PATIENCE)
        except OmniWorkerError as error:
            if not rests:
                self._give_up(error)
            if not isinstance(error, BucketUnavailable) and len(self._unsure) < MOST_UNSURE:
                self._unsure.add(key)
        else:
            self.failure = None
            self._unsure.discard(key)

    def is_ours(self, note: Note) -> bool:
        """Return True if this process wrote a note: it has not died since."""
        return note.by == self._name

    async def keep_all(self, notes: Iterable[tuple[Delivery, Note]]) -> None:
        """Write many notes concurrently."""
        await asyncio.gather(*(self.keep(delivery, note) for delivery, note in notes))

    async def keep_back(self, notes: Iterable[tuple[Delivery, Note]]) -> None:
        """Write many notes of events that go back, none over a note that knows more.

        An event that came again, and did not begin here, may have failed in another process.
        """

        async def keep(delivery: Delivery, note: Note) -> None:
            noted = await self.recall(delivery)
            if noted is None:
                if delivery.count > 1 and not (note.failures or note.deaths):
                    return  # a suspect here, which no note told of, is one for the next process
            elif not self.is_ours(noted):
                if noted.state is NoteState.STARTED or noted.failures >= note.failures:
                    return
            elif noted.failures >= note.failures:
                note = replace(noted, state=NoteState.BACK, alone=False)
            await self.keep(delivery, note)

        await asyncio.gather(*(keep(delivery, note) for delivery, note in notes))

    async def forget(self, delivery: Delivery) -> None:
        """Delete the note on a settled event."""
        key = self._key(delivery)
        self._unsure.discard(key)
        if not self._rests():
            with suppress(OmniWorkerError):  # it expires by itself
                await _soon((await self._notes()).delete(key), BRIEFLY)

    async def _notes(self) -> KeyValue:
        if self._bucket is None:
            async with self._opening:
                if self._bucket is None:
                    self._bucket = await self._open_bucket()
        return self._bucket

    def _key(self, delivery: Delivery) -> str:
        stream = delivery.source.stream
        return note_key(self._handler.name, stream, delivery.sequence, delivery.stored_at)

    def _write(self, delivery: Delivery, note: Note) -> bytes:
        identity = identity_of(delivery)
        raw = {
            "state": note.state,
            "failures": note.failures,
            "firstSeen": note.first_seen,
            "error": note.error[:MAX_ERROR],
            "alone": note.alone,
            "deaths": note.deaths,
            "by": self._name,
            "scheduled": note.scheduled,
            # Read by no worker: the key is a digest, and people ask whose failure this is.
            "app": self._handler.app,
            "handler": self._handler.name,
            "stream": identity.stream,
            "sequence": identity.sequence,
            "subject": delivery.subject,
        }
        return json.dumps(raw).encode()

    def _rests(self) -> bool:
        """Return True shortly after a failure: no event waits for a bucket that does not answer."""
        return not self.works and asyncio.get_running_loop().time() < self._rests_until

    def _give_up(self, error: OmniWorkerError) -> None:
        self._rests_until = asyncio.get_running_loop().time() + REST
        reported, self.failure = self.failure is not None, error
        if not reported:
            self._signals.emit(NotesFailed(handler=self._handler, cause=error))


async def _soon(answer: Coroutine[Any, Any, T], patience: float | None = None) -> T:
    patience = PATIENCE if patience is None else patience
    try:
        async with asyncio.timeout(patience):
            return await answer
    except TimeoutError:
        raise TransportError(f"the bucket {BUCKET}: no answer in {patience:.1f} s") from None


def note_key(handler: str, stream: str, sequence: int, stored_at: int) -> str:
    """Return the key of the note on one event in one handler."""
    identity = f"{handler}\n{stream}\n{sequence}\n{stored_at}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def read_note(value: bytes) -> Note | None:
    """Return None for a note we cannot parse; the event is then treated as a suspect."""
    try:
        raw = json.loads(value)
        return Note(
            state=NoteState(raw["state"]),
            failures=int(raw["failures"]),
            first_seen=float(raw["firstSeen"]),
            error=str(raw.get("error", "")),
            alone=raw.get("alone") is True,
            deaths=int(raw.get("deaths", 0)),
            by=str(raw.get("by", "")),
            scheduled=raw.get("scheduled") is True,
        )
    except (ValueError, KeyError, TypeError):
        return None

"""Stored: what the server keeps for an app: open dead letters, scheduled events, the outbox.

Only what is new since the last look is read, and nothing where nothing changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass

from ..bus import EventBus
from ..letters.marks import BUCKET, mark_key, read_mark
from ..letters.marks import STREAM as MARKS
from ..letters.read import read_letter
from ..operations.letter_lookup import FILTERS
from ..operations.letter_search import OPEN, letter_stream_of
from ..operations.newest import windows
from ..operations.scan import Scan
from ..schedules.messages import due_consumer, schedule_subject
from ..schedules.occurrences import cron_subject
from ..topology import OWN_STREAM
from ..transports.infos import StreamInfo
from .look import Look

MOST = 10_000  # dead letters that are looked at: the newest
_PREFIX = f"$KV.{BUCKET}."

_Streams = Mapping[str, StreamInfo]


@dataclass(slots=True)
class _Letter:
    sequence: int
    handler: str
    is_open: bool = True


class OpenLetterCounts(Look):
    """Open dead letters of an app by the handler that they name, of the newest 10 000."""

    def __init__(self, bus: EventBus, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(bus, loop)
        self.counts: Mapping[str, int] | None = None  # None: not counted yet
        self._letters: dict[str, _Letter] = {}  # by the keys of their marks, the oldest first
        self._created: tuple[int, int] = (0, 0)  # of both streams: another one starts over
        self._read = self._marks_read = 0  # sequences

    async def look(self) -> None:
        """Read new dead letters and marks."""
        streams = {one.name: one for one in await self._bus.transport.operators.streams()}
        stream = streams.get(letter_stream_of([one.config for one in streams.values()]) or "")
        marks = streams.get(MARKS)
        created = (stream.created if stream else 0, marks.created if marks else 0)
        if created != self._created:
            self._letters, self._read, self._marks_read = {}, 0, 0
        self._created = created
        if stream is not None:
            await self._read_letters(stream)
            self._forget_before(stream.state.first_sequence)
        if marks is not None:  # as they were before the letters were read: none is of a later one
            await self._read_marks(marks.state.last_sequence)
        self.counts = Counter(one.handler for one in self._letters.values() if one.is_open)

    async def _read_letters(self, stream: StreamInfo) -> None:
        if stream.state.last_sequence <= self._read:
            return
        found: list[tuple[str, _Letter]] = []  # the newest first
        last = self._read
        reading = windows(self._bus.transport, stream.name, filters=FILTERS, after=self._read)
        async with aclosing(reading) as several:
            async for window in several:
                last = max(last, window.last)
                for message in window.messages:
                    letter = read_letter(message)
                    if letter.app == self._bus.name:
                        key = mark_key(letter.id)
                        found.append((key, _Letter(message.sequence, letter.handler or "")))
                if len(found) >= MOST:
                    break
        self._letters.update(reversed(found))
        self._read = last

    def _forget_before(self, first: int) -> None:
        for key, one in list(self._letters.items()):
            if one.sequence >= first and len(self._letters) <= MOST:
                return
            del self._letters[key]

    async def _read_marks(self, last: int) -> None:
        if last <= self._marks_read:
            return
        transport, between = self._bus.transport, (self._marks_read + 1, last)
        async with Scan(transport, MARKS, filters=(f"{_PREFIX}>",), between=between) as messages:
            async for message in messages:
                letter = self._letters.get(message.subject.removeprefix(_PREFIX))
                if letter is not None:
                    letter.is_open = read_mark(message.body, 1).state in OPEN
        self._marks_read = last


class KeptForLater(Look):
    """Events that our own stream keeps for an app: scheduled ones, and what has to go out."""

    scheduled: int | None = None  # crons, and for a day what was cancelled, among them
    outbox: int | None = None  # due or committed, and not published yet
    _seen = (0, 0)  # last sequence and number of messages when they were counted

    async def look(self) -> None:
        """Ask how many there are."""
        app, operators = self._bus.name, self._bus.transport.operators
        info = await operators.stream_info(OWN_STREAM.name)
        if info is None:
            self.scheduled = self.outbox = None
            self._seen = (0, 0)
            return
        due = await operators.consumer_info(OWN_STREAM.name, due_consumer(app).name)
        self.outbox = None if due is None else due.num_pending + due.num_ack_pending
        seen = (info.state.last_sequence, info.state.messages)
        if seen != self._seen:
            filters = (schedule_subject(app, "*"), cron_subject(app, "*"))
            async with Scan(self._bus.transport, OWN_STREAM.name, filters=filters) as messages:
                self.scheduled = messages.total
            self._seen = seen

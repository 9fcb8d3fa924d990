"""Places: how many runs of a handler go on at once, shared by its processes.

One key of the bucket lists the processes that have places or want some, in the order in which they
are served. A process that did not change its entry for a whole lease, by the reader's clock, has
ended: its places are free. `share` decides, purely; `Places` reads and writes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from ..handlers import Handler
from ..transports.key_value import KeyValue


@dataclass(frozen=True, slots=True)
class Member:
    """Entry of one process: the places it has, and how many more it wants."""

    id: str
    places: int
    wants: int
    beat: int = 0  # changes with every write
    lease: float = 0.0  # seconds without a write after which it has ended


def share(limit: int, members: Sequence[Member], me: Member) -> tuple[list[Member], int]:
    """Return the list after a process kept ``me.places`` and wanted ``me.wants`` more, and its own.

    Who wants places gets a fair part of the free ones; those who wait before it come first. Who
    gives places up is served last from now on.
    """
    at = next((at for at, one in enumerate(members) if one.id == me.id), len(members))
    if at < len(members) and me.places < members[at].places:
        at = len(members)
    others = [one for one in members if one.id != me.id]
    before = [one for one in members[:at] if one.wants and one.id != me.id]
    free = limit - me.places - sum(one.places for one in others)
    part = fair_part(limit, [*others, me])
    kept_for_others = sum(max(0, min(one.wants, part - one.places)) for one in before)
    if any(one.wants for one in others):
        taken = min(me.wants, free - kept_for_others, part - me.places)
    else:
        taken = min(me.wants, free)
    taken = max(0, taken)
    mine = replace(me, places=me.places + taken, wants=me.wants - taken)
    if not (mine.places or mine.wants):
        return others, 0
    if taken or at == len(members):
        return [*others, mine], mine.places
    return [*members[:at], mine, *members[at + 1 :]], mine.places


def fair_part(limit: int, members: Iterable[Member]) -> int:
    """Return the places that each process may have where all of them want more."""
    return max(1, ceil(limit / max(1, len(list(members)))))


class Places:
    """Places of one handler in this process. ``limit`` is that of all processes together."""

    def __init__(
        self, bucket: Callable[[], Awaitable[KeyValue]], handler: Handler, limit: int
    ) -> None:
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._key = f"limit.{handler.app}.{handler.name}"
        self._now = asyncio.get_running_loop().time
        self._watched: dict[str, tuple[int, float]] = {}  # other's id → beat, since when
        self._looked_at = float("-inf")  # loop time
        self._gap = 0.0  # seconds between the last two looks
        self._revision: int | None = None
        self._beat = 0
        self._written_at = float("-inf")  # loop time
        self.id = secrets.token_hex(4)
        self.limit = limit
        self.others: list[Member] = []  # as read last
        self.mine = 0  # places
        self.wants = 0  # as written last

    def is_sure(self, lease: float) -> bool:
        """Return True if no other process may have taken our places for free."""
        return self._now() - self._written_at < lease

    def is_due(self, lease: float) -> bool:
        """Return True if our entry has to be written again, to stay."""
        return self._now() - self._written_at >= lease / 3

    async def look(self) -> list[Member]:
        """Read the list, without those that have ended. Raises TransportError."""
        if self._bucket is None:
            self._bucket = await self._open_bucket()
        entry = await self._bucket.get(self._key)
        self._revision = None if entry is None else entry.revision
        members = [] if entry is None else read_members(entry.value)
        now = self._now()
        self._gap, self._looked_at = now - self._looked_at, now
        listed = {one.id for one in members}
        self._watched = {id: seen for id, seen in self._watched.items() if id in listed}
        members = [one for one in members if one.id == self.id or self._is_alive(one)]
        own = next((one for one in members if one.id == self.id), None)
        self.mine, self.wants = (0, 0) if own is None else (own.places, own.wants)
        self.others = [one for one in members if one.id != self.id]
        return members

    async def write(self, members: Sequence[Member], keeps: int, wants: int, lease: float) -> bool:
        """Keep so many places and want so many more. Return False if another process was faster."""
        assert self._bucket is not None
        self._beat += 1
        began = self._now()
        # Others may have what is given up before we hear that it is written, or never hear it.
        self.mine = min(self.mine, keeps)
        me = Member(self.id, keeps, wants, self._beat, lease)
        after, mine = share(self.limit, members, me)
        value = json.dumps([
            [one.id, one.places, one.wants, one.beat, one.lease] for one in after
        ]).encode()  # fmt: skip
        if self._revision is None:
            revision = await self._bucket.create(self._key, value)
        else:
            revision = await self._bucket.update(self._key, value, self._revision)
        if revision is None:
            return False
        self._revision, self._written_at = revision, began
        self.mine, self.wants = mine, wants - (mine - keeps)
        return True

    def _is_alive(self, one: Member) -> bool:
        now = self._now()
        beat, since = self._watched.get(one.id, (-1, now))
        # In an outage of a whole lease no process could be seen, or write.
        if beat != one.beat or self._gap >= one.lease:
            since = now
            self._watched[one.id] = (one.beat, now)
        return now - since < one.lease


def read_members(value: bytes) -> list[Member]:
    """Read a list; one that cannot be read is empty."""
    try:
        return [
            Member(str(id), max(0, int(places)), max(0, int(wants)), int(beat), float(lease))
            for id, places, wants, beat, lease in json.loads(value)
        ]
    except (ValueError, TypeError, OverflowError):
        return []

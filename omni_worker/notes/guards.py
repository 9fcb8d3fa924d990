"""Guards: one run per event among all processes, for handlers that ask for `exactly_once`.

A guard is running while its handler runs and extends the lease, then done. While the guard is
alive, another delivery of the event waits. When it has expired, another run takes it over by
compare-and-set. When it is done, the delivery is acknowledged without a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import OmniWorkerError
from ..handlers import Handler
from ..signals import GuardLost, GuardNotExtended, Signals
from ..tasks import own
from ..transports.base import Entry, KeyValue

BUCKET = "omni-worker-guards"
REMEMBERED = 10_000  # guards of other runs whose age we watch
MARGIN = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class DoneBefore:
    """The event is handled already, by this or another process."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Another run has the event; check again after ``delay`` seconds."""

    delay: float


class Guard:
    """Guard of an event that this run may handle."""

    def __init__(
        self,
        bucket: KeyValue,
        key: str,
        owner: str,
        revision: int,
        lease: float,
        *,
        on_lost: Callable[[], None],
        on_delayed: Callable[[OmniWorkerError], None],
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._owner = owner
        self._revision = revision
        self._lease = lease
        self._on_lost = on_lost
        self._on_delayed = on_delayed

    async def finish(self) -> bool:
        """Write, before the ack, that the handler succeeded. Return False if the guard was lost."""
        return await self._write(_done(self._owner))

    async def clear(self) -> None:
        """Remove the guard after a failure, handback or dead letter: the event may run again."""
        entry = await self._bucket.get(self._key)
        if _revision_of(entry, self._owner) is not None:
            await self._bucket.delete(self._key)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Extend the guard every third of its lease while the handler runs."""
        keeper = asyncio.create_task(self._keep(), name=own("guard"))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                if not await self._write(_running(self._owner, self._lease)):
                    self._on_lost()
                    return
            except OmniWorkerError as error:
                self._on_delayed(error)

    async def _write(self, value: bytes) -> bool:
        revision = await self._bucket.update(self._key, value, self._revision)
        if revision is None:
            # A write repeated after a broken link is refused, because the first one was stored; or
            # an extension was under way when the handler ended, and this write comes after it.
            entry = await self._bucket.get(self._key)
            revision = _revision_of(entry, self._owner)
            if revision is not None and entry is not None and entry.value != value:
                revision = await self._bucket.update(self._key, value, revision)
        if revision is not None:
            self._revision = revision
        return revision is not None


class Guards:
    """Guards of one handler. A key is the handler's name and a hash of the event id."""

    def __init__(
        self, bucket: Callable[[], Awaitable[KeyValue]], handler: Handler, signals: Signals
    ) -> None:
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._handler = handler
        self._emit = signals.emit
        self._watched: dict[str, tuple[int, float]] = {}  # key → revision, since when (loop time)

    async def enter(self, event_id: str, lease: float) -> Guard | DoneBefore | Busy:
        """Try to get the right to run the event. Raises TransportError if the state is unknown."""
        if self._bucket is None:
            self._bucket = await self._open_bucket()
        bucket = self._bucket
        key = hashlib.sha256(f"{self._handler.name}\n{event_id}".encode()).hexdigest()[:32]
        owner = secrets.token_hex(8)  # of this run alone
        revision = await bucket.create(key, _running(owner, lease))
        if revision is None:
            entry = await bucket.get(key)
            if entry is None:
                return Busy(MARGIN)  # it was removed just now
            if _is_done(entry):
                return DoneBefore()
            # A write repeated after a broken link is refused, because the first one was stored.
            revision = _revision_of(entry, owner)
            if revision is None:
                if (left := self._left(key, entry, lease)) > 0:
                    return Busy(left + MARGIN)
                revision = await bucket.update(key, _running(owner, lease), entry.revision)
            if revision is None:
                return Busy(lease)
        self._watched.pop(key, None)
        return Guard(
            bucket, key, owner, revision, lease,
            on_lost=lambda: self._emit(GuardLost(handler=self._handler, event_id=event_id)),
            on_delayed=lambda cause: self._emit(
                GuardNotExtended(handler=self._handler, event_id=event_id, cause=cause)
            ),
        )  # fmt: skip

    def _left(self, key: str, entry: Entry, lease: float) -> float:
        """Return the seconds until a guard is expired: unchanged for a whole lease, by our clock.

        Clocks of two machines may differ by hours: the time in the guard is only for people.
        """
        now = asyncio.get_running_loop().time()
        revision, since = self._watched.get(key, (0, now))
        if revision != entry.revision:
            since = now
            if len(self._watched) >= REMEMBERED:
                self._watched.pop(next(iter(self._watched)))
            self._watched[key] = (entry.revision, now)
        return lease - (now - since)


def _running(owner: str, lease: float) -> bytes:
    until = round((time.time() + lease) * 1000)
    return json.dumps(
        {"state": "running", "owner": owner, "pid": os.getpid(), "until": until}
    ).encode()


def _done(owner: str) -> bytes:
    at = round(time.time() * 1000)
    return json.dumps({"state": "done", "owner": owner, "at": at}).encode()


def _is_done(entry: Entry) -> bool:
    return _read(entry).get("state") == "done"


def _revision_of(entry: Entry | None, owner: str) -> int | None:
    """Return the revision of an entry if this run wrote it."""
    return entry.revision if entry is not None and _read(entry).get("owner") == owner else None


def _read(entry: Entry) -> dict[str, Any]:
    try:
        value = json.loads(entry.value)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

"""Guards: one run per event among all processes, for handlers that ask for `exactly_once`.

A guard is running(owner, until) while its handler runs and its lease is extended, then done. While
it is alive another delivery waits; when it expired somebody takes it over by compare-and-set; when
it is done the delivery is acknowledged unrun.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..transports.base import Entry, KeyValue

BUCKET = "omni-worker-guards"


@dataclass(frozen=True, slots=True)
class Entered:
    """Ours to run."""


@dataclass(frozen=True, slots=True)
class DoneBefore:
    """Handled already, by whomever."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else runs it; look again after so many seconds."""

    delay: float


class Guard:
    """The guard of one event, as this process holds it."""

    def __init__(self, bucket: KeyValue, key: str, lease: float) -> None:
        self._bucket = bucket
        self._key = key
        self._lease = lease
        self._owner = secrets.token_hex(8)
        self._revision = 0

    async def enter(self) -> Entered | DoneBefore | Busy:
        """Try to become the one who runs it. Raises TransportError when nobody can tell."""
        revision = await self._bucket.create(self._key, self._running())
        if revision is not None:
            self._revision = revision
            return Entered()
        entry = await self._bucket.get(self._key)
        if entry is None:
            return Busy(0.1)  # it was cleared this very moment
        return await self._judge(entry)

    async def extend(self) -> bool:
        """Keep it while the handler runs. Says whether it is still ours."""
        revision = await self._bucket.update(self._key, self._running(), self._revision)
        if revision is None:
            return False
        self._revision = revision
        return True

    async def finish(self) -> bool:
        """The handler succeeded: written before the ack. Says whether it was still ours."""
        done = json.dumps({"state": "done"}).encode()
        return await self._bucket.update(self._key, done, self._revision) is not None

    async def clear(self) -> None:
        """A failure, a handback or a dead letter: the event may run again."""
        entry = await self._bucket.get(self._key)
        if entry is not None and entry.revision == self._revision:
            await self._bucket.delete(self._key)

    async def _judge(self, entry: Entry) -> Entered | DoneBefore | Busy:
        try:
            raw = json.loads(entry.value)
            if raw["state"] == "done":
                return DoneBefore()
            left = float(raw["until"]) - time.time()
        except (ValueError, KeyError, TypeError):
            left = 0.0
        if left > 0:
            return Busy(min(left, self._lease) + 0.05)
        revision = await self._bucket.update(self._key, self._running(), entry.revision)
        if revision is None:
            return Busy(self._lease)
        self._revision = revision
        return Entered()

    def _running(self) -> bytes:
        until = time.time() + self._lease
        return json.dumps({"state": "running", "owner": self._owner, "until": until}).encode()


class Guards:
    """Makes the guards of one handler."""

    def __init__(self, bucket: Callable[[], Awaitable[KeyValue]], handler: str) -> None:
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._handler = handler

    async def guard(self, event_id: str, lease: float) -> Guard:
        """The guard of one event, by consumer and event id; ``lease`` in seconds."""
        if self._bucket is None:
            self._bucket = await self._open_bucket()
        key = hashlib.sha256(f"{self._handler}\n{event_id}".encode()).hexdigest()[:32]
        return Guard(self._bucket, key, lease)

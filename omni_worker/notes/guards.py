"""Guards: one run per event among all processes, for handlers that ask for `exactly_once`.

A guard is running while its handler runs and extends the lease, then done; it is open after a
failure. While the guard is alive, another delivery of the event waits. When it has expired, another
run takes it over by compare-and-set. When it is done, the delivery is acknowledged without a run.

The key of a guard is made of app, origin stream, handler and event id. Its value has the digest of
type and payload: the same id with another digest is another event, and has a guard of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ..errors import OmniWorkerError
from ..handlers import Handler
from ..signals import GuardLost, GuardNotExtended, IdUsedAgain, Signals
from ..tasks import own
from ..transports.key_value import Entry, KeyValue

BUCKET = "omni-worker-guards"
REMEMBERED = 10_000  # guards of other runs whose age we watch
MARGIN = 0.05  # seconds
AGAIN = 0.5  # seconds until a last write is tried again,
LATEST = 120.0  # and for how long at least: a server may be away
# Parts of a lease after which a waiting event comes again, maybe to another process: each counts
# the lease by its own clock, so each is to see the guard soon.
LOOKS = 4


@dataclass(frozen=True, slots=True)
class Guarded:
    """An event as its guard knows it: the stream it was first stored in, its id, and its content.

    ``sequence`` tells a redelivery from a second message.
    """

    stream: str
    id: str
    digest: str
    sequence: int


def digest_of(type: str, payload: Any) -> str:
    """Return the digest of an event's type and payload, however its JSON was formatted."""
    text = json.dumps([type, _plain(payload)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class DoneBefore:
    """The event is handled already, by this or another process.

    ``duplicate``: not this message was handled, but another one with the same id and content.
    """

    duplicate: bool = False


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
        event: Guarded,
        *,
        later: Callable[[Coroutine[Any, Any, None]], None],
        on_lost: Callable[[], None],
        on_delayed: Callable[[OmniWorkerError], None],
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._owner = owner
        self._revision = revision
        self._lease = lease
        self._event = event
        self._later = later
        self._on_lost = on_lost
        self._on_delayed = on_delayed

    async def finish(self) -> None:
        """Write, before the ack, that the handler succeeded."""
        await self._end("done")

    async def clear(self) -> None:
        """Open the guard after a failure, handback or dead letter: the event may run again.

        The key stays: were it removed, another event of the same id could take its place, and
        what was done under the other key would run again.
        """
        await self._end("open")

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Extend the guard every third of its lease while the handler runs."""
        keeper = asyncio.create_task(self._keep(), name=own("guard"))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _end(self, state: str) -> None:
        """Write the last state. While the server is away it is tried again, beside what comes next.

        Without that, another process would wait for the end of the lease, and then run the event.
        """
        value = _ended(state, self._owner, self._event)
        try:
            await self._write(value)
        except OmniWorkerError:
            self._later(self._end_later(value))

    async def _end_later(self, value: bytes) -> None:
        now = asyncio.get_running_loop().time
        ends = now() + max(self._lease, LATEST)
        while now() < ends:
            await asyncio.sleep(AGAIN)
            with suppress(OmniWorkerError):
                await self._write(value)
                return

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                if not await self._write(_running(self._owner, self._event, self._lease)):
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
    """Guards of one handler."""

    def __init__(
        self, bucket: Callable[[], Awaitable[KeyValue]], handler: Handler, signals: Signals
    ) -> None:
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._handler = handler
        self._emit = signals.emit
        self._watched: dict[str, tuple[int, float]] = {}  # key → revision, since when (loop time)
        self._late: set[asyncio.Task[None]] = set()  # last writes that are tried again

    async def enter(self, event: Guarded, lease: float) -> Guard | DoneBefore | Busy:
        """Try to get the right to run the event. Raises TransportError if the state is unknown."""
        if self._bucket is None:
            self._bucket = await self._open_bucket()
        names = (self._handler.app, event.stream, self._handler.name, event.id)
        entered = await self._enter(self._bucket, _key(*names), event, lease)
        if entered is None:
            self._emit(IdUsedAgain(handler=self._handler, event_id=event.id))
            entered = await self._enter(self._bucket, _key(*names, event.digest), event, lease)
        return Busy(lease) if entered is None else entered

    async def _enter(
        self, bucket: KeyValue, key: str, event: Guarded, lease: float
    ) -> Guard | DoneBefore | Busy | None:
        """Try one key; None if it belongs to another event with the same id."""
        owner = secrets.token_hex(8)  # of this run alone
        running = _running(owner, event, lease)
        revision = await bucket.create(key, running)
        if revision is None:
            entry = await bucket.get(key)
            if entry is None:
                return Busy(MARGIN)  # it has expired just now
            guard = _read(entry)
            if guard.get("digest", event.digest) != event.digest:
                return None
            # A write repeated after a broken link is refused, because the first one was stored.
            revision = _revision_of(entry, owner)
            if revision is None:
                match guard.get("state"):
                    case "done":
                        handled = guard.get("sequence", event.sequence)
                        return DoneBefore(duplicate=handled != event.sequence)
                    case "running" if (wait := self._wait(key, entry, guard, lease)) > 0:
                        return Busy(wait + MARGIN)
                revision = await bucket.update(key, running, entry.revision)
            if revision is None:
                return Busy(MARGIN)  # it has changed just now
        self._watched.pop(key, None)
        return Guard(
            bucket, key, owner, revision, lease, event, later=self._later,
            on_lost=lambda: self._emit(GuardLost(handler=self._handler, event_id=event.id)),
            on_delayed=lambda cause: self._emit(
                GuardNotExtended(handler=self._handler, event_id=event.id, cause=cause)
            ),
        )  # fmt: skip

    def close(self) -> None:
        """Try last writes no longer."""
        for task in self._late:
            task.cancel()

    def _later(self, write: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(write, name=own("guard"))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def _wait(self, key: str, entry: Entry, guard: dict[str, Any], lease: float) -> float:
        """Return the seconds until the next look at a guard; 0: it is expired.

        It is when it stayed unchanged for a whole lease, by our clock.

        The lease is the one the guard states: during a deploy its owner may have a longer one than
        this process. Clocks of two machines may differ by hours: the time in the guard is only for
        people. A guard that states no lease is judged by ours.
        """
        now = asyncio.get_running_loop().time()
        revision, since = self._watched.get(key, (0, now))
        if revision != entry.revision:
            since = now
            if len(self._watched) >= REMEMBERED:
                self._watched.pop(next(iter(self._watched)))
            self._watched[key] = (entry.revision, now)
        stated = guard.get("lease")
        whole = stated if isinstance(stated, (int, float)) else lease
        return max(0.0, min(whole - (now - since), whole / LOOKS))


def _key(*names: str) -> str:
    # As JSON: an id of another program may hold whatever would stand between two names.
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """Return JSON with numbers in one form: other programs write 1.0 as 1."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case list():
            return [_plain(one) for one in value]
    return value


def _running(owner: str, event: Guarded, lease: float) -> bytes:
    until = round((time.time() + lease) * 1000)
    return _json("running", owner, event, lease=lease, pid=os.getpid(), until=until)


def _ended(state: str, owner: str, event: Guarded) -> bytes:
    return _json(state, owner, event, at=round(time.time() * 1000))


def _json(state: str, owner: str, event: Guarded, **more: Any) -> bytes:
    known = {"state": state, "owner": owner, "digest": event.digest, "sequence": event.sequence}
    return json.dumps(known | more).encode()


def _revision_of(entry: Entry | None, owner: str) -> int | None:
    """Return the revision of an entry if this run wrote it."""
    return entry.revision if entry is not None and _read(entry).get("owner") == owner else None


def _read(entry: Entry) -> dict[str, Any]:
    try:
        value = json.loads(entry.value)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

"""Keeper: writes schedules into our own stream, replaces and cancels them.

What a write may do is decided from what is kept under its name; it is stored only if nothing else
came in between, else it is decided again.
"""

from __future__ import annotations

import asyncio

from ..errors import ApiError, ConfigError, NoStream, TopologyError, TransportError
from ..ids import random_id
from ..provision import Provisioner
from ..publisher import Draft, Publisher
from ..signals import Signals
from ..subjects import matches
from ..topology import OWN_STREAM
from ..transports.base import Message, Stored, Transport
from ..transports.bucket import WRONG_REVISIONS
from .crons import Crons
from .decisions import Leave, decide_cancel, decide_schedule
from .due import When, due_at
from .forwarder import Forwarder, is_dry
from .messages import (
    Kept,
    Scheduled,
    as_datetime,
    cancellation,
    due_subject,
    over,
    read_kept,
    schedule_message,
    schedule_subject,
)
from .outbox import Outbox
from .own_stream import SCHEDULES, allow

TIMEOUT = 10.0  # seconds
TRIES = 20
DISABLED = 10188
MAX_KEY = 256  # characters; it travels in a header


class Schedules:
    """The schedules of one app."""

    def __init__(
        self,
        publisher: Publisher,
        transport: Transport,
        provisioner: Provisioner,
        signals: Signals,
        *,
        create: bool,
    ) -> None:
        publisher.schedules = self
        self.crons = Crons(publisher, transport, signals, self._prepare)
        self.forwarder = Forwarder(
            publisher.name,
            transport,
            provisioner,
            signals,
            on_resumed=self.crons.resumed,
            restore=self._restore,
        )
        self.outbox = Outbox(
            publisher.name,
            transport,
            provisioner,
            self.forwarder,
            check_stored=self._check_stored,
            create=create,
        )
        self._app = publisher.name
        self._publisher = publisher
        self._transport = transport
        self._operators = transport.operators
        self._provisioner = provisioner
        self._create = create
        self._is_ready = False
        self._is_used = False  # by this process, which then makes what it needs again
        self._preparing = asyncio.Lock()

    async def look(self) -> None:
        """Forward what is due, and catch up on crons."""
        await self.forwarder.look()
        await self.crons.look()

    async def publish(
        self, draft: Draft, when: When, *, cause: int | None, timeout: float
    ) -> Scheduled:
        """Keep an event until it is due; it is checked now.

        ``cause`` is the stored time of the event that causes it.
        """
        key, due = when.key, due_at(when.after, when.at, self._transport.clock())
        name = None if key is None else check_key(key)
        draft.timestamp = due // 1_000_000
        is_repeatable = name is not None or draft.id is not None
        left: list[int | None] = []

        async def keep(message: Message, timeout: float) -> Stored:
            await self._check_stored(message.subject)
            schedule = schedule_message(
                message, self._app, name or message.id, due=due, key=key, cause=cause
            )
            if not is_repeatable:  # its id is as new as this call
                return await self._send(schedule, timeout)
            step = await self._place(schedule, name, message.id, cause, timeout)
            if isinstance(step, Leave):
                left.append(step.due)
                return Stored(OWN_STREAM.name, 0, True)
            return step

        await self._prepare()
        published = await self._publisher.publish(draft, timeout=timeout, via=keep)
        if left:
            return Scheduled(published.id, as_datetime(left[0] or due), key, applied=False)
        return Scheduled(published.id, as_datetime(due), key)

    async def cancel(self, what: Scheduled | str, *, cause: int | None) -> bool:
        """Cancel what is scheduled by this key or id; True if it was in time."""
        if isinstance(what, Scheduled):
            name = what.key if what.key is not None else what.id
        else:
            name = check_key(what)
        await self._prepare()
        write_id = random_id()
        for _ in range(TRIES):
            kept = await self._kept(name)
            if kept is not None and kept.message_id == write_id:  # its confirmation was lost
                return True
            step = decide_cancel(kept, cause=cause)
            if step is None:
                return False
            mark = cancellation(self._app, name, cause=cause)
            try:
                await self._send(over(mark, write_id, step.expected), TIMEOUT)
            except ApiError as error:
                if error.err_code not in WRONG_REVISIONS:
                    raise
                continue
            return kept is not None and not kept.is_cancelled
        raise self._contested(name)

    # --- inside ----------------------------------------------------------------------------

    async def _place(
        self, schedule: Message, key: str | None, id: str, cause: int | None, timeout: float
    ) -> Stored | Leave:
        """Write a schedule unless what is kept under its name forbids it."""
        name, write_id = key or id, random_id()
        fired_on = due_subject(self._app, name)
        for _ in range(TRIES):
            kept, due = await asyncio.gather(
                self._kept(name), self._operators.last_message(OWN_STREAM.name, fired_on)
            )
            if kept is not None and kept.message_id == write_id:  # its confirmation was lost
                return Stored(OWN_STREAM.name, kept.sequence, False)
            step = decide_schedule(kept, read_kept(due), id=id, is_key=key is not None, cause=cause)
            if isinstance(step, Leave):
                return step
            try:
                return await self._send(over(schedule, write_id, step.expected), timeout)
            except ApiError as error:
                if error.err_code not in WRONG_REVISIONS:
                    raise
        raise self._contested(name)

    async def _kept(self, name: str) -> Kept | None:
        subject = schedule_subject(self._app, name)
        return read_kept(await self._operators.last_message(OWN_STREAM.name, subject))

    async def _send(self, message: Message, timeout: float) -> Stored:
        """Store a message in our own stream; one that was deleted since then is made again."""
        try:
            return await self._transport.publish(message, timeout=timeout)
        except (NoStream, ApiError) as error:
            if isinstance(error, ApiError) and error.err_code != DISABLED:
                raise
        self._is_ready = False
        await self._prepare()
        return await self._transport.publish(message, timeout=timeout)

    async def _check_stored(self, subject: str) -> None:
        """Refuse now what no stream would store when it is due."""
        standing = self._provisioner.standing
        if any(matches(pattern, subject) for one in standing for pattern in one.subjects):
            return
        try:
            await self._provisioner.routes((subject,), literal=True)
        except TopologyError as error:
            raise NoStream(str(error)) from None

    async def _prepare(self) -> None:
        """Make what schedules need on the server, once: the stream, and who reads what is due."""
        if self._is_ready:
            return
        async with self._preparing:
            check_version(self._transport.server_version)
            if not is_dry(self._transport):
                await allow(SCHEDULES, self._transport, self._provisioner, create=self._create)
                await self.forwarder.ensure()
            self._is_ready = self._is_used = True

    async def _restore(self) -> None:
        """Make what others deleted again: the consumer of what is due, and our own stream."""
        info = await self._operators.stream_info(OWN_STREAM.name)
        self.forwarder.continue_in(info)
        if self._is_used:
            self._is_ready = False
            await self._prepare()
        elif info is not None:
            await self.forwarder.ensure()

    def _contested(self, name: str) -> TransportError:
        return TransportError(
            f"schedule {name!r} of {self._app}: others changed it {TRIES} times while this tried;"
            " try again, and if it happens often let one process write this key"
        )


def schedules_of(publisher: Publisher) -> Schedules:
    """Return what a publisher publishes later with. Raises ConfigError if it has nothing."""
    if publisher.schedules is None:
        raise ConfigError("this publisher belongs to no bus, and cannot publish anything later")
    schedules: Schedules = publisher.schedules
    return schedules


def check_version(version: tuple[int, int, int]) -> None:
    """Refuse a server that would store a schedule as an ordinary message."""
    if version < SCHEDULES.since:
        raise TransportError(
            f"publishing with after= or at= needs nats-server {_dotted(SCHEDULES.since)} or newer;"
            f" this one is {_dotted(version)}"
        )


def check_key(key: str) -> str:
    """Refuse a key or id that cannot travel in a header."""
    if not isinstance(key, str):
        raise ConfigError(f"key={key!r}: expected a string, got {type(key).__name__}")
    if not key or len(key) > MAX_KEY or not key.isprintable() or key != key.strip():
        raise ConfigError(
            f"key={key[:40]!r}: expected 1 to {MAX_KEY} printable characters, no space at the ends"
        )
    return key


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

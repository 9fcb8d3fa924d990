"""Forwarder: publishes what is due to the subject of its event.

The server can deliver a schedule into our own stream only. Every connected process of an app
reads one consumer there; an event's id is the same however often it is forwarded, so that its
stream keeps one copy. So the leases there are short: what a killed process held comes soon.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import zip_longest

from ..errors import (
    InvalidEvent,
    OmniWorkerError,
    PermissionDenied,
    PublishError,
    TopologyError,
)
from ..provision import Provisioner
from ..signals import NotForwarded, Signals
from ..tasks import own
from ..transports.base import Delivery, Message, Source, Stored, Transport
from ..transports.headers import parse_headers
from ..transports.infos import StreamInfo
from .messages import due_consumer, forwarded
from .occurrences import is_occurrence, occurred
from .reader_pause import ReaderPause

log = logging.getLogger("omni_worker.worker")

AT_ONCE = 4_000  # events that one process asks for or publishes
CHUNK = 250  # events that are answered together, while the next ones are published
TIMEOUT = 4.0  # seconds for one publish
RENEW = 0.15  # seconds; what is here for so long, or twice so long, has its lease renewed
SOON, LATER = 1.0, 30.0  # seconds until the next try: without an answer, after a refusal

_Identity = tuple[int, int]  # the sequence of a message, and when it was stored


def is_dry(transport: Transport) -> bool:
    """Return True if nothing may change on the server, as in a replay's ``--dry-run``."""
    return bool(getattr(transport, "is_dry", False))


class Forwarder:
    """Forwards the due events of one app while connected. Implements the port's Receiver."""

    def __init__(
        self,
        app: str,
        transport: Transport,
        provisioner: Provisioner,
        signals: Signals,
        *,
        on_resumed: Callable[[], None],
        restore: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._on_resumed = on_resumed
        self._restore = restore
        self._spec = due_consumer(app)
        self._transport = transport
        self._provisioner = provisioner
        self._signals = signals
        self._source: Source | None = None
        self._here: dict[_Identity, Delivery] = {}  # held, or on their way: not answered
        self._aging: list[_Identity] = []  # those that were here at the last look
        self._renewal: asyncio.TimerHandle | None = None  # None: nothing is here
        self._held: deque[_Identity] = deque()  # those that are to be published
        self._is_writing = False  # one chunk at a time is written: they stay in order
        self._on_their_way = 0  # events that are written, and not answered
        self._chunks: set[asyncio.Task[None]] = set()
        self._is_to_rest = False  # once nothing is on its way any longer
        # Everything up to here was settled at the last look; None: there was no consumer yet.
        self._floor: int | None = None
        self._is_denied = False
        self._may_restore = True
        self._is_unrestored = False
        self._is_stopping = False
        self._rests_until = 0.0  # the loop's time
        self._beginning = asyncio.Lock()
        self._refused: set[str] = set()  # subjects with an event that waits
        self.pause = ReaderPause(self._spec.name, signals)

    async def ensure(self) -> None:
        """Make the consumer if it is missing, and read it from now on."""
        async with self._beginning:
            # One that was deleted goes on where it was: what was due in between is not lost.
            start = None if self._floor is None else self._floor + 1
            info = await self._provisioner.ensure_consumer(
                replace(self._spec, start_sequence=start)
            )
            self._floor = info.ack_floor
            await self._begin()

    async def look(self) -> None:
        """Begin to read once there is a consumer; recreate one that was deleted while we read."""
        if self._is_denied or self._is_stopping or is_dry(self._transport):
            return
        try:
            async with self._beginning:
                look = self._transport.operators.consumer_info
                info = await look(self._spec.stream, self._spec.name)
                if info is not None:
                    self._floor = info.ack_floor
                    await self._begin()
            self.pause.saw(info)
            if info is None and self._floor is not None and self._may_restore:
                await self._recreate()
        except PermissionDenied as error:
            self._deny(error)
        except OmniWorkerError as error:
            log.debug("events that are due are not read: %s", error)

    def continue_in(self, stream: StreamInfo | None) -> None:
        """Begin at the first message of a stream that was deleted and created again."""
        if self._floor and (stream is None or stream.state.last_sequence < self._floor):
            self._floor = 0

    def open(self) -> None:
        """Forward again after a ``stop``."""
        self._is_stopping = self._is_denied = False

    async def stop(self) -> None:
        """Ask for nothing more, and finish what is here."""
        self._is_stopping = True
        source, self._source = self._source, None
        if source is not None:
            await source.stop()
        while self._chunks:  # the last one that is written begins the next
            await asyncio.gather(*self._chunks, return_exceptions=True)
        if source is not None:
            await source.close()

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Forward it with the others that are here."""
        identity = _identity(delivery)
        is_new = identity not in self._here
        self._here[identity] = delivery  # the latest one is to be answered
        if not is_new:  # its lease ran out; it is held, or on its way
            return
        self._held.append(identity)
        if self._renewal is None:
            self._renew()
        if not self._is_writing:
            self._forward_next()

    def replenish(self, source: Source) -> None:
        """A pull ended."""
        self._ask()

    def resumed(self, source: Source) -> None:
        """The connection is back."""
        self._on_resumed()
        self._ask()

    def lost(self, source: Source, cause: Exception) -> None:
        """Stop reading; the next look finds the consumer or recreates it."""
        self._source = None
        if isinstance(cause, PermissionDenied):
            self._deny(cause)
        else:
            log.debug("events that are due are not read: %s", cause)

    # --- inside ----------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._source is not None or not self._may_read():
            return
        source = await self._transport.consume(self._spec.stream, self._spec.name, self)
        if not self._may_read():  # stopped in between
            await source.close()
            return
        self._source = source
        self._ask()

    def _may_read(self) -> bool:
        return not self._is_stopping and asyncio.get_running_loop().time() >= self._rests_until

    async def _recreate(self) -> None:
        """Make the consumer again, and its stream; another process may have the right to."""
        try:
            await self._restore()
        except (TopologyError, PermissionDenied) as error:
            self._may_restore = not isinstance(error, PermissionDenied)
            if not self._is_unrestored:
                self._is_unrestored = True
                log.warning("events that are due are not forwarded: %s", error)
        else:
            self._is_unrestored = False

    def _deny(self, cause: Exception) -> None:
        """Forward nothing in this process, which lacks a right; others may have it."""
        if not self._is_denied:
            self._is_denied = True
            log.info("events that are due are not forwarded by this process: %s", cause)

    async def _rest(self) -> None:
        """Ask for nothing for some time: a process with the right to publish is to get it."""
        self._rests_until = asyncio.get_running_loop().time() + LATER
        source, self._source = self._source, None
        if source is not None:
            await source.stop()
        while self._held:
            self._settled(self._here[self._held.popleft()]).nak(SOON)
        if source is not None:
            await source.close()
        self._is_to_rest = False

    def _ask(self) -> None:
        if self._source is not None and not self._is_stopping:
            self._source.request(AT_ONCE - len(self._here) - self._source.outstanding)

    def _renew(self) -> None:
        """Renew the leases of what is here for some time; that is more than an event needs."""
        for identity in self._aging if self._transport.is_connected else ():
            if (delivery := self._here.get(identity)) is not None:
                delivery.in_progress()
        self._aging = list(self._here)
        self._renewal = asyncio.get_running_loop().call_later(RENEW, self._renew)

    def _settled(self, delivery: Delivery) -> Delivery:
        """Return the latest delivery of the same event, which is not here any longer."""
        latest = self._here.pop(_identity(delivery))
        if not self._here and self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        return latest

    def _forward_next(self) -> None:
        """Publish the next chunk. Only one at a time is written, so that they go out in order."""
        self._is_writing = bool(self._held) and not self._is_to_rest
        if self._is_writing:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._forward(), name=own("forwarding"))
            self._chunks.add(task)
            task.add_done_callback(self._chunks.discard)

    async def _forward(self) -> None:
        """Publish a chunk; the next one is written while this one waits for its confirmations."""
        held = [self._here[self._held.popleft()] for _ in range(min(CHUNK, len(self._held)))]
        read = [(one, message) for one in held if (message := self._read(one)) is not None]
        self._on_their_way += len(read)
        is_written = False

        def messages() -> Iterator[Message]:
            nonlocal is_written
            for _, message in read:
                yield message
            is_written = True
            self._forward_next()

        results = await self._transport.publish_many(messages(), timeout=TIMEOUT)
        for (delivery, message), result in zip_longest(read, results):
            self._answer(delivery, message, result)
        self._on_their_way -= len(read)
        self._is_to_rest |= any(isinstance(one, PermissionDenied) for one in results)
        if not is_written:  # the link broke
            self._forward_next()
        if self._is_to_rest and not self._on_their_way:
            await self._rest()
        else:
            self._ask()

    def _read(self, delivery: Delivery) -> Message | None:
        headers = parse_headers(delivery.raw_headers)
        try:
            if is_occurrence(headers):
                return occurred(self._app, delivery.subject, headers, delivery.stored_at)
            return forwarded(headers, delivery.body)
        except InvalidEvent as error:
            self._settled(delivery).term(str(error))
            self._signals.emit(NotForwarded(subject=delivery.subject, cause=error, again=None))
            return None

    def _answer(
        self, delivery: Delivery, message: Message, result: Stored | Exception | None
    ) -> None:
        delivery = self._settled(delivery)
        if isinstance(result, Stored):
            self._refused.discard(message.subject)
            delivery.ack()
            return
        if result is None or not self._transport.is_connected:
            return  # it comes again when its lease ends
        again = SOON if isinstance(result, PermissionDenied | PublishError) else LATER
        delivery.nak(again)
        if message.subject not in self._refused:
            self._refused.add(message.subject)
            self._signals.emit(NotForwarded(subject=message.subject, cause=result, again=again))


def _identity(delivery: Delivery) -> _Identity:
    return delivery.sequence, delivery.stored_at

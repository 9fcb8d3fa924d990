"""Forwarder: publishes what is due to the subject of its event.

The server can deliver a schedule into our own stream only. Every connected process of an app
reads one consumer there; an event's id is the same however often it is forwarded, so that its
stream keeps one copy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ..errors import InvalidEvent, OmniWorkerError, PermissionDenied, TopologyError
from ..provision import Provisioner
from ..signals import NotForwarded, Signals
from ..tasks import own
from ..transports.base import Delivery, Message, Source, Stored, Transport
from ..transports.headers import parse_headers
from ..transports.infos import StreamInfo
from .messages import due_consumer, forwarded
from .occurrences import is_occurrence, occurred

log = logging.getLogger("omni_worker.worker")

AT_ONCE = 1000  # events that one process asks for
TIMEOUT = 10.0  # seconds for one publish; below the ack_wait of the consumer
SOON, LATER = 1.0, 30.0  # seconds until the next try: without an answer, after a refusal


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
        self._held: list[Delivery] = []
        self._forwarding: asyncio.Task[None] | None = None
        # Everything up to here was settled at the last look; None: there was no consumer yet.
        self._floor: int | None = None
        self._is_denied = False
        self._may_restore = True
        self._is_unrestored = False
        self._is_stopping = False
        self._rests_until = 0.0  # the loop's time
        self._beginning = asyncio.Lock()
        self._refused: set[str] = set()  # subjects with an event that waits

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
        if self._forwarding is not None:
            await asyncio.gather(self._forwarding, return_exceptions=True)
        if source is not None:
            await source.close()

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Forward it with the others that are here."""
        self._held.append(delivery)
        if self._forwarding is None or self._forwarding.done():
            loop = asyncio.get_running_loop()
            self._forwarding = loop.create_task(self._forward_all(), name=own("forwarding"))

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
            held, self._held = self._held, []
            for delivery in held:
                delivery.nak(SOON)
            await source.close()

    def _ask(self) -> None:
        if self._source is not None and not self._is_stopping:
            self._source.request(AT_ONCE - len(self._held) - self._source.outstanding)

    async def _forward_all(self) -> None:
        while self._held:
            held, self._held = self._held, []
            self._ask()  # the next ones come while these are on their way
            read = [(one, message) for one in held if (message := self._read(one)) is not None]
            results = await self._transport.publish_many(
                [message for _, message in read], timeout=TIMEOUT
            )
            for index, (delivery, message) in enumerate(read):
                self._answer(delivery, message, results[index] if index < len(results) else None)
            if any(isinstance(one, PermissionDenied) for one in results):
                await self._rest()

    def _read(self, delivery: Delivery) -> Message | None:
        headers = parse_headers(delivery.raw_headers)
        try:
            if is_occurrence(headers):
                return occurred(self._app, delivery.subject, headers, delivery.stored_at)
            return forwarded(headers, delivery.body)
        except InvalidEvent as error:
            delivery.term(str(error))
            self._signals.emit(NotForwarded(subject=delivery.subject, cause=error, again=None))
            return None

    def _answer(
        self, delivery: Delivery, message: Message, result: Stored | Exception | None
    ) -> None:
        if isinstance(result, Stored):
            self._refused.discard(message.subject)
            delivery.ack()
            return
        is_unclear = result is None or not self._transport.is_connected
        again = SOON if is_unclear or isinstance(result, PermissionDenied) else LATER
        delivery.nak(again)
        if result is not None and message.subject not in self._refused:
            self._refused.add(message.subject)
            self._signals.emit(NotForwarded(subject=message.subject, cause=result, again=again))

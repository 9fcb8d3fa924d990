"""Long retries: retries that the server's schedules keep, outside of a consumer's limits.

A delayed nak is one of the deliveries that ``max_ack_pending`` counts, for as long as it waits. An
event that waits long is written into our own stream instead, as a schedule, and only then is its
delivery acknowledged. When it is due, `due_retries` hands it to its handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .errors import (
    ApiError,
    EventTooLarge,
    OmniWorkerError,
    PermissionDenied,
    TransportError,
)
from .handler_consumers import is_shared
from .handlers import Handler
from .limits.clock import ServerClock
from .provision import Provisioner
from .retry import RetryPolicy, retry_delay
from .schedules.forwarder import is_dry
from .schedules.own_stream import SCHEDULES, allow
from .schedules.retries import retry_message, retry_of, subjects_of
from .topology import OWN_STREAM
from .transports.base import Delivery, Message, Source, Transport
from .transports.bucket import WRONG_REVISIONS
from .transports.returned import identity_of

log = logging.getLogger("omni_worker.worker")

TIMEOUT = 5.0  # seconds for one write; the event occupies its slot for as long
REST = 30.0  # seconds after a failure, for which retries wait as delayed naks
NANO = 1_000_000_000


class Reader(Protocol):
    """Reader of the retries that are due."""

    @property
    def is_reading(self) -> bool:
        """Return True if the consumer exists and is read."""

    async def ensure(self) -> None:
        """Make the consumer if it is missing, and read it from now on. Raises TransportError."""


class LongRetries:
    """Long retries of one app's handlers. Where they cannot be kept, nothing is lost or changed.

    ``least`` is the shortest delay in seconds of a long one; None: no retry is kept here.
    ``reader`` hands them to their handlers; it is set by the bus.
    """

    def __init__(
        self,
        app: str,
        transport: Transport,
        provisioner: Provisioner,
        *,
        least: float | None,
        create: bool,
    ) -> None:
        self.least = least
        self.reader: Reader
        self._app = app
        self._transport = transport
        self._provisioner = provisioner
        self._create = create
        self._clock: ServerClock | None = None
        self._is_ready = False
        self._preparing = asyncio.Lock()
        self._rests_until = 0.0  # loop time
        self._has_said = False

    @property
    def may_keep(self) -> bool:
        """True unless the server cannot do it, or could not a moment ago."""
        return (
            self.least is not None
            and self._transport.server_version >= SCHEDULES.since
            and asyncio.get_running_loop().time() >= self._rests_until
            and (self.reader.is_reading or not self._is_ready)
            and not is_dry(self._transport)
        )

    async def keep(
        self, delivery: Delivery, handler: str, *, failures: int, first_seen: float, delay: float
    ) -> bool:
        """Store the retry of a failed delivery. If False it is unknown, or known not to be stored.

        A second write of the same retry stores nothing, whether it waits or was due.
        """
        try:
            clock = await self._prepared()
            due = await clock.now() + int(delay * NANO)
            retry = retry_of(
                delivery, self._app, handler, failures=failures, first_seen=first_seen, due=due
            )
            _, due_subject = self._subjects(delivery, handler, failures)
            return await self._store(retry_message(retry, delivery), due_subject)
        except EventTooLarge:  # with the headers of a schedule
            return False
        except OmniWorkerError as error:
            self._is_ready = False
            rest = float("inf") if isinstance(error, PermissionDenied) else REST
            self._rests_until = asyncio.get_running_loop().time() + rest
            if not self._has_said:
                self._has_said = True
                log.info("long retries wait as unacknowledged deliveries: %s", error)
            return False

    async def holds(self, delivery: Delivery, handler: str, failures: int) -> bool:
        """Tell whether the retry of a delivery is stored: it waits, or was due.

        Raises TransportError if that cannot be known.
        """
        look = self._transport.operators.last_message
        # In this order: one that becomes due in between is found at the second place.
        for subject in self._subjects(delivery, handler, failures):
            if await look(OWN_STREAM.name, subject) is not None:
                return True
        return False

    # --- inside ----------------------------------------------------------------------------

    def _subjects(self, delivery: Delivery, handler: str, failures: int) -> tuple[str, str]:
        return subjects_of(self._app, handler, identity_of(delivery), failures)

    async def _store(self, message: Message, due_subject: str) -> bool:
        look = self._transport.operators.last_message
        if await look(OWN_STREAM.name, due_subject) is not None:
            return True
        try:
            await self._transport.publish(message, timeout=TIMEOUT)
        except ApiError as error:
            if error.err_code not in WRONG_REVISIONS:
                raise
            return await look(OWN_STREAM.name, message.subject) is not None
        return True

    async def _prepared(self) -> ServerClock:
        """Make what a retry needs on the server, once: the stream, and a reader of what is due."""
        if self._is_ready and self._clock is not None:
            return self._clock
        async with self._preparing:
            await allow(SCHEDULES, self._transport, self._provisioner, create=self._create)
            await self.reader.ensure()
            if self._clock is None:
                # By the server's own time: a worker whose clock is wrong delays as it should.
                self._clock = ServerClock(
                    self._transport.operators,
                    self._provisioner.ensure_own_stream,
                    OWN_STREAM.name,
                )
            self._is_ready = True
            return self._clock


def may_be_kept(handler: Handler) -> bool:
    """Tell whether schedules may keep a handler's retries.

    With an order a retry holds its key in the process, and a batch is for what comes together. An
    event that every process gets would come back to one of them.
    """
    is_plain = handler.options.order_by is None and handler.batch is None
    return is_plain and is_shared(handler)


def retries_long(handler: Handler, least: float) -> bool:
    """Tell whether a handler's policy has a delay of ``least`` seconds or more."""
    policy = handler.options.retry or RetryPolicy()
    delays = bool(policy.retries) and retry_delay(policy, policy.retries, 0.5) >= least
    return delays and may_be_kept(handler)


@dataclass(slots=True)
class HandlerRetries:
    """Long retries of one handler. ``keeps``: its retries may be kept by schedules at all."""

    handler: Handler
    retries: LongRetries
    keeps: bool
    is_crowded: Callable[[Source], bool] = lambda source: False

    def wants(self, delivery: Delivery, delay: float) -> bool:
        """Tell whether a retry is to be kept: it is long, or too many wait at the consumer."""
        least = self.retries.least
        if not self.keeps or least is None or not self.retries.may_keep:
            return False
        return delay >= least or self.is_crowded(delivery.source)

    async def keep(
        self, delivery: Delivery, *, failures: int, first_seen: float, delay: float
    ) -> bool:
        """Store the retry; see ``LongRetries.keep``."""
        return await self.retries.keep(
            delivery, self.handler.name, failures=failures, first_seen=first_seen, delay=delay
        )

    async def is_kept(self, delivery: Delivery, failures: int) -> bool | None:
        """Tell whether the retry of a delivery is stored; None if that cannot be known now.

        Without the right to look, the event runs: it must not wait for ever.
        """
        try:
            return await self.retries.holds(delivery, self.handler.name, failures)
        except PermissionDenied:
            return False
        except TransportError:
            return None

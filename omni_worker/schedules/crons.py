"""Crons: registers what handlers declare by the clock, and catches up on what was missed.

The server skips the times while it is down; occurrences while no process of the app runs wait,
the last of each cron, like any event that is due.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..cron import Cron, time_before
from ..errors import ApiError, OmniWorkerError, TopologyError
from ..handlers import Handler, cron_type
from ..ids import random_id
from ..publisher import Publisher
from ..subjects import subject_on_the_wire
from ..topology import NANO, OWN_STREAM
from ..transports.base import Message, Transport
from ..transports.bucket import WRONG_REVISIONS
from .messages import over
from .occurrences import (
    cron_message,
    cron_subject,
    occurrence,
    occurrence_subject,
)

log = logging.getLogger("omni_worker.worker")

LEAST_VERSION = (2, 14, 0)
TIMEOUT = 10.0  # seconds
TRIES = 20
LATE = 5 * NANO  # the server may still be about to store an occurrence, as after an election
LONGEST = 29 * 86_400 * NANO  # what was stored of an occurrence before is forgotten
REFUSED = (10189, 10223)  # the expression, the zone


class Crons:
    """The crons that handlers of this process declare."""

    def __init__(
        self, publisher: Publisher, transport: Transport, prepare: Callable[[], Awaitable[None]]
    ) -> None:
        self._app = publisher.name
        self._publisher = publisher
        self._transport = transport
        self._prepare = prepare
        self._declared: dict[str, Cron] = {}  # by durable
        self._is_to_look = False

    async def declare_for(self, handler: Handler) -> None:
        """Register the cron of a handler, if it has one."""
        if handler.cron is not None:
            await self.declare(handler.name, handler.cron)

    async def declare(self, durable: str, cron: Cron) -> None:
        """Register a cron, or what changed of it. The last process to start decides."""
        check_version(self._transport.server_version)
        await self._prepare()
        subject = self._subject(durable)
        await self._register(durable, cron_message(self._app, durable, cron, subject))
        self._declared[durable] = cron
        await self._catch_up(durable, cron)

    def resumed(self) -> None:
        """Look at the next opportunity: the server may have been down."""
        self._is_to_look = True

    async def look(self) -> None:
        """Catch up on what the server missed while it was down."""
        if not self._is_to_look:
            return
        self._is_to_look = False
        try:
            for durable, cron in self._declared.items():
                await self._catch_up(durable, cron)
        except OmniWorkerError as error:
            self._is_to_look = True
            log.debug("crons are not looked at: %s", error)

    # --- inside ----------------------------------------------------------------------------

    async def _register(self, durable: str, message: Message) -> None:
        for _ in range(TRIES):
            kept = await self._transport.operators.last_message(OWN_STREAM.name, message.subject)
            # Writing it again would restart it: a time at this moment would be missed.
            if kept is not None and all(
                list(kept.headers.get(name, ())) == [value]
                for name, value in message.headers.items()
            ):
                return
            write = over(message, random_id(), 0 if kept is None else kept.sequence)
            try:
                await self._transport.publish(write, timeout=TIMEOUT)
            except ApiError as error:
                if error.err_code in REFUSED:
                    raise TopologyError(
                        f"@app.cron of {durable}: the server refuses"
                        f" {message.headers['Nats-Schedule']!r}"
                        f" {message.headers['Nats-Schedule-Time-Zone']}: {error}"
                    ) from None
                if error.err_code not in WRONG_REVISIONS:
                    raise
            else:
                return
        raise TopologyError(f"cron {durable} of {self._app}: others changed it {TRIES} times")

    async def _catch_up(self, durable: str, cron: Cron) -> None:
        """Store the last occurrence if the server did not."""
        if cron.catch_up != "one":
            return
        last_message = self._transport.operators.last_message
        kept = await last_message(OWN_STREAM.name, cron_subject(self._app, durable))
        last = await last_message(OWN_STREAM.name, occurrence_subject(self._app, durable))
        now = self._transport.clock()
        at = time_before(cron.expression, cron.tz, now - LATE)
        if kept is None or at <= max(kept.stored_at, last.stored_at if last else now - LONGEST):
            return
        subject = self._subject(durable)
        missed = occurrence(self._app, durable, cron, subject, at, is_extra=False)
        await self._transport.publish(missed, timeout=TIMEOUT)

    def _subject(self, durable: str) -> str:
        type = cron_type(durable)
        return subject_on_the_wire(type, type, self._publisher.unaddressed)


def check_version(version: tuple[int, int, int]) -> None:
    """Refuse a server without crons."""
    if version < LEAST_VERSION:
        needed, found = (".".join(map(str, one)) for one in (LEAST_VERSION, version))
        raise TopologyError(f"@app.cron needs nats-server {needed} or newer; this one is {found}")

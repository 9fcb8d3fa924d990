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
from ..signals import CronRestored, Signals
from ..subjects import subject_on_the_wire
from ..topology import NANO, OWN_STREAM
from ..transports.base import Message, StoredMessage, Transport
from ..transports.bucket import WRONG_REVISIONS
from .messages import over
from .occurrences import cron_message, occurrence, occurrence_subject
from .paused import paused_like

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
        self,
        publisher: Publisher,
        transport: Transport,
        signals: Signals,
        prepare: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = publisher.name
        self._publisher = publisher
        self._transport = transport
        self._signals = signals
        self._prepare = prepare
        self._declared: dict[str, Cron] = {}  # by durable
        self._current: set[str] = set()  # those the server kept as declared, at the last look
        self._is_to_catch_up = False

    async def declare_for(self, handler: Handler) -> None:
        """Register the cron of a handler, if it has one."""
        if handler.cron is not None:
            await self.declare(handler.name, handler.cron)

    async def declare(self, durable: str, cron: Cron) -> None:
        """Register a cron, or what changed of it. The last process to start decides."""
        check_version(self._transport.server_version)
        await self._prepare()
        await self._register(durable, self._message(durable, cron))
        self._declared[durable] = cron
        self._current.add(durable)
        await self._catch_up(durable, cron)

    def resumed(self) -> None:
        """Catch up at the next look: the server may have been down."""
        self._is_to_catch_up = True

    async def look(self) -> None:
        """Register what was deleted with our own stream, and catch up on what the server missed."""
        is_to_catch_up, self._is_to_catch_up = self._is_to_catch_up, False
        try:
            for durable, cron in list(self._declared.items()):
                await self._keep(durable, cron)
                if is_to_catch_up:
                    await self._catch_up(durable, cron)
        except OmniWorkerError as error:
            self._is_to_catch_up |= is_to_catch_up
            log.debug("crons are not looked at: %s", error)

    # --- inside ----------------------------------------------------------------------------

    async def _keep(self, durable: str, cron: Cron) -> None:
        """Register a cron that is no longer there, unless it was cancelled or changed before."""
        message = self._message(durable, cron)
        kept = await self._kept(message.subject)
        # A cancellation leaves a mark for a day: nothing at all means that the stream was emptied.
        if kept is None and durable in self._current:
            await self._register(durable, message)
            self._signals.emit(CronRestored(name=durable))
        elif _holds(kept, paused_like(message, kept)):
            self._current.add(durable)
        else:
            self._current.discard(durable)

    async def _register(self, durable: str, message: Message) -> None:
        for _ in range(TRIES):
            kept = await self._kept(message.subject)
            wanted = paused_like(message, kept)  # a pause outlives deploys
            # Writing it again would restart it: a time at this moment would be missed.
            if _holds(kept, wanted):
                return
            write = over(wanted, random_id(), 0 if kept is None else kept.sequence)
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
        raise TopologyError(
            f"cron {durable} of {self._app}: others changed it {TRIES} times while this registered"
            " it; start this process again, and look for another version that declares it otherwise"
        )

    async def _catch_up(self, durable: str, cron: Cron) -> None:
        """Store the last occurrence if the server did not."""
        if cron.catch_up != "one":
            return
        message = self._message(durable, cron)
        kept = await self._kept(message.subject)
        if kept is None or not _holds(kept, message):
            return  # it was cancelled or paused, or a newer process declared it otherwise
        last = await self._kept(occurrence_subject(self._app, durable))
        now = self._transport.clock()
        at = time_before(cron.expression, cron.tz, now - LATE)
        if at <= max(kept.stored_at, last.stored_at if last else now - LONGEST):
            return
        subject = self._subject(durable)
        missed = occurrence(self._app, durable, cron, subject, at, is_extra=False)
        await self._transport.publish(missed, timeout=TIMEOUT)

    async def _kept(self, subject: str) -> StoredMessage | None:
        return await self._transport.operators.last_message(OWN_STREAM.name, subject)

    def _message(self, durable: str, cron: Cron) -> Message:
        return cron_message(self._app, durable, cron, self._subject(durable))

    def _subject(self, durable: str) -> str:
        type = cron_type(durable)
        return subject_on_the_wire(type, type, self._publisher.unaddressed)


def _holds(kept: StoredMessage | None, message: Message) -> bool:
    """Return True if the server keeps exactly this cron, neither a cancellation nor another one."""
    return kept is not None and all(
        list(kept.headers.get(name, ())) == [value] for name, value in message.headers.items()
    )


def check_version(version: tuple[int, int, int]) -> None:
    """Refuse a server without crons."""
    if version < LEAST_VERSION:
        needed, found = (".".join(map(str, one)) for one in (LEAST_VERSION, version))
        raise TopologyError(f"@app.cron needs nats-server {needed} or newer; this one is {found}")

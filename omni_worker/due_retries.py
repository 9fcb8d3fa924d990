"""Due retries: what schedules kept until its retry was due, handed to the handler it failed in.

One consumer per app on our own stream, shared by its processes. The first process that keeps a
long retry creates it, and who reads it recreates it if it is deleted.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from .errors import TopologyError
from .schedules.own_stream import SCHEDULES
from .schedules.retries import again_consumer, read_retry, returned, waiting_filter
from .sent_back import Returns
from .settle import Trouble
from .subscription import Subscription
from .topology import OWN_STREAM, ConsumerSpec
from .transports.base import Delivery
from .transports.headers import parse_headers
from .transports.infos import ConsumerInfo
from .transports.returned import Returned

log = logging.getLogger("omni_worker.worker")


class DueRetries(Returns):
    """Reads the retries of an app that are due. They continue as the events they are."""

    # Everything up to here was settled at the last look; None: there was no consumer yet.
    _floor: int | None = None
    _has_looked = False
    _has_said = False

    async def ensure(self) -> None:
        """Make the consumer if it is missing, and read it from now on. Raises TransportError."""
        look = self._transport.operators.consumer_info
        info = await look(self._spec.stream, self._spec.name)
        if info is None:
            start = None if self._floor is None else self._floor + 1
            spec = replace(self._spec, start_sequence=start, ack_wait=self._longest_lease())
            info = await self._provisioner.ensure_consumer(spec)
        await self._found(info)

    def _consumer(self) -> ConsumerSpec:
        return again_consumer(self._app)

    def _read(self, delivery: Delivery) -> tuple[str, Delivery]:
        headers = parse_headers(delivery.raw_headers)
        retry = read_retry(headers, self._app)
        return (
            ("", delivery) if retry is None else (retry.handler, returned(delivery, retry, headers))
        )

    def _lacks(self, error: Exception) -> None:
        """Report it quietly: a worker without the right keeps no retry so."""
        log.info("long retries that are due do not come to this worker: %s", error)

    async def _missing(self) -> None:
        """Make it again where it was; at the start, if a retry waits for it."""
        if self._floor is not None:
            info = await self._transport.operators.stream_info(OWN_STREAM.name)
            if info is None:
                return
            if info.state.last_sequence < self._floor:  # the stream was deleted and made again
                self._floor = 0
            try:
                await self.ensure()
            except TopologyError as error:
                if not self._has_said:
                    self._has_said = True
                    log.warning("long retries that are due do not come: %s", error)
        elif not self._has_looked and self._transport.server_version >= SCHEDULES.since:
            look = self._transport.operators.next_message
            if await look(OWN_STREAM.name, 1, waiting_filter(self._app)) is not None:
                await self.ensure()
            self._has_looked = True

    async def _found(self, info: ConsumerInfo) -> None:
        self._floor = info.ack_floor
        await super()._found(info)

    async def _prepare(self, info: ConsumerInfo) -> None:
        # What is extended too seldom would run in two processes.
        if info.config.ack_wait < (longest := self._longest_lease()):
            await self._provisioner.ensure_consumer(replace(self._spec, ack_wait=longest))

    def _longest_lease(self) -> float:
        waits = (one.handler.options.ack_wait or 0.0 for one in self._subscriptions())
        return max((self._spec.ack_wait, *waits))

    def _expect(self, subscription: Subscription, delivery: Delivery) -> None:
        """Let its runs go on counting: it failed before it was kept."""
        state = subscription.state_of(delivery.source)
        if state is None or not isinstance(delivery, Returned):
            return
        known = state.trouble_of(delivery)
        if known is None and not state.settled.holds(delivery.sequence, delivery.stored_at):
            trouble = Trouble(failures=delivery.failures, first_seen=delivery.first_seen)
            state.remember(delivery, trouble)

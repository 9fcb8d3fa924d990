"""Outbox: stores events in our own stream, all or none; the forwarder publishes them from there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ..errors import (
    ApiError,
    EventTooLarge,
    NoStream,
    NotConnected,
    PermissionDenied,
    PublishError,
    TopologyError,
    TransportError,
)
from ..provision import Provisioner
from ..topology import OWN_STREAM
from ..transports.atomic import OVERHEAD, check_version
from ..transports.base import Message, Transport
from ..transports.bucket import WRONG_REVISIONS
from ..transports.headers import message_headers
from .forwarder import Forwarder, is_dry
from .messages import batch_of
from .own_stream import ATOMIC, allow

ONE_TRY = 5.0  # seconds until a commit without an answer is tried again
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between tries
DISABLED = 10174
# Incomplete, as when the leader changed; too many at once; and those of any publish.
TRANSIENT = frozenset({10176, 10210, 10077, 10023, 10118, 10008, 10074, *WRONG_REVISIONS})


class Outbox:
    """The events of one app that are committed together."""

    def __init__(
        self,
        app: str,
        transport: Transport,
        provisioner: Provisioner,
        forwarder: Forwarder,
        *,
        check_stored: Callable[[str], Awaitable[None]],
        create: bool,
    ) -> None:
        self._app = app
        self._transport = transport
        self._provisioner = provisioner
        self._forwarder = forwarder
        self._check_stored = check_stored
        self._create = create
        self._is_ready = False
        self._preparing = asyncio.Lock()

    async def prepare(self) -> None:
        """Make what a commit needs on the server, once: the stream, and a reader of it."""
        if self._is_ready:
            return
        async with self._preparing:
            check_version(self._transport.server_version)
            if not is_dry(self._transport):
                await allow(ATOMIC, self._transport, self._provisioner, create=self._create)
                await self._forwarder.ensure()
            self._is_ready = True

    async def check(self, event: Message) -> None:
        """Refuse what could not be committed, or could not be forwarded afterwards."""
        await self._check_stored(event.subject)
        [entry] = batch_of([event], self._app)
        size = len(message_headers("", entry.headers)) + len(entry.body) + OVERHEAD
        if size > (most := self._transport.max_payload):
            raise EventTooLarge(
                f"{event.subject}: {size} bytes with headers in an atomic block, the server takes"
                f" {most}; send a reference instead of the data"
            )

    async def commit(self, events: Sequence[Message], timeout: float) -> bool:
        """Store all or none; False if they were committed before.

        Tried again within ``timeout`` seconds. Raises PublishError if it is unknown whether they
        are committed, another error if they are not.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + timeout, FIRST_PAUSE
        unclear: PublishError | None = None
        while True:
            left = max(0.01, deadline - loop.time())
            try:
                return await self._try(events, min(left, ONE_TRY)) or unclear is not None
            except PublishError as error:
                unclear = error
                last: TransportError = error
            except TransportError as error:
                if not await self._may_try_again(error):
                    raise _unknown(events, unclear) if unclear is not None else error from None
                last = error
            if loop.time() + pause >= deadline:
                raise _unknown(events, unclear) if unclear is not None else last from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _try(self, events: Sequence[Message], timeout: float) -> bool:
        if is_dry(self._transport):  # it shows what it is given: the events, not their envelopes
            await self._transport.publish_atomic(events, timeout=timeout)
            return True
        await self.prepare()
        batch = batch_of(events, self._app)
        try:
            await self._transport.publish_atomic(batch, timeout=timeout)
        except ApiError as error:
            if error.err_code not in WRONG_REVISIONS:
                raise
            look = self._transport.operators.last_message
            if await look(OWN_STREAM.name, batch[0].subject) is None:  # not yet, or no longer
                raise
            return False
        return True

    async def _may_try_again(self, error: TransportError) -> bool:
        """Tell whether a later try may go well; prepare again what was deleted in between."""
        if isinstance(error, NoStream) or _code(error) == DISABLED:
            was_ready, self._is_ready = self._is_ready, False
            return was_ready
        if isinstance(error, ApiError):
            return error.err_code in TRANSIENT
        is_final = isinstance(error, (NotConnected, PermissionDenied, TopologyError))
        return not is_final and self._transport.failure is None


def _code(error: TransportError) -> int:
    return error.err_code if isinstance(error, ApiError) else 0


def _unknown(events: Sequence[Message], cause: PublishError) -> PublishError:
    return PublishError(
        f"the commit of {len(events)} events: {cause}. The same events with the same ids are"
        " committed once",
        event_id=events[0].id,
    )

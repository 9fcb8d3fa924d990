"""Acks: sent without waiting, and sent again after the link, or a leader, was replaced.

An ack that was lost brings its event again after ack_wait, perhaps to another process, which would
run it a second time; the same ack twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from ...errors import TransportError
from ..base import ACK
from .connection import Connection
from .requests import Reply, Requests

# A delivery belongs to a request of ours, and the server reads in our order: all answers sent
# before that request have arrived. So the acks of two full requests cover every broken link.
KEPT = 4_096
AGE = 15.0  # seconds; longer than it takes to notice a dead link
CONFIRM_TRIES = 3
CONFIRM_TIMEOUT = 2.0  # seconds, each

log = logging.getLogger("omni_worker.transport")


class Answers:
    """Acks of one consumer: the recent ones (AGE to 2 × AGE seconds), and unsent ones.

    ``is_ours`` returns True if the consumer is still the one the acks belong to: in a recreated
    consumer the same sequences may mean other events.
    """

    def __init__(
        self, connection: Connection, requests: Requests, is_ours: Callable[[], Awaitable[bool]]
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._is_ours = is_ours
        self.acks: deque[bytes] = deque(maxlen=KEPT)  # frames sent, or to be sent
        self._earlier: tuple[bytes, ...] = ()
        self._unsent: deque[bytes] = deque(maxlen=KEPT)
        self._since = 0.0
        self._repair: asyncio.Task[None] | None = None

    def send(self, reply: bytes, answer: bytes, *, settles: bool) -> None:
        """Write an answer other than an ack, or keep it for the next link."""
        frame = b"PUB %b %d\r\n%b\r\n" % (reply, len(answer), answer)
        is_sent = self._connection.send(frame)
        if settles:
            self.acks.append(frame)
        elif not is_sent:
            self._unsent.append(frame)

    async def confirm(self, reply: bytes) -> bool:
        """Acknowledge by request, repeated if needed: a second ack of a message does no harm."""
        for _ in range(CONFIRM_TRIES):
            try:
                said = await self._requests.ask(
                    reply.decode(), ACK, timeout=CONFIRM_TIMEOUT, accept=_is_the_consumers
                )
            except TransportError as error:
                log.debug("%s: not confirmed: %s", reply.decode(), error)
            else:
                return said.status == 0
        return False

    def all_is_well(self, now: float) -> None:
        """Note that the server answered: acks sent long before have arrived."""
        if now - self._since >= AGE:
            self._earlier = tuple(self.acks)
            self.acks.clear()
            self._since = now

    def again(self) -> None:
        """Re-send acks that may be lost, once the server confirms that the consumer is the same."""
        self.close()
        if self.acks or self._earlier or self._unsent:
            self._repair = asyncio.get_running_loop().create_task(self._say_again())

    def close(self) -> None:
        """Stop re-sending."""
        if self._repair is not None:
            self._repair.cancel()

    async def _say_again(self) -> None:
        try:
            if not await self._is_ours():
                return
        except TransportError:
            return  # the next broken link brings us here again
        frames = (*self._earlier, *self.acks, *self._unsent)
        if self._connection.send(b"".join(frames)):
            self._unsent.clear()


def _is_the_consumers(reply: Reply) -> bool:
    """Return True for a confirmation: the server confirms an ack with an empty message.

    An empty reply of another program counts, too: the server passes an ack to the consumer at the
    same time as to other subscribers.
    """
    return bool(reply.status) or not reply.body

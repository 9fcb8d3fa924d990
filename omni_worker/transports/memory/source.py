"""The source: one consumer read over a link."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from ..base import ACK, Delivery, Receiver, Served
from .link import Link, LinkLost
from .server import MemoryServer
from .stream import Record

BRIEF = 0.5  # seconds until a brief request ends
ACKS_KEPT = 4_096  # re-sent after a broken link: they may be lost


class SendAnswer(Protocol):
    """Carry an answer over the link."""

    def __call__(self, act: Callable[[], None], *, is_ack: bool = False) -> None:
        """Send an answer; ``act`` is its effect on the server."""


class MemorySource:
    """A Source of the port."""

    def __init__(
        self, server: MemoryServer, link: Link, send_answer: SendAnswer,
        stream: str, consumer: str, receiver: Receiver, served: Served | None = None,
    ) -> None:  # fmt: skip
        self.stream = stream
        self.consumer = consumer
        self.outstanding = 0
        self._server = server
        self._link = link
        self._send_answer = send_answer
        self._receiver = receiver
        self._stopped = False
        self._closed = False
        self._cut_at = 0.0
        self._made = server.consumer(stream, consumer)
        self._served = served
        self._has_group = bool(self._made and self._made.config.get("priority_groups"))
        self.pin = 0
        self._acks: deque[Callable[[], None]] = deque(maxlen=ACKS_KEPT)

    # --- the port --------------------------------------------------------------------------

    repeats = 0  # no request is lost while the link is up

    @property
    def is_served(self) -> bool:
        """Return True with the pin, or on a consumer without a group."""
        return bool(self.pin) or not self._has_group

    @property
    def silent_for(self) -> float:
        """Return the seconds since the link was cut; a working link is never silent."""
        if not self.outstanding or self._link.is_up:
            return 0.0
        return asyncio.get_running_loop().time() - self._cut_at

    def request(self, count: int, *, brief: bool = False) -> None:
        """Request ``count`` more; a request that cannot be sent is repeated after a reconnect."""
        if self._stopped or count <= 0 or not self._link.is_up:
            return
        self.outstanding += count
        ends = BRIEF if brief else None
        self._link.send(partial(self._server.pull, self.stream, self.consumer, self, count, ends))

    def ack(self, delivery: Delivery) -> None:
        """Send an ack."""
        act = self._act(delivery, ACK)
        self._send_answer(act, is_ack=True)
        self._acks.append(act)

    def answer(self, delivery: Delivery, answer: bytes, *, settles: bool = False) -> None:
        """Send any other answer."""
        act = self._act(delivery, answer)
        self._send_answer(act)
        if settles:
            self._acks.append(act)

    async def confirm(self, delivery: Delivery) -> bool:
        """Acknowledge, and wait for the server's answer; the ack may be lost like any other."""
        if not self._link.is_up:
            return False
        taken = False

        def take() -> None:
            nonlocal taken
            taken = self._server.consumer(self.stream, self.consumer) is not None
            self._server.answer(self.stream, self.consumer, delivery.sequence, ACK)

        self._send_answer(take, is_ack=True)
        try:
            await self._link.call(lambda: None)  # its answer comes after that of the ack
        except LinkLost:
            return False
        return taken

    async def withdraw(self) -> None:
        """Take back what is asked for and not delivered."""
        if self._stopped or not self.outstanding:
            return
        self.outstanding = 0
        with suppress(LinkLost):
            await self._link.call(self._withdraw)

    async def stop(self) -> None:
        """Stop requesting. Deliveries on their way have arrived at the return."""
        if self._stopped:
            return
        self._stopped = True
        self.outstanding = 0
        try:
            # The answer comes after everything the server had already sent.
            await self._link.call(self._withdraw)
        except LinkLost:
            return  # and everything on its way is lost with the link

    def lose(self, cause: Exception) -> None:
        """Stop reading: the consumer is gone."""
        if not self._stopped:
            self._stopped = True
            self.outstanding = 0
            self._receiver.lost(self, cause)

    async def close(self) -> None:
        """Forget the source; late deliveries are dropped."""
        self._stopped = self._closed = True
        self.outstanding = 0
        self._link.send(partial(self._server.release, self.stream, self.consumer, self))

    # --- what the transport calls ----------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """True if stopped, closed or lost: the source will never request again."""
        return self._stopped

    def on_cut(self) -> None:
        """Handle a cut: the server drops our requests."""
        self._cut_at = asyncio.get_running_loop().time()
        self._server.cut_off(self.stream, self.consumer, self)

    def on_up(self) -> None:
        """Handle a new link: every request of the old one is gone."""
        if not self._stopped:
            self.outstanding = 0
            self._receiver.resumed(self)
            self._link.send(self._acknowledge_again)

    # --- what the server calls -------------------------------------------------------------

    def take(
        self, record: Record, count: int, consumer_sequence: int, pending: int, pin: int
    ) -> None:
        """Send a delivery over the link."""
        self._link.hand_over(partial(self._receive, record, count, consumer_sequence, pending, pin))

    def unpinned(self) -> None:
        """Handle a refused request: another process may be served by now."""
        self._link.hand_over(self._stand_by)

    def ended(self, missing: int) -> None:
        """Handle the end of a brief request."""
        self._link.hand_over(partial(self._end_request, missing))

    def gone(self, cause: Exception) -> None:
        """Handle the end of the consumer."""
        self._link.hand_over(partial(self.lose, cause))

    # --- inside ----------------------------------------------------------------------------

    def _act(self, delivery: Delivery, answer: bytes) -> Callable[[], None]:
        return partial(self._server.answer, self.stream, self.consumer, delivery.sequence, answer)

    def _acknowledge_again(self) -> None:
        """Re-send acks, unless the consumer was recreated: its sequences mean other events."""
        if self._server.consumer(self.stream, self.consumer) is self._made:
            for act in self._acks:
                act()
        self._acks.clear()

    def _stand_by(self) -> None:
        if not self.pin:
            return
        self.pin = self.outstanding = 0
        if self._stopped:
            return
        if self._served is not None:
            self._served(self, self.is_served)
        self._receiver.replenish(self)

    def _receive(
        self, record: Record, count: int, consumer_sequence: int, pending: int, pin: int
    ) -> None:
        if self._closed:
            return
        if pin != self.pin or (self._has_group and not pin):
            self.pin, self._has_group = pin, bool(pin)
            if self._served is not None and not self._stopped:
                self._served(self, True)
        if self.outstanding:
            self.outstanding -= 1
        words = (count, record.sequence, consumer_sequence, record.stored_at, pending)
        reply = f"$JS.ACK.{self.stream}.{self.consumer}." + ".".join(map(str, words))
        self._receiver.receive(
            Delivery(
                self,
                record.subject,
                record.body,
                record.block,
                reply.encode(),
                record.sequence,
                record.stored_at,
                count,
            )
        )

    def _end_request(self, missing: int) -> None:
        self.outstanding = max(0, self.outstanding - missing)
        if not self._stopped:
            self._receiver.replenish(self)

    def _withdraw(self) -> None:
        self._server.withdraw(self.stream, self.consumer, self)

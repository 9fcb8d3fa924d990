"""PinnedPull: read a consumer that serves one process at a time (priority group, ADR-42).

The server pins the client whose request it answers next: each delivery carries the pin's id, and
further requests have to name it. The pin is lost when nothing was requested by it for the
consumer's ``priority_timeout``; so it is renewed every second, whether or not there is room for a
delivery. Requests of other processes wait, as those of an idle consumer do.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from ...errors import TransportError
from ..base import Served
from ..headers import status_of
from ..infos import ConsumerConfig
from .last_deliveries import LastDeliveries
from .pull import Pull

GROUP = "active"  # the name in requests; a consumer without groups takes any
RENEWAL = 0.9  # seconds a request that renews the pin may wait
LOOK, LOOKS = 0.05, 100  # seconds between two looks at who is served; so many, after a restart
UNPIN_TIME = 1.0  # seconds a closing source waits for the server's answer
WRONG_PIN, BAD_REQUEST = 423, 400
_PIN_ID = b"\r\nNats-Pin-Id: "
_NO_HEADERS = b"NATS/1.0\r\n\r\n"


class PinnedPull(Pull):
    """Source of the port. ``served`` is told when this process begins and ceases to be served."""

    def __init__(
        self, *parts: Any, config: ConsumerConfig | None, served: Served | None, **others: Any
    ) -> None:
        groups = [] if config is None else config.raw.get("priority_groups") or []
        self._name = str(groups[0]) if groups else GROUP
        self._has_group = bool(groups)  # as far as is known
        self._pin = b""
        self._served = served
        self._is_renewed = False  # the link, since the pin was used last
        self._finding: asyncio.Task[None] | None = None
        super().__init__(*parts, **others)
        self._set_pin(b"")
        self._unpin = self._subject.decode().replace(".MSG.NEXT.", ".UNPIN.", 1)
        self._renewals = self._connection.new_inbox()
        self._renewals_sid = self._connection.listen(self._renewals + b".*", self._on_renewal)

    # --- the port --------------------------------------------------------------------------

    def request(self, count: int, *, brief: bool = False) -> None:
        """Request as any pull; without a pin one request at a time: only one would get it."""
        if self.outstanding and not self._pin:
            self._is_more_wanted = True
        else:
            super().request(count, brief=brief)

    async def close(self) -> None:
        """Close the source; the next process is served at once."""
        pin = self._pin
        self._set_pin(b"")
        if self._finding is not None:
            self._finding.cancel()
        await super().close()
        self._connection.forget(self._renewals_sid)
        if pin and self._connection.is_up:
            with suppress(TransportError):  # without the right to it the pin runs out
                body = json.dumps({"group": self._name}).encode()
                await self._requests.ask(self._unpin, body, timeout=UNPIN_TIME)

    async def _last_deliveries(self) -> None:
        if self.is_served:  # while it stands by, nothing is on its way
            await LastDeliveries(
                self, self._connection, self._consumer_info,
                self._subject, self._inbox, self._on_message, self._group,
            ).arrive()  # fmt: skip

    # --- what the transport calls ----------------------------------------------------------

    def on_up(self) -> None:
        """Use a new link, maybe of a server that knows no pins."""
        self._is_renewed = True
        super().on_up()

    @property
    def is_over(self) -> bool:
        """True if it never requests again. The pin is kept for the runs that go on after a stop."""
        return super().is_over and not self._pin

    def watch(self, now: float) -> None:
        """Watch as any pull, and renew the pin."""
        super().watch(now)
        if self._pin and self._connection.is_up:
            # It can bring nothing: no event is that small. A full or paused consumer keeps it, so
            # it ends before the next one.
            expires = min(RENEWAL, self._limits.expires) * 1e9
            body = b'{"batch":1,"max_bytes":1,%b"no_wait":true,"expires":%d}' % (
                self._group, expires,
            )  # fmt: skip
            inbox = b"%b.%b" % (self._renewals, self._pin)
            self._connection.send(
                b"PUB %b %b %d\r\n%b\r\n" % (self._subject, inbox, len(body), body)
            )

    def lose(self, cause: Exception) -> None:
        """Stop reading: the consumer is gone, and the pin with it."""
        self._set_pin(b"")
        super().lose(cause)

    # --- messages --------------------------------------------------------------------------

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes | None, body: bytes) -> None:
        if reply.startswith(b"$JS.ACK."):
            pin, headers = without_pin(headers)
            if pin != self._pin or (self._has_group and not pin):
                self._has_group = bool(pin)
                self._set_pin(pin)
                self._tell(True)
        super()._on_message(subject, reply, headers, body)

    def _on_status(self, status: int, headers: bytes) -> None:
        if status == WRONG_PIN:
            self._lost_pin()
        elif status == BAD_REQUEST and b"Not a Pinned Client" in headers:
            self._has_group = False
            self._lost_pin()
        else:
            super()._on_status(status, headers)

    def _on_renewal(self, subject: bytes, reply: bytes, headers: bytes | None, body: bytes) -> None:
        is_refused = status_of(headers) in (WRONG_PIN, BAD_REQUEST)
        if is_refused and self._pin and subject.endswith(self._pin):
            self._on_status(status_of(headers), headers or b"")

    # --- the pin ---------------------------------------------------------------------------

    def _lost_pin(self) -> None:
        """Stand by: the requests by the old pin are refused, so others are made.

        A server that was restarted knows no pin, and one killed with -9 not all of its deliveries.
        So what is held is kept until it is clear that another process is served.
        """
        if not self._pin:
            return
        self._set_pin(b"")
        self._connection.forget(self._sid)
        self._open_inbox()
        if self._is_renewed and self._has_group:
            self.is_served = True
            self._finding = asyncio.get_running_loop().create_task(self._find_turn())
        else:
            self._tell(self.is_served)
        self._is_renewed = False
        self._ended(0)

    async def _find_turn(self) -> None:
        """Wait until this process is served again, or another one, as the server says."""
        for _ in range(LOOKS):
            info = await self._ask()
            is_taken = info is not None and info.has_pin
            # A delivery with the pin may be on its way here.
            await asyncio.sleep(LOOK)
            if self._pin or self._stopped:
                return
            if is_taken:
                break
        self._set_pin(b"")
        self._tell(self.is_served)

    def _set_pin(self, pin: bytes) -> None:
        self._pin = pin
        self.is_served = bool(pin) or not self._has_group
        self._group = b'"group":%b,' % json.dumps(self._name).encode()
        if pin:
            self._group += b'"id":"%b",' % pin

    def _tell(self, is_served: bool) -> None:
        if self._served is not None and not self._stopped:
            self._served(self, is_served)


def without_pin(headers: bytes | None) -> tuple[bytes, bytes | None]:
    """Return a delivery's pin id, which the server puts behind all headers, and the other headers.

    The id is empty where the server put none.
    """
    if (
        headers is None
        or (begin := headers.rfind(_PIN_ID)) < 0
        or not headers.endswith(b"\r\n\r\n")
    ):
        return b"", headers
    pin = headers[begin + len(_PIN_ID) : -4]
    if b"\r\n" in pin:  # a header of the event's publisher
        return b"", headers
    rest = headers[:begin] + b"\r\n\r\n"
    return pin, None if rest == _NO_HEADERS else rest

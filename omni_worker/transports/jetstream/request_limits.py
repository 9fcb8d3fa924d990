"""Request limits: how many deliveries, bytes and seconds one pull request may ask for."""

from __future__ import annotations

import re
from functools import lru_cache
from math import inf, isqrt

from ..infos import ConsumerConfig

UNLIMITED = 1 << 30  # deliveries
MOST_BYTES = 4 * 1024 * 1024
LEAST_BYTES = 64 * 1024
SHORT_LIFE = 5.0  # seconds; longer than a server takes to send what was asked for
_PENDING_BYTES = re.compile(rb"Nats-Pending-Bytes: *(\d+)", re.IGNORECASE)


class Budget:
    """Bytes that one request may bring, for all pulls of a connection.

    A server drops a link on which more than its `max_pending` waits to be sent. It says neither
    that nor the limit: a link that broke soon after its pulls had asked gets smaller requests.
    """

    def __init__(self) -> None:
        self.bytes = MOST_BYTES

    def link_broke(self, lived: float) -> bool:
        """Ask for half from now on if the link lived shortly; return True if that is less."""
        before = self.bytes
        if lived < SHORT_LIFE:
            self.bytes = max(LEAST_BYTES, before // 2)
        return self.bytes < before


class RequestLimits:
    """Limits of one pull's requests: those of its consumer, and the budget of bytes."""

    def __init__(self, budget: Budget, config: ConsumerConfig | None = None) -> None:
        self._budget = budget
        self._batch = UNLIMITED
        self._bytes = MOST_BYTES
        self.expires = inf  # seconds
        self._ended_by_bytes = False  # the last request
        self._one_at_a_time = False
        self._is_too_large = False  # the next message, for any request with a limit of bytes
        if config is not None:
            self.read(config)

    def read(self, config: ConsumerConfig) -> bool:
        """Take over a consumer's limits; return True if they changed."""
        before = self._batch, self._bytes, self.expires
        raw = config.raw
        self._batch = raw.get("max_batch") or UNLIMITED
        self._bytes = raw.get("max_bytes") or MOST_BYTES
        self.expires = (raw.get("max_expires") or inf) / 1e9
        return before != (self._batch, self._bytes, self.expires)

    def allowed(self, count: int, outstanding: int) -> int:
        """Return how many of ``count`` deliveries the next request may ask for.

        Of large events one request is open at a time: two would bring twice the bytes.
        """
        if outstanding and (self._one_at_a_time or self._is_too_large):
            return 0
        return 1 if self._is_too_large else min(count, self._batch)

    def option(self, count: int, outstanding: int, max_payload: int) -> bytes:
        """Return the option of the request for ``count`` that is sent now.

        With a limit of bytes the server answers each full request with a status: none where the
        deliveries cannot be too large.
        """
        self._is_too_large = False
        if not outstanding:
            self._one_at_a_time, self._ended_by_bytes = self._ended_by_bytes, False
        if count == 1 or count * max_payload <= self._budget.bytes:
            return b""
        return b'"max_bytes":%d,' % self._most_bytes

    def request_ended(self, status: str, headers: bytes) -> None:
        """Note a request that ended early: the next message may not have fitted any more.

        If nothing came by it, the message is larger than the limit: the next request is for that
        one alone, without a limit.
        """
        if "maxbytes" not in status:
            return
        self._ended_by_bytes = True
        left = _PENDING_BYTES.search(headers)
        self._is_too_large = left is None or int(left.group(1)) >= self._most_bytes

    @property
    def _most_bytes(self) -> int:
        return prime_up_to(min(self._budget.bytes, self._bytes))


@lru_cache
def prime_up_to(most: int) -> int:
    """Return the largest prime up to ``most``.

    A request whose bytes are used up exactly ends without a word, whatever is still missing of its
    batch: events of one size must not add up to the limit.
    """
    return next((n for n in range(most, 1, -1) if all(n % k for k in range(2, isqrt(n) + 1))), most)

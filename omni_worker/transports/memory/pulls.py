"""Pulls: the requests that wait at a consumer, and which of them it may serve."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .configs import Config
from .stream import Record

_NANO = 1e9


class Puller(Protocol):
    """Receiver of the deliveries that were pulled."""

    pin: int  # of its latest delivery; 0: none

    def take(
        self, record: Record, count: int, consumer_sequence: int, pending: int, pin: int
    ) -> None:
        """Take a message; ``count`` is the number of its deliveries, this one included."""

    def ended(self, missing: int) -> None:
        """Handle the end of a request with a time limit; so many were not delivered."""

    def unpinned(self) -> None:
        """Handle the refusal of a request by a pin that has run out."""

    def gone(self, cause: Exception) -> None:
        """Handle the end of the consumer that a request waits at."""


class Request:
    """Request for so many deliveries."""

    __slots__ = ("left", "puller")

    def __init__(self, puller: Puller, left: int) -> None:
        self.puller = puller
        self.left = left


class Pin:
    """Pin of a consumer with a priority group: it serves one puller, the holder.

    A holder whose link is cut keeps it for the consumer's ``priority_timeout``.
    """

    def __init__(self, config: Config) -> None:
        self.number = 0  # another one for each holder; 0 without one
        self._timeout = config.get("priority_timeout", 0) / _NANO
        self._last = 0
        self._holder: Puller | None = None
        self._timer: asyncio.TimerHandle | None = None

    def serves(self, waiting: deque[Request]) -> bool:
        """Put a request of the holder first, if there is one."""
        if self._holder is None:
            return True
        for _ in range(len(waiting)):
            if waiting[0].puller is self._holder:
                return True
            waiting.rotate(-1)
        return False

    def handed_to(self, puller: Puller) -> None:
        """Let the puller of a delivery hold it, if there is no holder."""
        if self._holder is None:
            self._holder = puller
            self.number = self._last = self._last + 1

    def asked_by(self, puller: Puller) -> None:
        """Keep the pin of a holder that is back."""
        if puller is self._holder:
            self._stop_timer()

    def cut_off(self, puller: Puller, then: Callable[[], None]) -> None:
        """Keep the pin of a holder whose link is cut for a while, ``then`` call."""
        if puller is self._holder and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout, self._run_out, then)

    def release(self, puller: Puller) -> None:
        """Let the next one be served."""
        if puller is self._holder:
            self._stop_timer()
            self._holder, self.number = None, 0

    def _run_out(self, then: Callable[[], None]) -> None:
        self._timer = self._holder = None
        self.number = 0
        then()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def pin_of(config: Config, before: Pin | None) -> Pin | None:
    """Return the pin of a consumer that was configured again, None without a group."""
    if config.get("priority_policy") != "pinned_client":
        return None
    return before or Pin(config)

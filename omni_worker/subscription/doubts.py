"""Doubts: first deliveries of events that are settled, until the server was asked.

A server that was killed has forgotten its last acknowledgements, and counts on from there. But the
same is seen when an operator resets a consumer, and then its events are wanted again.
"""

from __future__ import annotations

from collections.abc import Callable

from ..transports.base import Delivery, Source

MOST = 10_000  # deliveries; further ones get no answer, and come again after ack_wait


class Doubts:
    """Doubtful deliveries of one handler. ``ask`` is set by who can ask the server."""

    def __init__(self) -> None:
        self.ask: Callable[[Source], None] = lambda source: None
        self._waiting: dict[Source, list[Delivery]] = {}
        self.went_back: set[Source] = set()  # a first delivery came behind later ones

    def add(self, delivery: Delivery) -> None:
        """Keep a delivery until it is judged."""
        waiting = self._waiting.setdefault(delivery.source, [])
        if len(waiting) < MOST:
            waiting.append(delivery)
        if len(waiting) == 1:
            self.ask(delivery.source)

    def lowest(self, source: Source) -> int | None:
        """Return the lowest consumer sequence that waits to be judged; 0 if it went back surely."""
        if source in self.went_back:
            return 0
        waiting = self._waiting.get(source, ())
        return min((one.consumer_sequence for one in waiting), default=None)

    def take(self, source: Source) -> list[Delivery]:
        """Return the deliveries of one source, which are to be judged now."""
        self.went_back.discard(source)
        return self._waiting.pop(source, [])

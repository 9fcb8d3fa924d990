"""Parked: events that wait here without a slot, behind their key, for a retry that holds it, or
for a token of their key's rate.

They would use up the credit, and with it hold up every other key. So they are set aside from it, up
to a limit of their own; beyond that they count as held.
"""

from __future__ import annotations

from ...transports.base import Delivery
from ..credit import Credit

MOST = 10_000  # events
MOST_BYTES = 16 * 1024 * 1024


class Parked:
    """Parked deliveries of one handler."""

    def __init__(self, credit: Credit) -> None:
        self._credit = credit
        self._deliveries: set[Delivery] = set()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._deliveries)

    def __contains__(self, delivery: Delivery) -> bool:
        return delivery in self._deliveries

    @property
    def room(self) -> int:
        """Number of further events that can be set aside, by their number."""
        return MOST - len(self._deliveries)

    def add(self, delivery: Delivery) -> None:
        """Set aside a delivery, if there is room; adding it twice changes nothing."""
        size = len(delivery.body)
        if delivery in self._deliveries or len(self._deliveries) >= MOST:
            return
        if self._bytes + size <= MOST_BYTES:
            self._deliveries.add(delivery)
            self._bytes += size
            self._credit.set_aside()

    def remove(self, delivery: Delivery) -> None:
        """Count a delivery as held again: it may begin, or is released."""
        if delivery in self._deliveries:
            self._deliveries.discard(delivery)
            self._bytes -= len(delivery.body)
            self._credit.held += 1

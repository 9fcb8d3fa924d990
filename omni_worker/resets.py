"""Resets: whether an operator set a consumer back, or a server forgot what it had delivered. Pure.

Both look alike: the consumer counts lower than before. After a reset its events are wanted again,
after a crash they must not run twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from .topology import origin_of
from .transports.infos import ConsumerInfo

APART = 0.5  # seconds between two looks; a member of a cluster that was killed forgets less


@dataclass(slots=True)
class Looks:
    """Facts from the looks at one consumer so far.

    ``link`` is the number of our link, ``server`` the identity of the process it leads to.
    """

    origin: str  # the consumer that this one follows after a loss
    created: int = 0
    deliveries: int = 0
    before: int = 0  # deliveries at an earlier look
    at: float = float("-inf")  # loop time of that
    link: int = 0
    server: str = ""
    changed_on: int = -1  # the link on which another server answered first

    def is_reset(self, info: ConsumerInfo, *, link: int, server: str, doubtful: int | None) -> bool:
        """Return True if an operator recreated or reset the consumer since the last look.

        ``doubtful`` is the lowest consumer sequence with which a settled event came again.
        """
        if info.created != self.created:
            return origin_of(info) != self.origin
        # A server that was killed may have forgotten every delivery since its last flush, and one
        # more kill before it flushes adds to that: no count of it says that an operator was there.
        if self.server and server != self.server:
            return False
        # One that moved within a cluster forgets its last ones, but not those of a look before.
        known = self.deliveries if link == self.link else self.before
        if info.deliveries < known:
            return True
        if self.changed_on == link:
            return False  # what is doubtful came before the last look at a server that forgot
        return doubtful is not None and doubtful <= known

    def note(self, info: ConsumerInfo, *, link: int, server: str, now: float) -> None:
        """Take in a look; ``now`` is loop time."""
        if now - self.at >= APART:
            self.before = min(self.deliveries, info.deliveries)
            self.at = now
        if self.server and server != self.server:
            self.changed_on = link
        self.created, self.deliveries = info.created, info.deliveries
        self.link, self.server = link, server

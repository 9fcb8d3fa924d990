"""Recently settled: deliveries of one consumer that were answered, so that none runs twice.

An acknowledgement can be lost on the way, and a server killed with -9 forgets its last 100 ms of
them. What comes back to this process is recognised here and acknowledged again, unrun.
"""

from __future__ import annotations

GENERATION = 32_768  # events; two generations are kept, some 300 ms of the fastest drain


class SettledMemory:
    """Remembers the last GENERATION to 2 × GENERATION answered deliveries of a consumer.

    A delivery is known by sequence *and* stored timestamp: sequences repeat when a stream is
    recreated.
    """

    __slots__ = ("_current", "_previous")

    def __init__(self) -> None:
        self._current: dict[int, int] = {}
        self._previous: dict[int, int] = {}

    def add(self, sequence: int, stored_at: int) -> None:
        """Remember a delivery that was acknowledged or terminated."""
        current = self._current
        current[sequence] = stored_at
        if len(current) >= GENERATION:
            self._previous = current
            self._current = {}

    def holds(self, sequence: int, stored_at: int) -> bool:
        """Tell whether exactly this delivery was answered before."""
        return self._current.get(sequence) == stored_at or self._previous.get(sequence) == stored_at

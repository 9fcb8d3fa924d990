"""Keys: events of one key run one at a time, in stream order; other keys run on."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Hashable
from typing import Any

from ...events import Event
from ...transports.base import Delivery


class Lanes:
    """Lanes by key, as long as an event is in them; ``key_of`` names an event's key."""

    def __init__(self, key_of: Callable[[Any], Hashable]) -> None:
        self._key_of = key_of
        self._waiting: dict[Hashable, list[Delivery]] = {}  # by sequence, behind the head
        self._heads: dict[Delivery, Hashable] = {}

    def enter(self, delivery: Delivery, event: Event[Any]) -> bool:
        """Return True if the event may run now; otherwise it waits behind another of its key.

        Raises any error that ``key_of`` raises.
        """
        if delivery in self._heads:
            return True
        key = self._key_of(event)
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = []
            self._heads[delivery] = key
            return True
        insort(waiting, delivery, key=lambda one: one.sequence)
        return False

    def has(self, delivery: Delivery) -> bool:
        """Return True if the event has its key now."""
        return delivery in self._heads

    def leave(self, delivery: Delivery) -> Delivery | None:
        """Remove a finished or dropped event; return the one that has its key now."""
        if delivery not in self._heads:
            for waiting in self._waiting.values():
                if delivery in waiting:
                    waiting.remove(delivery)
                    break
            return None
        key = self._heads.pop(delivery)
        waiting = self._waiting[key]
        if not waiting:
            del self._waiting[key]
            return None
        following = waiting.pop(0)
        self._heads[following] = key
        return following

"""Waits: what people are told while events wait for their rate or for a place of their limit.

That is no fault, but the reason why events come late: said once, when it lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...signals import Limited, LimitEnded
from . import Flow

LOOK = 5.0  # seconds between two looks, from the first event that waits
LOOKS = 3  # in a row that find the same, until it is said


class Wait:
    """Wait of one handler for what ``option`` says; ``count`` returns how many events wait."""

    def __init__(self, flow: Flow, option: str, count: Callable[[], int]) -> None:
        self._flow = flow
        self._option = option
        self._count = count
        self._is_watched = self._is_said = False
        self._found = self._empty = 0  # looks in a row
        flow.waits.append(self)

    @property
    def waiting(self) -> int:
        """Events that wait here now."""
        return self._count()

    @property
    def reason(self) -> str:
        """Say what the events wait for; empty if none has waited for a while."""
        return f"waits for {self._option}: {self._count()} events here" if self._is_said else ""

    def noticed(self) -> None:
        """Take note that an event waits."""
        if not self._is_watched:
            self._is_watched = True
            self._look_later()

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        if self._flow.slots.is_closed:
            return
        if self._count():
            self._found, self._empty = self._found + 1, 0
        else:
            self._found, self._empty = 0, self._empty + 1
        if self._found == LOOKS and not self._is_said:
            self._is_said = True
            self._flow.emit(Limited(handler=self._flow.handler, option=self._option))
        if self._is_said and self._empty >= LOOKS:
            self._is_said = False
            self._flow.emit(LimitEnded(handler=self._flow.handler, option=self._option))
        self._is_watched = self._is_said or self._found > 0
        if self._is_watched:
            self._look_later()

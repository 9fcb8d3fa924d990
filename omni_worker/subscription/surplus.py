"""Surplus: deliveries that came when every place was taken.

Several sources have a request open while a place is free; when one of them takes the last place,
the others' requests are still open. What comes by them waits for a moment, and begins if a slot
is free by then. If not it goes back to the server, so that another process can have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..tasks import own
from ..transports.base import Delivery
from .credit import Credit
from .slots import Slots

PATIENCE = 0.5  # seconds

HandBack = Callable[[list[Delivery]], Awaitable[None]]


class Surplus:
    """Surplus of one handler. In order (``keeps``) it stays here: a later event would overtake."""

    def __init__(self, credit: Credit, slots: Slots, hand_back: HandBack, *, keeps: bool) -> None:
        self._credit = credit
        self._slots = slots
        self._hand_back = hand_back
        self._keeps = keeps
        self._deliveries: list[Delivery] = []
        self._trims = False  # everything that waits may be one too many
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, delivery: Delivery) -> None:
        """Take note of a delivery that is one too many; it waits in the buffer like others."""
        if self._keeps:
            return
        self._deliveries.append(delivery)
        self._watch()

    def trim(self) -> None:
        """Hand back what waits beyond a credit that has become smaller."""
        if not self._keeps:
            self._trims = True
            self._watch()

    async def close(self) -> None:
        """Hand back nothing further; what is going back arrives there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deliveries.clear()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._look)

    def _look(self) -> None:
        self._timer = None
        buffer, credit = self._slots.buffer, self._credit
        waiting = [one for one in self._deliveries if one in buffer]
        if self._trims:
            waiting, self._trims = list(buffer), False
        self._deliveries.clear()
        over = max(0, credit.held - credit.limit)
        # A nak that is sent while a request is open there would come straight back.
        back = [one for one in waiting if not one.source.outstanding][-over:] if over else []
        if over > len(back):
            self._deliveries = [one for one in waiting if one not in back]
        if back:
            for delivery in back:
                self._slots.withdraw(delivery)
            task = asyncio.get_running_loop().create_task(
                self._go_back(back), name=own("handing back")
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._deliveries:
            self._watch()

    async def _go_back(self, deliveries: list[Delivery]) -> None:
        await self._hand_back(deliveries)

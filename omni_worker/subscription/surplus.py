"""Surplus: deliveries that came when every place was taken.

Several sources have a request open while a place is free; when one of them takes the last place,
the others' requests are still open. What comes by them waits for a moment, and begins if a slot
is free by then. If not it goes back to the server, so that another process can have it. So does
what waits beyond a concurrency that was made smaller, also for its rate or limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ..tasks import own
from ..transports.base import Delivery, Source
from .execution import Execution
from .gates import Flow
from .source_state import SourceState

PATIENCE = 0.5  # seconds
WHY = "every slot is taken"


class Surplus:
    """Surplus of one handler. In order (``keeps``) it stays here: a later event would overtake."""

    def __init__(
        self,
        flow: Flow,
        states: Mapping[Source, SourceState],
        execution: Execution,
        *,
        keeps: bool,
    ) -> None:
        self._flow = flow
        self._states = states
        self._execution = execution
        self._keeps = keeps
        self._deliveries: set[Delivery] = set()
        self._trims = False  # everything that waits may be one too many
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, delivery: Delivery) -> None:
        """Take note of a delivery that is one too many; it waits in the buffer like others."""
        if self._keeps:
            return
        self._deliveries.add(delivery)
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
        credit, noted = self._flow.credit, self._deliveries
        waiting = [one for one in self._waiting() if self._trims or one in noted]
        self._trims, self._deliveries = False, set()
        over = max(0, credit.held - credit.limit)
        # A nak that is sent while a request is open there would come straight back.
        back = [one for one in waiting if not one.source.outstanding][-over:] if over else []
        if over > len(back):
            self._deliveries = set(waiting).difference(back)
        if back:
            task = asyncio.get_running_loop().create_task(
                self._execution.hand_back(back, WHY), name=own("handing back")
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._deliveries:
            self._watch()

    def _waiting(self) -> list[Delivery]:
        """Deliveries that count as held and have not begun, in the order in which they came."""
        leaving, parked = self._execution.leaving, self._flow.parked
        waiting = self._execution.waiting(self._states.values())
        return [one for one in waiting if one not in leaving and one not in parked]

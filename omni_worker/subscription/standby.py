"""Standby: where a consumer serves one process at a time, the others have nothing to begin.

A process whose turn begins waits for what the process before it holds, if there is an order. One
whose turn is over ends what runs, and hands back the rest: the next one needs it first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ..tasks import own
from ..topology import ConsumerSpec
from ..transports.base import Delivery, Served, Source
from .execution import Execution
from .handback import HandingBack
from .parts import Parts
from .source_state import SourceState

WHY = "another process is served"


class Standby:
    """Turns of one handler at its consumers."""

    def __init__(
        self,
        states: Mapping[Source, SourceState],
        execution: Execution,
        back: HandingBack,
        parts: Parts,
    ) -> None:
        self._states = states
        self._execution = execution
        self._back = back
        self._order = parts.order
        self._breaker = parts.breaker
        self._hand_back_gathered = parts.hand_back
        self._split: dict[tuple[str, str], str] = {}  # consumers without turns, and why
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def warnings(self) -> list[str]:
        """Consumers that split their events between the processes, and why."""
        return list(self._split.values())

    def turns(self, spec: ConsumerSpec) -> Served | None:
        """Return who is told of turns at a consumer; None for one that needs none."""
        return self.take_turn if spec.one_active else None

    def split(self, stream: str, consumer: str, why: str | None) -> bool:
        """Note why a consumer has no turns, None if it has; return True if that is new."""
        key = stream, consumer
        is_new = self._split.get(key) != why
        if why is None:
            self._split.pop(key, None)
        else:
            self._split[key] = why
        return is_new

    def take_turn(self, source: Source, is_served: bool) -> None:
        """Begin or end a turn at one consumer; the transport calls it."""
        state = self._states.get(source)
        if state is None:
            return
        if not is_served:
            self._hand_back(state)
        elif self._order is not None:
            self._order.wait_for_older(state)

    async def close(self) -> None:
        """Wait for what is going back."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _hand_back(self, state: SourceState) -> None:
        if self._order is not None:
            self._order.stand_by(state)
        self._breaker.hand_back(state.source, WHY)
        self._hand_back_gathered(state.source, WHY)
        waiting = self._execution.waiting([state])
        if waiting := [one for one in waiting if one not in self._back.leaving]:
            # At once: when a run ends, the next one of its key must not begin here.
            self._execution.let_go(state, waiting)
            task = asyncio.get_running_loop().create_task(
                self._go_back(waiting), name=own("handing back")
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _go_back(self, deliveries: list[Delivery]) -> None:
        await self._back.all(deliveries, WHY)

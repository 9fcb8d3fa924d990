"""Pauses: a consumer that is paused on the server delivers nothing; here nothing begins either."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from ..signals import ConsumerPaused, Paused, Resumed
from ..tasks import own
from ..topology import handler_of
from ..transports.base import Delivery, Source
from ..transports.infos import ConsumerInfo
from .execution import Execution
from .gates import Flow
from .handback import HandingBack
from .parts import Parts
from .source_state import SourceState

WHY = "the handler is paused"
RETURN_AFTER = 10.0  # seconds; a dead letter that was sent back comes again


class Pauses:
    """Pauses of one handler's consumers, as they were seen last.

    ``order`` says, in words, who paused the handler by a command of ours; None if others did.
    """

    def __init__(
        self,
        flow: Flow,
        states: Mapping[Source, SourceState],
        execution: Execution,
        back: HandingBack,
        parts: Parts,
    ) -> None:
        self.order: str | None = None
        self._flow = flow
        self._states = states
        self._execution = execution
        self._back = back
        self._keys = parts.order
        self._breaker = parts.breaker
        self._hand_back_gathered = parts.hand_back
        self._paused: dict[Source, str] = {}
        self._ends: dict[Source, float] = {}  # loop time
        self._reported: str | None = None  # the order
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_paused(self) -> bool:
        """True while every consumer that was looked at is paused."""
        now = self._flow.now()
        return bool(self._ends) and all(ends > now for ends in self._ends.values())

    @property
    def warnings(self) -> list[str]:
        """Why nothing is delivered: the order, or each consumer that others paused."""
        now = self._flow.now()
        still = [says for source, says in self._paused.items() if self._ends[source] > now]
        return [self.order] if still and self.order is not None else still

    def follow(self, order: str | None) -> None:
        """Take over the order that was read; a pause with another time or reason is reported."""
        self.order = order
        if order is not None and self._reported not in (None, order):
            self._reported = order
            self._flow.emit(Paused(handler=self._flow.handler, reason=order))

    def saw(self, source: Source, info: ConsumerInfo) -> None:
        """Judge a consumer; called whenever the server was asked about it."""
        is_news = info.is_paused != (source in self._paused)
        self._ends[source] = self._flow.now() + info.pause_remaining
        if info.is_paused:
            self._paused[source] = (
                f"consumer {info.name} on {info.stream} is paused by others, so nothing is"
                f" delivered: omni-worker resume {handler_of(info.config)}"
            )
            self._hand_back(source)
        if is_news:
            reason = self._paused[source] if info.is_paused else self._paused.pop(source)
            self._report(info, reason)
            if not info.is_paused:
                self._breaker.try_now()

    def hand_back_returned(self, delivery: Delivery) -> None:
        """Hand back an event that came from a dead letter: it waits as all others do."""
        delivery.leased_at = self._flow.now()
        self._begin(self._go_back([delivery], RETURN_AFTER))

    def forget(self, source: Source) -> None:
        """Forget a lost source."""
        self._paused.pop(source, None)
        self._ends.pop(source, None)

    async def close(self) -> None:
        """Wait for what is going back."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _report(self, info: ConsumerInfo, reason: str) -> None:
        handler = self._flow.handler
        if self._reported is not None:
            if not self._paused:
                self._reported = None
                self._flow.emit(Resumed(handler=handler))
        elif self.order is not None and info.is_paused:
            self._reported = self.order
            self._flow.emit(Paused(handler=handler, reason=self.order))
        else:
            self._flow.emit(
                ConsumerPaused(
                    handler=handler,
                    stream=info.stream,
                    consumer=info.name,
                    reason=reason,
                    is_over=not info.is_paused,
                )
            )

    def _hand_back(self, source: Source) -> None:
        """Hand back what has not begun: the server keeps it until the pause is over."""
        state = self._states.get(source)
        if self._keys is None:  # what waits for a trial goes back as well
            self._breaker.hand_back(source, WHY)
            self._hand_back_gathered(source, WHY)
        waiting = [] if state is None else self._execution.waiting([state])
        if self._keys is not None:  # a retry that is kept, or waits for a trial, holds its key
            waiting = [one for one in waiting if not self._keys.keeps(one)]
            waiting += self._breaker.let_go_new(source)
        if waiting := [one for one in waiting if one not in self._back.leaving]:
            for delivery in waiting:
                self._flow.slots.withdraw(delivery)
            self._back.leaving.update(waiting)
            self._begin(self._go_back(waiting, 0.0))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=own("handing back"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_back(self, deliveries: list[Delivery], delay: float) -> None:
        try:
            await self._back.all(deliveries, WHY, delay)
        finally:
            for delivery in deliveries:
                if (state := self._states.get(delivery.source)) is None:
                    continue
                if state.held.get(delivery.sequence) is delivery:
                    self._execution.let_go(state, [delivery])  # a gate may have offered it
                    if self._keys is not None:
                        self._keys.wait_for_older(state)

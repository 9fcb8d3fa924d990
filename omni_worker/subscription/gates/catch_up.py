"""Gaps: deliveries that other processes hold. With ``order_by`` nothing newer overtakes them.

What a killed process held, or a broken link carried, the server delivers again after ack_wait; by
then it would have delivered newer events of the same keys. So a process that begins to read a
consumer asks first how many deliveries are not answered. Until all of those are here nothing
begins; then everything does, in stream order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ...errors import TransportError
from ...handlers import Handler
from ...signals import EngineFault, Signals, WaitingForOlder
from ...tasks import own
from ...transports.base import Delivery, Source
from ...transports.infos import ConsumerInfo
from ..credit import Credit
from ..leases import Leases
from ..source_state import SourceState
from .parked import Parked

LOOK = 0.1  # seconds between two looks at the consumer
PROBE = 1.0  # seconds between two deliveries asked for while others hold the older ones
SAID_AFTER = 1.0  # seconds; acks on their way are no gap worth a line
MARGIN = 0.25  # seconds until the server, too, has noticed that a lease is over
PATIENCE = 5.0  # seconds more for all to arrive; a process that still holds some by then is alive
REPAIR = 20.0  # seconds; upkeep looks at each consumer every ten

AskConsumerInfo = Callable[[str, str], Awaitable[ConsumerInfo | None]]


class Gap:
    """Gap of one source: since when others may hold deliveries, and what came since."""

    def __init__(self, state: SourceState, now: float) -> None:
        self.state = state
        # Loop time: no lease of a dead process began later, all that was handed back is due then.
        self.since = now
        self.gathered: list[Delivery] = []
        self.window = 1  # how many to ask for next; it doubles while older ones come
        self.probed_at = float("-inf")  # loop time
        self.gives_up = False  # the server delivers nothing again
        self.moved = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Gaps:
    """Gaps of one handler, by source. ``on_closed`` is called when gathered events may begin."""

    def __init__(
        self,
        consumer_info: AskConsumerInfo,
        leases: Leases,
        credit: Credit,
        parked: Parked,
        *,
        on_closed: Callable[[Gap], None],
        handler: Handler,
        signals: Signals,
    ) -> None:
        self._consumer_info = consumer_info
        self._leases = leases
        self._credit = credit
        self._parked = parked
        self._on_closed = on_closed
        self._handler = handler
        self._emit = signals.emit
        self._gaps: dict[Source, Gap] = {}

    def open(self, state: SourceState, delay: float = 0.0) -> None:
        """Open a gap: nothing of the source begins until the events others hold are here.

        One that was handed back to come after ``delay`` seconds is waited for so much longer.
        """
        state.is_asked = False
        gap, since = self._gaps.get(state.source), self._leases.now() + delay
        if gap is not None:
            gap.since = max(gap.since, since)
            return
        gap = self._gaps[state.source] = Gap(state, since)
        name = own(f"gap {self._handler.name}")
        gap.task = asyncio.get_running_loop().create_task(self._fill(gap), name=name)

    def gather(self, state: SourceState, delivery: Delivery) -> bool:
        """Keep a delivery until the gap is closed. Return False if there is no gap."""
        gap = self._gaps.get(state.source)
        if gap is None:
            return False
        gap.gathered.append(delivery)
        # The server delivers what comes again before what is new.
        gap.window = gap.window * 2 if delivery.count > 1 else 0
        gap.moved.set()
        return True

    def forget(self, source: Source) -> None:
        """Forget the gap of a lost source."""
        gap = self._gaps.pop(source, None)
        if gap is not None and gap.task is not None:
            gap.task.cancel()

    def close(self) -> None:
        """Close every gap: the subscription stops."""
        for source in list(self._gaps):
            self.forget(source)

    # --- inside ----------------------------------------------------------------------------

    async def _fill(self, gap: Gap) -> None:
        try:
            await self._wait(gap)
        except Exception as error:  # any error: a handler that stops for good would be worse
            late = "older events may come late"
            self._emit(EngineFault(handler=self._handler, error=error, consequence=late))
        self._close(gap)

    async def _wait(self, gap: Gap) -> None:
        """Wait until the events others hold are here, or are certainly kept by a living process."""
        is_said = False
        while True:
            gap.moved.clear()
            if not self._credit.is_open:  # nothing can come while pulling is held
                gap.since = max(gap.since, self._leases.now())
            since = gap.since
            elsewhere = await self._elsewhere(gap)
            waited = self._leases.now() - gap.since
            over = waited - self._leases.ack_wait - MARGIN
            patience = PATIENCE + (REPAIR if gap.gives_up else 0.0)
            if since == gap.since and (elsewhere == 0 or over > patience):
                return
            if elsewhere and waited >= SAID_AFTER and not is_said:
                is_said = True
                self._say(elsewhere, -over)
            if elsewhere:
                self._ask(gap, elsewhere, all_are_free=over > 0)
            with suppress(TimeoutError):
                await asyncio.wait_for(gap.moved.wait(), LOOK)

    async def _elsewhere(self, gap: Gap) -> int | None:
        """Count deliveries that others hold; None if that is not known."""
        source, held = gap.state.source, len(gap.state.held)
        with suppress(TransportError):
            info = await self._consumer_info(source.stream, source.consumer)
            if info is None:
                return None
            # An operator's max_deliver: what others hold is given up, not pending any more, and
            # comes only when upkeep has recreated the consumer.
            gap.gives_up = info.config.max_deliver > 0
            if not gap.gives_up:
                # What came while we asked may not be counted yet.
                return max(0, info.num_ack_pending - min(held, len(gap.state.held)))
        return None

    def _ask(self, gap: Gap, elsewhere: int, *, all_are_free: bool) -> None:
        """Request what comes again; while others hold it, something new may come in its place.

        There is always room left for all that comes again.
        """
        source, now = gap.state.source, self._leases.now()
        if all_are_free:
            self._credit.ask(source, elsewhere - source.outstanding)
            return
        if gap.window == 0 and now - gap.probed_at >= PROBE:
            gap.window = 1
        if gap.window:
            gap.probed_at = now
            spare = self._credit.room + self._parked.room + source.outstanding - elsewhere
            self._credit.ask(source, min(elsewhere, gap.window, spare) - source.outstanding)

    def _say(self, events: int, left: float) -> None:
        seconds = max(0.0, left)
        self._emit(WaitingForOlder(handler=self._handler, events=events, seconds=seconds))

    def _close(self, gap: Gap) -> None:
        source = gap.state.source
        if self._gaps.get(source) is gap:
            del self._gaps[source]
            gap.state.is_asked = True
            gap.gathered.sort(key=lambda one: one.sequence)
            self._on_closed(gap)

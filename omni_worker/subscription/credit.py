"""Credit: how many deliveries may be held, and how many to ask of which source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..tasks import own
from ..transports.base import Source
from .source_state import SourceState

MAX_ADAPTIVE = 2_000  # deliveries prefetched at most
MAX_ADAPTIVE_BYTES = 4 * 1024 * 1024  # and not more than this: cold bytes are read slowly
ORDERED_AHEAD = 16  # times concurrency, where events of one key wait for each other
HORIZON = 0.1  # seconds of work to have at hand: more than a round trip, less than a hold-up
SHORTEST_MEASURE = 0.005  # seconds
TAKEN_BACK_AFTER = 0.1  # seconds; a gate that holds for a moment is not worth the round trips


class Credit:
    """Credit of one handler: never more than concurrency + prefetch are held or requested.

    Without a fixed ``prefetch`` it follows the handler's measured rate: a fast one gets large
    requests, which are cheaper for the server, a slow one holds few.
    """

    def __init__(
        self,
        states: dict[Source, SourceState],
        *,
        concurrency: int,
        prefetch: int | None,
        streams: int,
        ordered: bool,
        now: Callable[[], float],
    ) -> None:
        self._states = states
        self._concurrency = concurrency
        self._streams = streams
        self._now = now
        self._adaptive = prefetch is None
        # One request has to wait at every stream, or its events would wait for ever.
        ahead = ORDERED_AHEAD if ordered else 1
        least = concurrency * ahead if prefetch is None else prefetch
        self._floor = max(least, streams if prefetch is None else streams - concurrency)
        # What waits behind its key uses up credit: ask early, or other keys would wait with it.
        self._low = 7 / 8 if ordered else 1 / 2
        self._set_limit(concurrency + self._floor)
        # In order, one place is for a look at what comes next: see gaps.
        self._kept_free = 1 if ordered and self._floor > 1 else 0
        self.held = 0  # counted by who takes a delivery
        self._closed = False
        self._reasons: set[str] = set()  # why nothing is asked for, for now
        self._timer: asyncio.TimerHandle | None = None
        self._taking_back: asyncio.Task[None] | None = None
        self._waiting: list[Callable[[], None]] = []  # called when a delivery is given back
        self._only: Source | None = None
        self._measured_at = now()
        self._released = 0
        self._released_bytes = 0

    def give_back(self, size: int) -> None:
        """Release one delivery of ``size`` bytes."""
        self.held -= 1
        self._released += 1
        self._released_bytes += size
        only = self._only  # as refill_if_low, without the call: this is for every event
        outstanding = only.outstanding if only is not None else self._outstanding()
        if self.held + outstanding <= self._low_mark:
            self.refill()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call()

    def on_room(self, call: Callable[[], None]) -> None:
        """Call once, when the next delivery is given back."""
        self._waiting.append(call)

    @property
    def room(self) -> int:
        """Number of further deliveries that may be held or requested."""
        most = self.limit
        if self._adaptive:
            most = max(most, self._concurrency + max(self._floor, MAX_ADAPTIVE))
        return most - self.held - self._outstanding()

    def ask(self, source: Source, count: int) -> None:
        """Request ``count`` from one source, as far as there is room."""
        count = min(count, self.room)
        if self.is_open and count > 0:
            self._set_limit(max(self.limit, self.held + self._outstanding() + count))
            source.request(count)

    @property
    def is_open(self) -> bool:
        """True unless a reason holds, or after ``close``: nothing is requested then."""
        return not (self._closed or self._reasons)

    def hold(self, reason: str) -> None:
        """Request nothing until every reason is released.

        Open requests are taken back shortly after; deliveries that were on their way wait here,
        leased and not begun.
        """
        if not self._reasons and not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(TAKEN_BACK_AFTER, self._take_back)
        self._reasons.add(reason)

    def release(self, reason: str) -> None:
        """Request again if no other reason holds; an unknown reason changes nothing."""
        if reason in self._reasons:
            self._reasons.discard(reason)
            if not self._reasons:
                self._cancel_timer()
            self.refill()

    def close(self) -> None:
        """Request nothing any longer."""
        self._closed = True
        self._cancel_timer()
        if self._taking_back is not None:
            self._taking_back.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_back(self) -> None:
        self._timer = None
        self._taking_back = asyncio.get_running_loop().create_task(
            self._withdraw_all(), name=own("credit")
        )

    async def _withdraw_all(self) -> None:
        try:
            await asyncio.gather(*(source.withdraw() for source in list(self._states)))
        finally:
            # Released in between: what was requested then was not sent, and nothing else would
            # ask again.
            self.refill()

    def sources_changed(self) -> None:
        """Adapt to a source that came, went, or may be requested from or not."""
        self._only = None
        if self._streams == 1 and len(self._states) == 1:
            [(source, state)] = self._states.items()
            self._only = source if state.is_asked else None
        self.refill()

    def refill_if_low(self) -> None:
        """Request again once half of the prefetch is used: fewer, larger requests."""
        only = self._only
        outstanding = only.outstanding if only is not None else self._outstanding()
        if self.held + outstanding <= self._low_mark:
            self.refill()

    def refill(self) -> None:
        """Request as much as may be held."""
        if not self.is_open:
            return
        if self._adaptive:
            self._adapt()
        free = self.limit - self._kept_free - self.held - self._outstanding()
        if self._only is not None:
            self._only.request(free)
            return
        for source, state in self._states.items():
            if free > 0 and source.outstanding == 0 and state.is_asked:
                count = min(free, state.window)
                state.window = min(self.limit, state.window * 2)
                source.request(count)
                free -= count

    def _outstanding(self) -> int:
        return sum(source.outstanding for source in self._states)

    def _adapt(self) -> None:
        now = self._now()
        elapsed = now - self._measured_at
        if elapsed < SHORTEST_MEASURE or self._released < self._concurrency:
            return
        mean_size = self._released_bytes / self._released
        affordable = min(MAX_ADAPTIVE, MAX_ADAPTIVE_BYTES / max(1.0, mean_size))
        wanted = max(self._floor, self._released / elapsed * HORIZON)
        self._set_limit(self._concurrency + max(self._streams, int(min(affordable, wanted))))
        self._measured_at = now
        self._released = self._released_bytes = 0

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        # Of what is ahead of the running ones: with that used up, none of them waits for a request.
        self._low_mark = self._concurrency + (limit - self._concurrency) * self._low

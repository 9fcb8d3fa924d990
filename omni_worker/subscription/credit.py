"""Credit: how many deliveries may be held, and how many to request from which source.

One source is requested from in bulk. Several share: each has a request open while a place is
free, and only a source that delivers has a larger one, which ends by itself soon after the source
has nothing more. So an idle source keeps one place at most, and that one only until another
source needs it: by requests that were open when the last place was taken, one delivery for each
further source may come in addition. See surplus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil

from ..tasks import own
from ..transports.base import Source
from .source_state import SourceState

MAX_ADAPTIVE = 2_000  # deliveries prefetched at most
MAX_ADAPTIVE_BYTES = 4 * 1024 * 1024  # and not more than this: cold bytes are read slowly
ORDERED_AHEAD = 16  # times concurrency, where events of one key wait for each other
HORIZON = 0.1  # seconds of work to have at hand: more than a round trip, less than a hold-up
SHORTEST_MEASURE = 0.005  # seconds
SILENT_AFTER = 0.05  # seconds; a source with events pending answers sooner, unless it is far away
DRY_AFTER = 0.25  # seconds; what waits in the buffer is enough for every slot
TAKEN_BACK_AFTER = 0.1  # seconds; a gate that holds for a moment is not worth the round trips


class Credit:
    """Credit of one handler: not more than concurrency + prefetch are held or requested.

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
        self.streams = streams  # sources that are expected
        self.is_shared = streams > 1
        self._now = now
        self._adaptive = prefetch is None
        self._ahead = ORDERED_AHEAD if ordered else 1
        self._floor = concurrency * self._ahead if prefetch is None else prefetch
        # What waits behind its key uses up credit: ask early, or other keys would wait with it.
        self._low = 7 / 8 if ordered else 1 / 2
        self._set_limit(concurrency + self._floor)
        # In order, one place is for a look at what comes next: see gaps.
        self._is_ordered = ordered
        self._kept_free = 1 if ordered and self._floor > 1 else 0
        self.held = 0  # counted by who takes a delivery
        self._closed = False
        self._reasons: set[str] = set()  # why nothing is asked for, for now
        self._timer: asyncio.TimerHandle | None = None
        self._taking_back: asyncio.Task[None] | None = None
        self._widening: asyncio.TimerHandle | None = None
        self._waiting: list[Callable[[], None]] = []  # called when a delivery is given back
        self._only: Source | None = None
        self._turn = 0  # of the latest request, where sources take turns
        self._measured_at = now()
        self._released = 0
        self._released_bytes = 0

    @property
    def ahead(self) -> int:
        """Deliveries that may be held in addition to those that run."""
        return self.limit - self._concurrency

    def give_back(self, size: int) -> None:
        """Release one delivery of ``size`` bytes."""
        self.held -= 1
        self._released += 1
        self._released_bytes += size
        self._until_low -= 1
        if self._until_low <= 0:
            self.refill_if_low()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call()

    def set_aside(self) -> None:
        """Count one delivery as not held any longer, although it is: see gates/parked."""
        self.held -= 1
        self._until_low -= 1
        if self._until_low <= 0:
            self.refill_if_low()

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
            source.request(count, brief=self.is_shared and count > 1)

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

    def scale(self, concurrency: int) -> None:
        """Follow a changed concurrency; what is requested beyond it is taken back."""
        before, self._concurrency = self._concurrency, concurrency
        ahead = self.limit - before
        if self._adaptive:
            # A slower handler needs less at hand; what a faster one needs is measured.
            self._floor = concurrency * self._ahead
            ahead = max(self._floor, ahead * min(before, concurrency) // before)
        self._set_limit(concurrency + ahead)
        self._kept_free = 1 if self._is_ordered and self._floor > 1 else 0
        if self.is_open and self.held + self._outstanding() > self.limit:
            self._take_back()
        else:
            self.refill()

    def close(self) -> None:
        """Request nothing any longer."""
        self._closed = True
        self._cancel_timer()
        if self._widening is not None:
            self._widening.cancel()
        if self._taking_back is not None:
            self._taking_back.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_back(self) -> None:
        self._timer = None
        if self._taking_back is not None and not self._taking_back.done():
            return
        self._taking_back = asyncio.get_running_loop().create_task(
            self._withdraw_all(), name=own("credit")
        )

    async def _withdraw_all(self) -> None:
        try:
            await asyncio.gather(*(source.withdraw() for source in list(self._states)))
        finally:
            for state in self._states.values():
                state.window = 0
            # Released in between: what was requested then was not sent, and nothing else would
            # ask again.
            self.refill()

    def sources_changed(self) -> None:
        """Adapt to a source that came, went, or may be requested from or not."""
        alone, self._only = self._only, None
        self.streams = max(self.streams, len(self._states))
        self.is_shared = self.streams > 1
        if not self.is_shared and self._states:
            [(source, state)] = self._states.items()
            self._only = source if state.is_asked else None
        elif alone is not None and alone.outstanding > 1:
            self._take_back()  # it was alone, and has requested all there is for a long time
        self.refill()

    def refill_if_low(self) -> None:
        """Request again once half of the prefetch is used: fewer, larger requests.

        Of several sources each has a request open before that, too, but a moment later.
        """
        used = self._used()
        if used <= self._low_mark:
            self.refill()
        else:
            self._until_low = used - self._low_mark
            if self.is_shared:
                self._ask_dry_ones_soon()

    def refill(self) -> None:
        """Request as much as may be held."""
        if self.is_open:
            if self._adaptive:
                self._adapt()
            if self._only is not None:
                free = self.limit - self._kept_free - self.held - self._only.outstanding
                self._only.request(free)
            else:
                self._share()
        # Until then nothing is to do: a delivery is requested or held, and counts once.
        used = self._used()
        self._until_low = used - self._low_mark
        if self.is_shared:
            # Where a window still grows, the next look is not at each delivery.
            self._until_low = max(self._until_low, used // 8)
            self._ask_dry_ones_soon()

    def _used(self) -> int:
        """Count what is held and requested; of several sources each may have one more open."""
        only = self._only
        if only is not None:
            return self.held + only.outstanding
        used = self.held
        for source in self._states:
            if source.outstanding > 1:
                used += source.outstanding - 1
        return used

    # --- several sources --------------------------------------------------------------------

    def _share(self, widen: bool = False) -> None:
        """Divide the free places; what is open and silent keeps none of them.

        For the last places the sources take turns. One that does not answer in its turn has
        nothing, and others are asked as well: to ``widen``, as many again as are silent.
        """
        now = self._now()
        places = free = self.limit - self._kept_free - self.held
        silent = 0
        wanting: list[SourceState] = []
        for source, state in self._states.items():
            outstanding = source.outstanding
            if outstanding:
                is_silent = now - state.asked_at >= SILENT_AFTER
                silent += is_silent
                free -= outstanding - is_silent
            if state.is_asked and (outstanding == 0 or outstanding < state.asked):
                wanting.append(state)
        if places <= 0:
            return
        free -= silent == len(self._states)  # one of them may take the last place
        wanting.sort(key=lambda one: (one.source.outstanding > 0, one.turn))
        most = max(free, silent) if widen and free > 0 else free
        for after, state in enumerate(wanting):
            outstanding = state.source.outstanding
            if (free if outstanding else most) <= 0:
                continue
            if 2 * outstanding <= state.window:  # half of it has come: more next time
                state.window = min(self.limit, 2 * state.window or 1)
            fair = max(1, ceil(free / (len(wanting) - after)))
            count = max(0 if outstanding else 1, min(state.window - outstanding, fair))
            free -= count
            most -= count
            self._request(state, count, now)

    def _request(self, state: SourceState, count: int, now: float) -> None:
        """Request from one of several: a large request ends soon, for the others."""
        self._turn += 1
        state.turn = self._turn
        state.asked_at = now
        if count > 0:
            state.source.request(count, brief=count > 1)
        state.asked = state.source.outstanding

    def _ask_dry_ones_soon(self) -> None:
        """Request soon where no request is open, as long as a place is free."""
        if self._widening is not None or not self.is_open:
            return
        if any(state.is_asked and not one.outstanding for one, state in self._states.items()):
            if self.held >= self.limit - self._kept_free:
                self._until_low = 1  # when the next is given back
                return
            loop = asyncio.get_running_loop()
            soon = DRY_AFTER if self._used() > self._low_mark else SILENT_AFTER
            self._widening = loop.call_later(soon, self._widen)

    def _widen(self) -> None:
        self._widening = None
        if self.is_open:
            self._share(widen=True)
            self._until_low = self._used() - self._low_mark
            self._ask_dry_ones_soon()

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
        self._set_limit(self._concurrency + max(1, int(min(affordable, wanted))))
        self._measured_at = now
        self._released = self._released_bytes = 0

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        # Of what is ahead of the running ones: with that used up, none of them waits for a request.
        self._low_mark = self._concurrency + (limit - self._concurrency) * self._low
        self._until_low = 0.0  # number of deliveries to be given back until it is reached

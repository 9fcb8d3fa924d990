"""Limit: what ``limit=`` adds to a subscription. A run begins when its process has a place for it.

Events without a place wait here, without a slot, and count as held. A process
keeps its places for the next events as long as no other one wants them.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from ...errors import OmniWorkerError
from ...limits.places import Member, Places, fair_part, share
from ...outcomes import KEPT, Outcome
from ...tasks import own
from ...transports.base import Delivery
from ..run import Run
from . import Flow, Gate, Go
from .trouble import BucketTrouble
from .waits import Wait

POLL, SLOW_POLL = 0.05, 0.25  # seconds between two looks while events wait for a place
LOOK = 0.5  # seconds between two looks while none does
IDLE = 0.5  # seconds after which a place that is not used is given up
TURN = 1.0  # seconds that a process keeps a place while another one has none
CROWDED = 0.02  # seconds, at most, until a write that others overtook is tried again
LAST = 2.0  # seconds in which the places are given up at the end


class RunLimit(Gate):
    """Limit of one handler."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._waiting: dict[Delivery, None] = {}  # in order
        self._granted: set[Delivery] = set()
        self._most = places.limit  # runs that may go on here, with what others want
        self._since = 0.0  # loop time of the last place we got
        self._idle_since: float | None = None  # loop time
        self._poll = POLL
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def opened(self, flow: Flow) -> None:
        """Take the flow whose events it holds back."""
        self._flow = flow
        self._said = Wait(flow, f"limit={self._places.limit}", lambda: len(self._waiting))
        self._trouble = BucketTrouble(flow, "limit")
        flow.limited["limit"] = lambda: len(self._waiting)

    async def through(self, run: Run, go: Go) -> Outcome:
        """Run an event that has a place, or finds one; otherwise it waits here."""
        delivery = run.delivery
        if delivery not in self._granted:
            if delivery in self._waiting:
                return KEPT
            if self._waiting or not self._has_room():
                self._waiting[delivery] = None
                self._said.noticed()
                self._tend()
                return KEPT
            self._granted.add(delivery)
        try:
            return await go(run)
        finally:
            self._free(delivery)

    def leave(self, delivery: Delivery) -> None:
        """Forget an event that is released; its place is for the next one."""
        self._waiting.pop(delivery, None)
        self._free(delivery)

    def close(self) -> None:
        """Begin nothing any more; each place is given up as its run ends."""
        self._closed = True
        self._changed.set()

    async def ended(self) -> None:
        """Give the places up, now that every run has ended."""
        if (task := self._task) is not None:
            self._changed.set()
            await asyncio.wait([task], timeout=LAST)
            task.cancel()

    # --- places ----------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Return True if another run may begin."""
        most = min(self._places.mine, self._most, self._flow.slots.size)
        is_sure = self._places.is_sure(self._flow.leases.ack_wait)
        return len(self._granted) < most and is_sure and not self._closed

    def _free(self, delivery: Delivery) -> None:
        """Take a place back from an event: for the next one, or for another process."""
        if delivery in self._granted:
            self._granted.discard(delivery)
            self._begin()
            is_sure = self._places.is_sure(self._flow.leases.ack_wait)
            if self._closed or self._places.mine > self._most or not is_sure:
                self._changed.set()

    def _begin(self) -> None:
        """Let as many events begin as there are places."""
        begin: list[Delivery] = []
        while self._waiting and self._has_room():
            delivery = next(iter(self._waiting))
            del self._waiting[delivery]
            self._granted.add(delivery)
            begin.append(delivery)
        for delivery in reversed(begin):
            self._flow.slots.offer_first(delivery)
        if begin:
            self._poll = POLL

    def _tend(self) -> None:
        """Look for places soon."""
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._keep(), name=own("limit"))
        elif len(self._waiting) == 1:
            self._changed.set()

    async def _keep(self) -> None:
        """Get and keep places as long as events need them."""
        try:
            while self._waiting or self._granted or self._places.mine or self._places.wants:
                self._changed.clear()
                try:
                    await self._agree()
                except OmniWorkerError as error:
                    if self._closed and not self._granted:
                        return  # they come free after the lease
                    await self._trouble.pause(error)
                    continue
                self._trouble.over()
                self._begin()
                await self._pause()
        finally:
            self._task = None
            self._trouble.rest()

    async def _agree(self) -> None:
        """Read what the other processes have and want, and write what we do, where that differs."""
        places = self._places
        while True:
            members = await places.look()
            lease = self._flow.leases.ack_wait
            before = places.mine
            keeps, wants = self._decide()
            _, gets = share(places.limit, members, Member(places.id, keeps, wants))
            is_news = (gets, keeps + wants - gets) != (before, places.wants)
            if not is_news and not ((keeps or wants) and places.is_due(lease)):
                return
            if await places.write(members, keeps, wants, lease):
                if places.mine > before:
                    self._since = self._flow.now()
                return
            await asyncio.sleep(random.uniform(0, CROWDED))

    def _decide(self) -> tuple[int, int]:
        """Return how many places to keep, and how many more to want."""
        places, now = self._places, self._flow.now()
        busy = len(self._granted)
        waiting = 0 if self._closed else len(self._waiting)
        needed = max(busy, min(busy + waiting, self._flow.slots.size, places.limit))
        others_want = any(one.wants for one in places.others)
        self._most = places.limit
        if others_want:
            me = Member(places.id, places.mine, needed)
            self._most = fair_part(places.limit, [*places.others, me])
            is_starving = any(one.wants and not one.places for one in places.others)
            if is_starving and self._free_ones() <= 0 and now - self._since >= TURN:
                self._most = min(self._most, places.mine - 1)
        if places.mine <= needed:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        is_idle = self._idle_since is not None and now - self._idle_since >= IDLE
        gives_up = is_idle or others_want or self._closed
        keeps = max(busy, min(places.mine, needed if gives_up else places.mine, self._most))
        return keeps, max(0, needed - keeps)

    def _free_ones(self) -> int:
        places = self._places
        return places.limit - places.mine - sum(one.places for one in places.others)

    async def _pause(self) -> None:
        """Wait for a change here, or for the next look."""
        seconds = LOOK
        if self._waiting:
            seconds = self._poll
            self._poll = min(SLOW_POLL, self._poll * 1.5)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self._flow.leases.ack_wait / 4)):
                await self._changed.wait()

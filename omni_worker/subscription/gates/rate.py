"""Rate: what ``rate=`` adds to a subscription. A run begins when there is a token for it.

Events of a key without tokens wait here, without a slot; those of other keys pass. What waits
longer than a while goes back to the server until about its turn. A token is for one run: one that
was not needed after all is given to the next event of its key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from ...errors import OmniWorkerError
from ...limits.tokens import Tokens
from ...outcomes import KEPT, Failed, HandBack, Outcome
from ...rate import NANO, Grant, Rate
from ...tasks import own
from ...transports.base import Delivery
from ..run import Run
from . import Flow, Gate, Go
from .trouble import BucketTrouble
from .waits import Wait

HELD_FOR = 30.0  # seconds of one key's events are held; what comes after them goes back
LONGEST = 600.0  # seconds until it comes again, at most
FRESH = 1.0  # seconds after which a token that is not used yet counts as spare
KEYS = 10_000  # that are remembered while none of their events is here


class Lane:
    """Lane of one key: who waits for a token, who has one, and what is left of a chunk."""

    __slots__ = ("back_until", "granted", "name", "spare", "task", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: dict[Delivery, None] = {}  # in order
        self.granted: dict[Delivery, float] = {}  # since when (loop time), in order
        self.spare = 0  # tokens, never more than a chunk
        self.back_until = 0.0  # loop time; when the last that was handed back comes again
        self.task: asyncio.Task[None] | None = None


class RateLimit(Gate):
    """Rate of one handler; ``key_of`` names an event's key, None: all of them have one."""

    def __init__(
        self, rate: Rate, tokens: Tokens, key_of: Callable[[Any], Hashable] | None, *, ordered: bool
    ) -> None:
        self._rate = rate
        self._tokens = tokens
        self._key_of = key_of
        # In order nothing goes back: its successors would have to wait for it.
        self._goes_back = key_of is not None and not ordered
        self._most = max(2, rate.chunk, int(rate.count / rate.per * HELD_FOR))
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._lane_of: dict[Delivery, Lane] = {}
        self._unspent: set[Delivery] = set()  # called too late for their token
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def opened(self, flow: Flow) -> None:
        """Take the flow whose events it holds back."""
        self._flow = flow
        self._said = Wait(flow, f"rate={flow.handler.options.rate!r}", self._count_waiting)
        self._trouble = BucketTrouble(flow, "rate")
        flow.limited["rate"] = lambda: sum(len(one.waiting) for one in list(self._lanes.values()))

    async def through(self, run: Run, go: Go) -> Outcome:
        """Let an event on that has a token, or that finds one; otherwise it waits here."""
        delivery = run.delivery
        lane = self._lane_of.get(delivery)
        if lane is None:
            try:
                lane = self._lane(run)
            except BaseException as error:  # of the user's function, also SystemExit: a failure
                if not getattr(error, "__notes__", None):
                    error.add_note("raised by rate_by=")
                return Failed(error)
            self._lane_of[delivery] = lane
            if lane.waiting or not self._finds_token(lane, delivery):
                return self._wait(lane, delivery)
        elif delivery in lane.waiting:
            return KEPT
        outcome = await go(run)
        if delivery not in self._unspent:
            return outcome
        # Only now: another slot would run it while it still has a place and a guard in this one.
        self._unspent.discard(delivery)
        lane.waiting = {delivery: None, **lane.waiting}
        self._hold(lane, delivery)
        return KEPT

    def spend(self, delivery: Delivery) -> bool:
        """Use an event's token, now that its handler is called. Return False if it waits again.

        What waited elsewhere for so long that its token is no longer fresh takes a spare one: were
        all of those used as well, more would run at once than the rate allows.
        """
        lane = self._lane_of.get(delivery)
        if lane is None:  # released by now: it runs, and its end is late
            return True
        if self._finds_token(lane, delivery):
            del lane.granted[delivery]
            del self._lane_of[delivery]
            return True
        self._unspent.add(delivery)
        return False

    def leave(self, delivery: Delivery) -> None:
        """Forget an event that ended or is released; its token is for the next one."""
        lane = self._lane_of.pop(delivery, None)
        if lane is None:
            return
        self._flow.parked.remove(delivery)
        self._unspent.discard(delivery)
        lane.waiting.pop(delivery, None)
        if lane.granted.pop(delivery, None) is not None:
            self._give(lane, 1)

    def close(self) -> None:
        """Grant nothing any more: what waits is handed back."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    # --- events ----------------------------------------------------------------------------

    def _lane(self, run: Run) -> Lane:
        """Return the lane of an event's key. Raises any error that ``key_of`` raises."""
        name = self._tokens.name(None if self._key_of is None else self._key_of(run.event))
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name)
            self._forget_idle()
        else:
            self._lanes.move_to_end(name)
        return lane

    def _forget_idle(self) -> None:
        """Forget the key that was not seen for the longest time, unless events of it are here."""
        if len(self._lanes) > KEYS:
            name, lane = next(iter(self._lanes.items()))
            if lane.task is None and not lane.granted:
                del self._lanes[name]
            else:
                self._lanes.move_to_end(name)

    def _finds_token(self, lane: Lane, delivery: Delivery) -> bool:
        """Return True if an event has a token that is fresh, or takes a spare one."""
        now = self._flow.now()
        for one, since in list(lane.granted.items()):
            if now - since <= FRESH:
                break
            del lane.granted[one]
            lane.spare = min(self._rate.chunk, lane.spare + 1)
        if delivery in lane.granted:
            return True
        if not lane.spare:
            return False
        lane.spare -= 1
        lane.granted[delivery] = now
        return True

    def _wait(self, lane: Lane, delivery: Delivery) -> Outcome:
        """Keep an event until its token comes, or hand it back where too many of its key wait."""
        full = len(lane.waiting) >= self._most or self._flow.parked.room <= 0
        if self._closed or (full and self._goes_back):
            del self._lane_of[delivery]
            now, runs = self._flow.now(), self._rate.count / self._rate.per
            # Rather too early, when it comes back once more, than after a token that was not used.
            turn = max(lane.back_until, now + (len(lane.waiting) - 1) / runs) + 1 / runs
            lane.back_until = min(turn, now + LONGEST)
            return HandBack(lane.back_until - now, "its rate is used up")
        lane.waiting[delivery] = None
        self._hold(lane, delivery)
        return KEPT

    def _hold(self, lane: Lane, delivery: Delivery) -> None:
        """Set aside an event that waits, so that other keys have its place, and get it a token.

        Without keys no other event could begin: they count as held, so that pulling ends.
        """
        self._said.noticed()
        if self._key_of is not None:
            self._flow.parked.add(delivery)
        if lane.task is None and not self._closed:
            loop = asyncio.get_running_loop()
            lane.task = loop.create_task(self._serve(lane), name=own("rate"))
            self._tasks.add(lane.task)
            lane.task.add_done_callback(self._served)

    def _count_waiting(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    # --- tokens ----------------------------------------------------------------------------

    async def _serve(self, lane: Lane) -> None:
        """Take tokens as long as events of a key wait."""
        try:
            while lane.waiting:
                try:
                    taken = await self._tokens.take(lane.name, len(lane.waiting))
                except OmniWorkerError as error:
                    await self._trouble.pause(error)
                    continue
                self._trouble.over()
                if isinstance(taken, float):
                    await asyncio.sleep(taken)
                else:
                    await self._hand_out(lane, *taken)
        finally:
            lane.task = None

    async def _hand_out(self, lane: Lane, grant: Grant, now: int) -> None:
        """Give each token of a chunk at its time, to who waits then."""
        passed, given = now - int(self._flow.now() * NANO), 0
        while given < grant.count:
            wait = grant.first + self._rate.span(given) - passed - int(self._flow.now() * NANO)
            if wait > 0:
                await asyncio.sleep(wait / NANO)
                continue
            due = min(grant.count - given, -wait // self._rate.span(1) + 1)
            self._give(lane, due)
            given += due

    def _give(self, lane: Lane, count: int) -> None:
        """Let as many events begin as there are tokens; what is left is spare, up to a chunk."""
        now, begin = self._flow.now(), list(lane.waiting)[:count]
        for delivery in begin:
            del lane.waiting[delivery]
            lane.granted[delivery] = now
            self._flow.parked.remove(delivery)
        lane.spare = min(self._rate.chunk, lane.spare + count - len(begin))
        if not self._closed:
            for delivery in reversed(begin):
                self._flow.slots.offer_first(delivery)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._trouble.rest()


class Spend(Gate):
    """Spend an event's token, behind every other gate: those may have held it for long."""

    def __init__(self, rate: RateLimit) -> None:
        self._rate = rate

    async def through(self, run: Run, go: Go) -> Outcome:
        """Call the handler, or let the event wait for another token."""
        return await go(run) if self._rate.spend(run.delivery) else KEPT

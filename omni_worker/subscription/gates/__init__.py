"""Gates: objects that act between a delivery and its run.

A gate is an object with three methods, all of them optional:

* ``opened(flow)`` is called once, before anything is read. Through the ``Flow`` a gate steers its
  handler: ``flow.hold(reason)`` stops pulling until ``flow.release(reason)``, and
  ``flow.stall(what, reason)`` tells people why it stands still.
* ``async through(run, go)`` surrounds every run, as a middleware surrounds a handler: it
  returns ``await go(run)``, waits before it, or returns an outcome of its own and does not run at
  all. ``HandBack`` gives the event back to the server, no attempt spent.
* ``close()`` is called when the subscription stops: nothing may wait in the gate after it.

Gates of the engine have two more: ``leave(delivery)`` is called for each one that is released, and
``async ended()`` after the last run of a subscription that stops.

While a run waits in a gate it occupies its slot, its lease is extended, and its handler has not
begun. A handler's own gates are in this order, the outermost first: recall, which comes before the
event is read, order, rate and limit, the gates of the user, the guard, the breaker, alone. A
handler with an order, a rate, a limit, a guard or a gate of the user pays for it with every event;
others run flat (see ``execution``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ...handlers import Handler
from ...outcomes import Outcome
from ...signals import Signal, Signals, Stalled, StallEnded
from ...transports.base import Delivery
from ..run import Run
from .parked import Parked

if TYPE_CHECKING:
    from ..credit import Credit
    from ..leases import Leases
    from ..slots import Slots
    from .waits import Wait

Go = Callable[[Run], Awaitable[Outcome]]


class Flow:
    """Flow of one handler's events, as a gate may steer it.

    ``slots``, ``leases`` and ``credit`` are for the gates of the engine.
    """

    def __init__(
        self, handler: Handler, signals: Signals, slots: Slots, leases: Leases, credit: Credit
    ) -> None:
        self.handler = handler
        self.waits: list[Wait] = []  # of events that wait for their rate or limit
        self.signals = signals
        self.slots = slots
        self.leases = leases
        self.credit = credit
        self.parked = Parked(credit)  # events that wait in a gate, set aside
        self.stalls: dict[str, str] = {}  # what stands still → the reason, in words
        self.limited: dict[str, Callable[[], int]] = {}  # by which limit → how many wait for it
        self._stopping = asyncio.Event()

    def stall(self, what: str, reason: str) -> None:
        """Report, once, what keeps the handler from its events."""
        if what not in self.stalls:
            self.emit(Stalled(handler=self.handler, reason=reason))
        self.stalls[what] = reason

    def stall_ended(self, what: str) -> None:
        """Report that it goes on, if it was reported to stand still."""
        if (reason := self.stalls.pop(what, None)) is not None:
            self.emit(StallEnded(handler=self.handler, reason=reason))

    def hold(self, reason: str) -> None:
        """Stop pulling, until every reason that was given is released."""
        self.credit.hold(reason)

    def release(self, reason: str) -> None:
        """Pull again, if no other reason holds; releasing a reason twice changes nothing."""
        self.credit.release(reason)

    def now(self) -> float:
        """Seconds of the loop's clock."""
        return self.leases.now()

    def emit(self, signal: Signal) -> None:
        """Tell the listeners what happened."""
        self.signals.emit(signal)

    async def wait(self, seconds: float) -> bool:
        """Wait; returns at once, False, when the subscription stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return not self._stopping.is_set()

    def stop(self) -> None:
        """End every wait: the subscription stops."""
        self._stopping.set()


class Gate:
    """Base class of every gate; each method has an empty default."""

    # Whether a first run with nothing unusual about it may pass without a call of ``through``.
    lets_plain_runs_pass = False

    def opened(self, flow: Flow) -> None:
        """Take the flow, before the subscription reads anything."""

    async def through(self, run: Run, go: Go) -> Outcome:
        """Let a run through, now or later, or return an outcome in its place."""
        return await go(run)

    def close(self) -> None:
        """End every wait in the gate: the subscription stops."""

    def leave(self, delivery: Delivery) -> None:
        """Forget a delivery that ended or is released."""

    async def ended(self) -> None:
        """Say the last word: every run of a subscription that stops has ended."""


def chain(gates: Sequence[Gate], innermost: Go) -> Go:
    """Build one function that takes a run through all gates, the first one outermost."""
    go = innermost
    for gate in reversed(gates):
        go = _behind(gate, go)
    return go


def _behind(gate: Gate, go: Go) -> Go:
    def through(run: Run) -> Awaitable[Outcome]:
        return gate.through(run, go)

    return through

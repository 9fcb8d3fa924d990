"""Order: what ``order_by`` adds to a subscription.

Events of one key run one at a time and in stream order: behind each other, behind a retry, and
behind what another process has not answered yet.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from ...outcomes import KEPT, Failed, Outcome
from ...transports.base import Delivery, Source
from ..run import Run
from ..source_state import SourceState
from . import Flow, Gate, Go
from .catch_up import AskConsumerInfo, Gap, Gaps
from .keys import Lanes


class Order(Gate):
    """Order of one handler. The subscription also asks it when a delivery comes or leaves."""

    def __init__(
        self, key_of: Callable[[Any], Hashable], *, consumer_info: AskConsumerInfo
    ) -> None:
        self._lanes = Lanes(key_of)
        self._consumer_info = consumer_info
        self._later: set[Delivery] = set()  # kept for a retry of theirs
        self._open = True

    def opened(self, flow: Flow) -> None:
        """Take the flow whose events it orders."""
        self._leases = flow.leases
        self._credit = flow.credit
        self._slots = flow.slots
        self.parked = flow.parked
        self._gaps = Gaps(
            self._consumer_info,
            flow.leases,
            flow.credit,
            self.parked,
            on_closed=self._gap_closed,
            handler=flow.handler,
            signals=flow.signals,
        )

    async def through(self, run: Run, go: Go) -> Outcome:
        """Run an event that has its key; otherwise it waits here, without a slot, for its turn."""
        try:
            has_key = self._lanes.enter(run.delivery, run.event)
        except BaseException as error:  # of the user's function, also SystemExit: a failure
            if not getattr(error, "__notes__", None):
                error.add_note("raised by order_by=")
            return Failed(error)
        finally:
            run.leave_line()
        if has_key:
            return await go(run)
        self.parked.add(run.delivery)
        return KEPT

    def keeps(self, delivery: Delivery) -> bool:
        """Return True if the event waits for a retry: its attempt is spent, its key is held."""
        return delivery in self._later

    def wait_for_older(self, state: SourceState, delay: float = 0.0) -> bool:
        """Request nothing new until the events others have not answered yet are here.

        ``delay`` is that of one that was handed back, in seconds.
        Return False where nothing is to be waited for: it stops, or another process is served.
        """
        if self._open and state.source.is_served:
            self._gaps.open(state, delay)
            self._credit.sources_changed()
            return True
        return False

    def stand_by(self, state: SourceState) -> None:
        """Wait for nothing any longer: another process is served."""
        self._gaps.forget(state.source)
        state.is_asked = True
        self._credit.sources_changed()

    def may_begin(self, state: SourceState, delivery: Delivery) -> bool:
        """Return True if a new delivery may begin in its turn; otherwise it is gathered."""
        if not self._gaps.gather(state, delivery):
            return True
        self.parked.add(delivery)
        return False

    def owes(self, state: SourceState, delivery: Delivery) -> bool:
        """Return True if its key waits for this unsettled event; not if it was given up."""
        return self._lanes.has(delivery) and not state.is_given_up(delivery)

    def leave(self, delivery: Delivery) -> None:
        """Remove a finished or dropped event: the next one of its key may begin."""
        self._later.discard(delivery)
        self.parked.remove(delivery)
        following = self._lanes.leave(delivery)
        if following is not None:
            self.parked.remove(following)
            self._slots.offer_first(following)

    def keep(self, delivery: Delivery, delay: float) -> bool:
        """Hold an event and its key until its retry is due. Return False if another has to."""
        if not (self._open and delivery.source.is_served):
            return False
        self._later.add(delivery)
        self.parked.add(delivery)
        self._leases.call_later(delay, self._retry, delivery)
        return True

    def forget(self, source: Source) -> None:
        """Forget a lost source."""
        self._gaps.forget(source)

    def close(self) -> None:
        """Stop keeping and waiting: the subscription stops."""
        self._open = False
        self._gaps.close()

    def _retry(self, delivery: Delivery) -> None:
        if delivery in self._later:  # not released since
            self._later.discard(delivery)
            self.parked.remove(delivery)
            self._slots.offer_first(delivery)

    def _gap_closed(self, gap: Gap) -> None:
        for delivery in gap.gathered:
            if gap.state.held.get(delivery.sequence) is delivery:  # not released since
                self.parked.remove(delivery)
                self._slots.offer(delivery)
        self._credit.sources_changed()

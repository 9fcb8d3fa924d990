"""Subscription: the loop of one handler. Deliveries come in, run once, are answered, and leave.

It is put together from its states (what is known of each source), its credit (how many may be
held), its slots (who runs them), its leases (that they stay ours), its gates (what may come
before a run), and its execution (the life of one event).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..settle import Counts
from ..signals import CutOff, PullRepeated
from ..tasks import of_handler
from ..transports.base import Delivery, Source
from .credit import Credit
from .doubts import Doubts
from .execution import Execution
from .gates import Flow
from .handback import HandingBack
from .leases import Leases
from .parts import Parts
from .pauses import Pauses
from .scaling import Scaling
from .slots import Slots
from .source_state import SourceState, is_held_elsewhere
from .standby import Standby
from .surplus import Surplus
from .unanswered import Unanswered

__all__ = ["Counts", "Parts", "SourceState", "Subscription"]


class Subscription:
    """Run one handler. Implements the port's Receiver."""

    def __init__(self, parts: Parts) -> None:
        options = parts.handler.options
        assert options.ack_wait is not None
        at_once, batch = parts.handler.at_once, parts.handler.batch
        self.handler, self.counts, self.times = parts.handler, parts.counts, parts.times
        self._parts = parts
        self._states: dict[Source, SourceState] = {}
        self._pulled: dict[Source, SourceState] = {}  # those of them this subscription asks itself
        name = of_handler(parts.handler.name)
        self._slots = Slots(at_once, lambda slot: self._execution.work(slot), name)
        self._leases = Leases(
            self._states,
            self._slots,
            ack_wait=options.ack_wait,
            timeout=options.timeout if batch is None else None,  # of the batch, not of each event
            can_cancel=parts.handler.is_async,
            is_connected=parts.is_connected,
            handler=parts.handler,
            signals=parts.signals,
        )
        self._credit = Credit(
            self._pulled,
            concurrency=at_once,
            prefetch=options.prefetch,
            streams=parts.streams,
            ordered=options.order_by is not None,
            now=self._leases.now,
        )
        self._back = HandingBack(
            parts.settler, parts.attempts, self._states, self._leases, parts.is_connected
        )
        self.flow = Flow(parts.handler, parts.signals, self._slots, self._leases, self._credit)
        for gate in (parts.recall, *parts.gates):
            gate.opened(self.flow)
        self._order = parts.order
        self._execution = Execution(parts, self.flow, self._states, self._back)
        self._surplus = Surplus(
            self.flow, self._states, self._execution, keeps=options.order_by is not None
        )
        around = (self._states, self._execution, self._back, parts)
        self.pauses, self.standby = Pauses(self.flow, *around), Standby(*around)
        self.scaling = Scaling(
            self.flow, self._surplus, parts, batch=1 if batch is None else batch.size
        )
        self.unanswered = Unanswered(self.flow, self.pauses)
        self.doubts, self._draining = Doubts(), False
        self.resumptions = 0  # how often the link was renewed

    # --- for users -------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Deliveries buffered or running: never more than concurrency + prefetch.

        With several consumers, one more for each further one, until it is handed back; with an
        order or ``rate_by``, up to 10 000 more that wait for the turn of their key.
        """
        return self._credit.held + len(self.flow.parked)

    @property
    def running(self) -> int:
        """Events in the handler's function right now: what waits or gathers is only held."""
        batches = self._parts.batches
        if batches is not None:
            return batches.running
        return sum(slot.is_running for slot in list(self._slots.all))

    @property
    def busy_seconds(self) -> float:
        """Seconds that its slots, or its batches, were busy until now, all together."""
        return (self._parts.batches or self._slots).busy_seconds

    @property
    def is_on_trial(self) -> bool:
        """True while the breaker is open: trials run until one succeeds."""
        return self._parts.breaker.is_open

    @property
    def sources(self) -> list[Source]:
        """Consumers that this subscription reads."""
        return list(self._pulled)

    @property
    def missing(self) -> int:
        """Number of lost consumers that are not recreated yet."""
        return max(0, self._credit.streams - len(self._pulled))

    @property
    def stalls(self) -> list[str]:
        """Reasons that keep the handler from taking events."""
        return list(self.flow.stalls.values())

    @property
    def warnings(self) -> list[str]:
        """Facts that do not keep it from its events, and need a person."""
        failure = self._parts.attempts.failure
        notes = [] if failure is None else [f"attempts cannot be noted: {failure}"]
        return [*notes, *self.unanswered.warnings, *self.standby.warnings]

    @property
    def lapsed(self) -> int:
        """Deliveries still held whose lease has run out: the server has given them away."""
        return sum(
            self._leases.has_lapsed(delivery)
            for state in self._states.values()
            for delivery in state.held.values()
        )

    def holds(self, stream: str) -> set[int]:
        """Sequences of a stream that are buffered or running."""
        states = self._states.items()
        return {one for source, known in states if source.stream == stream for one in known.held}

    async def unsubscribe(self, grace: float | None = None) -> None:
        """Stop reading and hand back what has not begun; running handlers get ``grace`` seconds.

        Calling it again changes nothing. A durable consumer stays on the server.
        """
        await self._parts.on_unsubscribe(self, grace)

    # --- for bus and binding ---------------------------------------------------------------

    def attach(
        self, source: Source, after: SourceState | None = None, *, fed: bool = False
    ) -> None:
        """Read one more source; ``after`` is the state of the lost source that it replaces.

        A source that is ``fed`` is requested from and stopped by its owner, which hands over its
        deliveries.
        """
        state = SourceState(source)
        if after is not None:
            state.succeed(after)
        elif (sibling := self._sibling(source)) is not None:
            state.join(sibling)
        self._states[source] = state
        if fed:
            return
        self._pulled[source] = state
        if self._order is None or not self._order.wait_for_older(state):
            self._credit.sources_changed()

    def detach(self, source: Source) -> SourceState | None:
        """Forget a lost source: buffered deliveries are dropped, running ones may only be acked."""
        state = self._states.pop(source, None)
        self._pulled.pop(source, None)
        self.unanswered.forget(source)
        self.doubts.take(source)
        if state is None:
            return None
        if self._order is not None:
            self._order.forget(source)
        self._execution.let_go(state, self._execution.waiting([state]))
        for delivery in state.held.values():
            delivery.lapsed = True
        self._credit.sources_changed()
        return state

    def settled_up_to(
        self, source: Source, ack_floor: int, *, is_idle: bool = False, deliveries: int = 0
    ) -> None:
        """Take over the server's ack floor: everything up to this sequence is settled.

        A source that ``is_idle`` has nothing unsettled at all. ``deliveries`` is how many its
        consumer made so far; a lower number is a reset.
        """
        state = self._states.get(source)
        if state is None:
            return
        state.deliveries = deliveries
        state.forget_settled(ack_floor)
        state.floor = float("inf") if is_idle else ack_floor
        lowest = min(one.floor for one in self._of_stream(source.stream))
        state.settled.forget(ack_floor if lowest == float("inf") else int(lowest))

    def judge(self, source: Source) -> None:
        """Go on with doubtful deliveries: what is still known as settled is answered, unrun."""
        for delivery in self.doubts.take(source):
            state = self._states.get(source)
            if state is not None and state.settled.holds(delivery.sequence, delivery.stored_at):
                self._parts.settler.settled_before(delivery)
            else:
                self.receive(delivery)

    def forget_settled(self, source: Source) -> None:
        """Run again whatever this source delivers: an operator reset or recreated the consumer."""
        if (state := self._states.get(source)) is not None:
            state.forget_all()

    def state_of(self, source: Source) -> SourceState | None:
        """Return what is known of a source and its stream."""
        return self._states.get(source)

    def on_room(self, call: Callable[[], None]) -> None:
        """Call once, when the next delivery is released: its caller has more to hand over."""
        self._credit.on_room(call)

    def lease(self, ack_wait: float, announced: float) -> None:
        """Set the server's ack_wait and the announced one, in seconds: leases follow them."""
        self._leases.ack_wait, self._leases.extended_by = ack_wait, announced

    async def drain(self, grace: float) -> None:
        """Stop without losing or doubling anything.

        Pulling stops first, and only then is handed back what has not begun: a nak sent while a
        pull of ours is outstanding comes straight back. Running handlers get ``grace`` seconds
        with their leases kept; what runs longer is handed back and cancelled.
        """
        self._draining = True
        self._credit.close()
        self._slots.close()
        self.flow.stop()
        for gate in self._parts.gates:
            gate.close()
        self._back.note_running([one.delivery for one in self._slots.all if one.delivery])
        await self._surplus.close()
        stopping = (source.stop() for source in self._pulled)
        await asyncio.gather(self.pauses.close(), self.standby.close(), *stopping)
        self._parts.let_go()
        try:
            await self._hand_back_waiting()
            await self._slots.wait(grace)
        finally:  # a second signal cancels the wait, not the handing back
            await self._hand_back_running()
            # An event that was being read or noted above has no slot now, if it waits for its key.
            await self._hand_back_waiting()
            await self._slots.cancel()
            self._leases.close()
            await asyncio.gather(*(gate.ended() for gate in self._parts.gates))
        await self._back.forget_ended()

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery; see the port."""
        state = self._states.get(delivery.source)
        if state is None:
            return
        leases, slots = self._leases, self._slots
        delivery.leased_at = leases.now()
        if leases.timer is None:
            leases.watch()
        sequence = delivery.sequence
        repeat = delivery.count > 1 or sequence <= state.highest or sequence <= state.look_up_until
        if repeat and self._recognise(state, delivery):
            return
        if sequence > state.highest:
            state.highest = sequence
        if self._draining:
            self._back.one(delivery)
            return
        state.held[sequence] = delivery
        self._credit.held += 1
        if self._order is None or self._order.may_begin(state, delivery):
            slots.buffer.append(delivery)  # as slots.offer, without the call
            if slots.waking is None:
                slots.wake_one()
        if self._credit.is_shared and not delivery.source.outstanding:
            self._on_dry(delivery)

    def replenish(self, source: Source) -> None:
        """Request again after a pull ended; only a little where nothing came."""
        if (state := self._states.get(source)) is not None:
            state.window = 0
        self._credit.refill()

    def resumed(self, source: Source) -> None:
        """Handle a renewed link: repeats may come as first deliveries, leases must be extended."""
        self.resumptions += 1
        state = self._states.get(source)
        if state is not None:
            state.look_up_until = max(state.highest, state.settled.highest)
            self._leases.touch(state)
            is_pulled = source in self._pulled
            if self._order is not None and is_pulled:
                self._order.wait_for_older(state)
            self.doubts.ask(source)
            if is_pulled and source.repeats > state.repeats:
                state.repeats = source.repeats
                where = {"stream": source.stream, "consumer": source.consumer}
                self._parts.signals.emit(PullRepeated(handler=self.handler, **where))
        self._credit.refill()

    def lost(self, source: Source, cause: Exception) -> None:
        """Report a lost consumer to its binding, which decides."""
        self._parts.on_lost(source, cause)

    def _recognise(self, state: SourceState, delivery: Delivery) -> bool:
        """Return True if the delivery needs no run: it was settled before, or is held right now."""
        if delivery.count == 1 and delivery.sequence > state.look_up_until:
            state.goes_back(self.doubts)
        if state.settled.holds(delivery.sequence, delivery.stored_at):
            if delivery.count == 1 and delivery.consumer_sequence <= state.deliveries:
                self.doubts.add(delivery)
            else:
                self._parts.settler.settled_before(delivery)
            self._credit.refill_if_low()
            return True
        held = state.held.get(delivery.sequence)
        if held is None or held.stored_at != delivery.stored_at:
            # This delivery gets no answer: when it comes again the event is settled, or is wanted.
            self._credit.refill_if_low()
            return is_held_elsewhere(self._of_stream(delivery.source.stream), delivery)
        # Ours again: the newest delivery carries the lease, the run goes on. It may come from the
        # consumer that was made in the place of a lost one.
        held.source, held.reply, held.count = delivery.source, delivery.reply, delivery.count
        held.leased_at = delivery.leased_at
        held.lapsed = False
        self._credit.refill_if_low()
        return True

    # --- inside ----------------------------------------------------------------------------

    def _of_stream(self, stream: str) -> list[SourceState]:
        return [state for one, state in self._states.items() if one.stream == stream]

    def _sibling(self, source: Source) -> SourceState | None:
        """Return the state of another source of the same stream."""
        return next((s for s in self._of_stream(source.stream) if s.source is not source), None)

    def _on_dry(self, delivery: Delivery) -> None:
        """Request again from a source that delivered all, or note that this was one too many."""
        if self._credit.held > self._credit.limit and delivery.source in self._pulled:
            self._surplus.add(delivery)
        else:
            self._credit.refill_if_low()

    async def _hand_back_waiting(self) -> None:
        waiting = self._execution.waiting(self._states.values())
        self._slots.buffer.clear()
        await self._execution.hand_back(waiting, "the handler stops")

    async def _hand_back_running(self) -> None:
        """Hand back what still runs at the end of grace; its late ending is ignored."""
        running = [one.delivery for one in self._slots.all if one.delivery is not None]
        try:
            await self._back.all(running)
        finally:
            for delivery in running:
                self._parts.signals.emit(CutOff(handler=self.handler, delivery=delivery))

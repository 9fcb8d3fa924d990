"""Execution: the life of one event in one place: taken, read, run, answered, released.

A plain event, which is nearly every one, is run by the loop of its slot itself: a first delivery
with no gate in its way. Every other event takes the long way through the gates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from time import perf_counter, time
from typing import Any, cast

from ..context import Context
from ..current import CONTEXT, Begun, current_context
from ..dispatch import TimedOut
from ..events import Event
from ..outcomes import DONE, KEPT, Done, Failed, HandBack, Outcome, Rejected
from ..settle import Trouble
from ..signals import EngineFault, RunFinished, RunStarted
from ..transports.base import Delivery, Source
from .foreign import Foreign
from .gates import Flow, Gate, chain
from .handback import HandingBack
from .parts import Parts
from .run import Run
from .slots import NEVER, Slot
from .source_state import SourceState

FAULT_DELAY = 5.0  # seconds until an event comes again after a fault of ours
TURN = 128  # events a slot runs before the loop gets a turn, if no handler gave it one


class Execution:
    """Runs the deliveries of one handler, in as many slots as may run at once."""

    def __init__(
        self, parts: Parts, flow: Flow, states: dict[Source, SourceState], back: HandingBack
    ) -> None:
        self._handler = parts.handler
        self._model = parts.handler.model
        self._dispatcher = parts.dispatcher
        self._settler = parts.settler
        self._counts = parts.counts
        self._around = parts.around
        self._order = parts.order
        self._leaves = [one.leave for one in parts.gates if type(one).leave is not Gate.leave]
        self._breaker = parts.breaker
        self._is_plain = all(gate.lets_plain_runs_pass for gate in parts.gates)
        self._recall = parts.recall
        self._through = chain(parts.gates, self._call)
        self._signals = parts.signals
        self._started = parts.signals.emitter(RunStarted)
        self._finished = parts.signals.emitter(RunFinished)
        self._spans = parts.signals.spans
        self._times = None if parts.batches is not None else parts.times  # they note their calls
        told = (self._started, self._finished, self._spans)
        self._emits_runs = any(one is not None for one in told)
        # The function itself, where nothing around it needs its context.
        self._bare = None if self._emits_runs else parts.dispatcher.bare
        self._states = states
        self._slots = flow.slots
        self._leases = flow.leases
        self._credit = flow.credit
        self._back = back
        self._foreign = Foreign(parts.handler, parts.signals, parts.foreign_limit, flow.leases.now)

    async def work(self, slot: Slot) -> None:
        """Run a slot, event after event. The whole life of a plain event is here."""
        slots, states, leases, breaker = self._slots, self._states, self._leases, self._breaker
        dispatcher, counts, buffer, now = self._dispatcher, self._counts, slots.buffer, leases.now
        read, bare, model = dispatcher.read, self._bare, self._model
        call = partial(self._call_told, slot) if self._emits_runs else dispatcher.call
        around, give_back, turn, times = self._around, self._credit.give_back, 0, self._times
        task, own, before = cast("asyncio.Task[None]", slot.task), slot.context, slots.context
        slots.woke(slot)
        while (buffer and slots.is_free) or await slots.is_ready(slot):
            delivery = buffer.popleft()
            if buffer and slots.waking is None and (slots.idle or len(slots.all) < slots.size):
                slots.wake_one()
            if (state := states.get(delivery.source)) is None:
                continue
            slot.delivery, ended = delivery, None
            is_plain = self._is_plain and not breaker.is_open and delivery.count == 1
            if is_plain and (delivery.sequence <= state.look_up_until or state.troubles):
                is_plain = state.is_first(delivery)
            lapsed = delivery.lapsed or now() - delivery.leased_at > leases.ack_wait
            try:
                if is_plain and not lapsed:
                    ended = event = read(delivery)
                    if type(event) is model:
                        run: Begun = [event, delivery, 1, began := time(), around]
                        if bare is None:
                            run.append(Context(*run))
                        current_context.set(run)
                        before = copy_context()
                        if leases.timeout is not None:
                            leases.begin_run(slot)
                        slot.is_running = True
                        try:
                            await (bare(event) if bare is not None else call(run[CONTEXT], event))
                            ended = run[CONTEXT].ended if len(run) > CONTEXT else DONE
                        except BaseException as error:
                            ended = dispatcher.ending(error)
                        slot.is_running = False
                        if times is not None:
                            times.note(began, delivery.stored_at, ended is DONE)
                if ended is DONE and not (delivery.lapsed or slot.timed_out):  # answered before
                    if breaker.failures:
                        breaker.saw(DONE)
                    slot.deadline, slot.delivery = NEVER, None
                    delivery.source.ack(delivery)  # as ``settler.done``, without the call
                    counts.handled += 1
                    state.settled.add(delivery.sequence, delivery.stored_at)
                    if state.held.get(delivery.sequence) is delivery:
                        del state.held[delivery.sequence]
                    give_back(len(delivery.body))
                else:
                    await self._live(slot, state, delivery, cast("Outcome | None", ended))
            except Exception as error:
                self.release(state, self._on_fault(error, slot, delivery))
            # At once if nothing was set. Where a value's own comparison raises, the slot ends, too.
            if (not buffer or own != before) and not slots.is_as_begun(slot):
                return  # the next event sees nothing that this one set
            if task.cancelling():  # by the handler, or from outside: what was answered stays
                raise asyncio.CancelledError
            if not (turn := (turn + 1) % TURN):
                await asyncio.sleep(0)

    # --- the long way ----------------------------------------------------------------------

    async def _live(
        self, slot: Slot, state: SourceState, delivery: Delivery, ended: Outcome | None
    ) -> None:
        """Take an event through its life; after a plain run that ``ended`` badly, the rest."""
        current_context.set(None)
        if ended is None and self._is_given_away(slot, state, delivery):
            return
        settled = kept = False
        back: HandBack | None = None  # one that only another delivery of the event mends
        run = None
        try:
            if ended is not None:
                outcome = await self._ended(slot, delivery, ended)
                self._breaker.saw(outcome)
            else:
                run = Run(slot, state, delivery)
                outcome = await self._recall.through(run, self._enter)
            if outcome is KEPT:
                kept = not self._is_left_behind(state, delivery)
                return
            trouble = state.trouble_for(delivery) if run is None else run.trouble
            if isinstance(outcome, HandBack) and outcome.bodiless:
                back = outcome
                # Before its note is written, which takes a while: a later event could begin in it.
                state.held.pop(delivery.sequence, None)
                self._wait_for_it_again(delivery, back.delay)
            settled = await self._settle(state, delivery, outcome, trouble)
            kept = not settled and self._keep_for_retry(state, delivery)
        except asyncio.CancelledError:
            self._back.one(delivery)  # our task is ended from outside: it must not be lost with it
            raise
        except Exception as error:
            self._on_fault(error, slot, delivery)
        finally:
            slot.delivery = None
            if settled:
                state.settled.add(delivery.sequence, delivery.stored_at)
            if not kept:
                again = not settled and (back is not None or self._owes(state, delivery))
                self.release(state, delivery)
                if again:
                    self._wait_for_it_again(delivery, back.delay if back is not None else 0.0)
        if settled and run is not None and isinstance(outcome, Done):
            await self._recall.forget(run)

    async def _enter(self, run: Run) -> Outcome:
        """Read the event and take it through the gates, if it is still ours.

        Between this look and its key nothing waits, or a later event might overtake it.
        """
        if self._is_given_away(run.slot, run.state, run.delivery):
            return KEPT
        read = self._dispatcher.read(run.delivery)
        if type(read) is not self._model:
            return cast("Outcome", read)  # no event, or not ours: it does not run
        run.event = read
        return await self._through(run)

    async def _call(self, run: Run) -> Outcome:
        """Call the handler, behind the last gate."""
        event, slot, delivery, trouble = run.event, run.slot, run.delivery, run.trouble
        run.started = self._leases.now()
        context = Context(event, delivery, run.attempt, trouble.first_seen, self._around)
        return await self._ended(slot, delivery, await self._run(slot, delivery, context))

    async def _run(self, slot: Slot, delivery: Delivery, context: Context) -> Outcome:
        if self._leases.timeout is not None:
            self._leases.begin_run(slot)
        slot.is_running = True
        began = time()
        if self._emits_runs:
            outcome = await self._run_told(slot, delivery, context)
        else:
            outcome = await self._dispatcher.run(context.event, context)
        slot.is_running = False
        if self._times is not None:
            stored_at = delivery.stored_at if context.attempt == 1 else None
            self._times.note(began, stored_at, isinstance(outcome, Done))
        return outcome

    async def _call_told(self, slot: Slot, context: Context, event: Event[Any]) -> None:
        context.ended = await self._run_told(slot, cast("Delivery", slot.delivery), context)

    async def _run_told(self, slot: Slot, delivery: Delivery, context: Context) -> Outcome:
        """Run the handler between the signals that it starts and how it ended."""
        event, attempt, handler = context.event, context.attempt, self._handler
        if self._spans is not None:
            self._spans.begin(handler, delivery, event, attempt)
        if self._started is not None:
            self._started(
                RunStarted(handler=handler, event=event, delivery=delivery, attempt=attempt)
            )
        began = perf_counter()
        outcome = self._in_time(slot, await self._dispatcher.run(event, context))
        if self._finished is not None:
            self._finished(
                RunFinished(
                    handler=handler,
                    event=event,
                    delivery=delivery,
                    attempt=attempt,
                    outcome=outcome,
                    seconds=perf_counter() - began,
                )
            )
        if self._spans is not None:
            self._spans.end(delivery, outcome)
        return outcome

    def _in_time(self, slot: Slot, outcome: Outcome) -> Outcome:
        """Turn the ending of a handler that was stopped by its timeout into TimedOut."""
        leases = self._leases
        if leases.timeout is None or not leases.end_run(slot):
            return outcome
        if not isinstance(outcome, Failed | Rejected):
            return outcome
        text = f"the handler ran longer than timeout={leases.timeout:g} s"
        # With the frames of what was stopped: they say where it was waiting.
        return Failed(TimedOut(text).with_traceback(outcome.error.__traceback__))

    async def _ended(self, slot: Slot, delivery: Delivery, outcome: Outcome) -> Outcome:
        """Return the handler's outcome, or that of a timeout or a cancellation from outside."""
        timed = self._in_time(slot, outcome)
        if timed is outcome and slot.is_cancelled:
            if delivery.lapsed:
                raise asyncio.CancelledError  # handed back at the end of grace: its ending is late
            with suppress(asyncio.CancelledError):  # asked for and not delivered yet
                await asyncio.sleep(0)
        return timed

    async def _settle(
        self, state: SourceState, delivery: Delivery, outcome: Outcome, trouble: Trouble
    ) -> bool:
        """Answer the delivery. Return True if the event is settled."""
        self._leases.has_lapsed(delivery)  # it may have run out under a blocked loop, or offline
        outcome = self._foreign.judge(outcome, trouble)
        settled = await self._settler.settle(delivery, outcome, trouble)
        return state.note_settled(delivery, trouble, settled)

    def _on_fault(self, error: Exception, slot: Slot, delivery: Delivery) -> Delivery:
        slot.delivery = None
        again = "the event comes again"
        self._signals.emit(
            EngineFault(handler=self._handler, error=error, consequence=again, delivery=delivery)
        )
        self._back.one(delivery, FAULT_DELAY, "a fault of the framework")
        return delivery

    # --- letting go ------------------------------------------------------------------------

    def release(self, state: SourceState, delivery: Delivery) -> None:
        """Release a delivery: it is no longer held."""
        if state.held.get(delivery.sequence) is delivery:
            del state.held[delivery.sequence]
        for leave in self._leaves:
            leave(delivery)
        self._credit.give_back(len(delivery.body))

    def let_go(self, state: SourceState, deliveries: Iterable[Delivery]) -> None:
        """Drop buffered deliveries, unanswered: they come again after ack_wait."""
        for delivery in deliveries:
            self._slots.withdraw(delivery)
            self.release(state, delivery)

    def hand_back(self, deliveries: list[Delivery], reason: str) -> Coroutine[Any, Any, None]:
        """Hand back deliveries that have not begun, and let them go. None begins from now on,
        although a gate offers it while they are noted.
        """
        for delivery in deliveries:
            self._slots.withdraw(delivery)
        self._back.leaving.update(deliveries)
        return self._hand_back(deliveries, reason)

    async def _hand_back(self, deliveries: list[Delivery], reason: str) -> None:
        try:
            await self._back.all(deliveries, reason)
        finally:
            for delivery in deliveries:
                state = self._states.get(delivery.source)
                if state is not None and state.held.get(delivery.sequence) is delivery:
                    self.let_go(state, [delivery])

    def _is_given_away(self, slot: Slot, state: SourceState, delivery: Delivery) -> bool:
        """Return True if an event that has not begun is not ours: it was let go, or it lapsed."""
        was_let_go = slot.is_in_line and state.held.get(delivery.sequence) is not delivery
        if was_let_go or delivery in self._back.leaving:  # although a gate offers it
            slot.delivery = None
            return True
        if not self._leases.has_lapsed(delivery):
            return False
        slot.delivery = None
        self.release(state, delivery)
        self._wait_for_it_again(delivery)  # the server has given it away: no answer is ours
        return True

    @property
    def leaving(self) -> set[Delivery]:
        """Deliveries on their way back."""
        return self._back.leaving

    def waiting(self, states: Iterable[SourceState]) -> list[Delivery]:
        """Deliveries that have not begun: in the buffer, in line, behind their key, for a retry."""
        running = {slot.delivery for slot in self._slots.all if not slot.is_in_line}
        held = [one for state in states for one in state.held.values()]
        return [delivery for delivery in held if delivery not in running]

    def _keep_for_retry(self, state: SourceState, delivery: Delivery) -> bool:
        """Keep an event, leased, until its retry is due: the retry holds its key."""
        trouble = state.trouble_of(delivery)
        if self._order is None or trouble is None or trouble.retry_in is None:
            return False
        delay, trouble.retry_in = trouble.retry_in, None
        if self._is_left_behind(state, delivery):
            return False
        if self._order.keep(delivery, delay):
            return True
        self._back.one(delivery)  # at once: with its delay, its key would overtake it
        return False

    def _is_left_behind(self, state: SourceState, delivery: Delivery) -> bool:
        """Return True if its consumer was lost by now: it must not be kept for a later run.

        Its slot would drop it then, and it would hold its key for ever. Once released, it runs
        when the recreated consumer delivers it.
        """
        is_held = state.held.get(delivery.sequence) is delivery
        return is_held and delivery.source not in self._states

    def _owes(self, state: SourceState, delivery: Delivery) -> bool:
        return self._order is not None and self._order.owes(state, delivery)

    def _wait_for_it_again(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Wait for an unsettled event: in order, no later event may begin before it is back."""
        order, state = self._order, self._states.get(delivery.source)
        if order is not None and state is not None and not self._slots.is_closed:
            waiting = self.waiting([state])
            self.let_go(state, [one for one in waiting if not order.keeps(one)])
            order.wait_for_older(state, delay)

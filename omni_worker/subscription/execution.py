"""Execution: the life of one delivery. Recall what is known of it, run it, have it settled.

A first delivery takes the short way. What comes again is looked up in the notes: its attempts may
have been spent in another process, or its last run may have ended one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from ..context import Context
from ..dispatch import TimedOut
from ..errors import OmniWorkerError, TransportError
from ..events import Event
from ..letters.written import Failure
from ..notes import Busy, DoneBefore, Guards, Note, NoteState
from ..outcomes import CONFIRM, DONE, DONE_BEFORE, Failed, HandBack, Outcome, Rejected, Retry
from ..settle import Trouble
from ..signals import ForeignDelivery, NeverEnded
from ..transports.base import Delivery
from .gates.breaker import Breaker
from .leases import Leases
from .parts import Parts
from .slots import NEVER, Slot, Slots
from .source_state import SourceState

GUARD_DELAY = 1.0  # seconds until a guard nobody could ask about is asked again


class Execution:
    """Run deliveries through one handler, one life after another."""

    def __init__(self, parts: Parts, slots: Slots, leases: Leases) -> None:
        self._parts = parts
        self._dispatcher = parts.dispatcher
        self._settler = parts.settler
        self._around = parts.around
        self._slots = slots
        self._leases = leases
        self._guards = parts.guards
        self._model = parts.handler.model
        self.breaker = Breaker(parts.handler.options.breaker or 0, parts.handler, parts.signals)
        self._said_foreign = False

    def run(
        self, slot: Slot, state: SourceState, delivery: Delivery, read: Event[Any] | Outcome
    ) -> Awaitable[bool]:
        """Run what was read and answer. Says whether the event is settled."""
        if delivery.count > 1 or state.may_be_repeat(delivery):
            return self._run_again(slot, state, delivery, read)
        if type(read) is self._model and self._guards is None and not self.breaker.is_open:
            return self._run_plain(slot, state, delivery, read)
        return self._run_first(slot, state, delivery, read)

    async def _run_plain(
        self, slot: Slot, state: SourceState, delivery: Delivery, event: Event[Any]
    ) -> bool:
        """What nearly every event takes: a first run with nothing in the way, which ends well."""
        if self._leases.timeout is not None:
            self._leases.begin_run(slot)
        slot.is_running = True
        outcome = await self._dispatcher.run(
            event, Context(event, delivery, 1, time.time(), self._around)
        )
        slot.is_running = False
        # One that was handed back while it ran has had its answer.
        if outcome is DONE and not delivery.lapsed and not slot.timed_out:
            slot.deadline = NEVER
            if self.breaker.failures:
                self.breaker.succeeded()
            self._settler.done(delivery)
            return True
        outcome = await self._ended(slot, delivery, outcome)
        self._tell_breaker(outcome)
        return await self._settle(state, delivery, outcome, Trouble(first_seen=time.time()))

    async def _run_first(
        self, slot: Slot, state: SourceState, delivery: Delivery, read: Event[Any] | Outcome
    ) -> bool:
        outcome = await self._outcome(slot, delivery, None, read)
        return await self._settle(state, delivery, outcome, Trouble(first_seen=time.time()))

    async def _run_again(
        self, slot: Slot, state: SourceState, delivery: Delivery, read: Event[Any] | Outcome
    ) -> bool:
        trouble = state.trouble_of(delivery) or Trouble(first_seen=time.time())
        # A first delivery here is one the server forgot: nothing says that it ended a process.
        is_suspect = (
            trouble.letter is None and await self._recall(delivery, trouble) and delivery.count > 1
        )
        if trouble.letter is not None:
            settled = await self._settler.send_letter(delivery, trouble)
            return state.note_settled(delivery, trouble, settled)
        async with self._turn(is_suspect, slot) as alone:
            await self._note_start(delivery, trouble, alone)
            outcome = await self._outcome(slot, delivery, trouble, read)
        return await self._settle(state, delivery, outcome, trouble)

    async def _settle(
        self, state: SourceState, delivery: Delivery, outcome: Outcome, trouble: Trouble
    ) -> bool:
        self._leases.has_lapsed(delivery)  # it may have run out under a blocked loop, or offline
        outcome = self._judge_foreign(outcome, trouble)
        settled = await self._settler.settle(delivery, outcome, trouble)
        return state.note_settled(delivery, trouble, settled)

    # --- attempts --------------------------------------------------------------------------

    async def _recall(self, delivery: Delivery, trouble: Trouble) -> bool:
        """Take over what other processes noted. Says whether it may have killed the last one."""
        attempts = self._parts.attempts
        note = await attempts.recall(delivery)
        if note is None:
            return attempts.works
        trouble.first_seen = note.first_seen
        trouble.failures = max(trouble.failures, note.failures)
        if note.state is not NoteState.STARTED:
            self._give_up_if_used_up(trouble, note.error)
            return False
        if not note.alone:
            return True  # others ran beside it: any of them may have ended the process
        trouble.failures += 1
        self._parts.signals.emit(
            NeverEnded(handler=self._parts.handler, delivery=delivery, failures=trouble.failures)
        )
        self._give_up_if_used_up(trouble, "the worker process died each time it ran")
        return True

    def _give_up_if_used_up(self, trouble: Trouble, error: str) -> None:
        if trouble.failures >= self._settler.attempts:
            trouble.letter = Failure(
                error=error, error_type="", traceback="", attempts=trouble.failures
            )

    async def _note_start(self, delivery: Delivery, trouble: Trouble, alone: bool) -> None:
        note = Note(
            state=NoteState.STARTED,
            failures=trouble.failures,
            first_seen=trouble.first_seen,
            alone=alone,
        )
        await self._parts.attempts.keep(delivery, note)

    @asynccontextmanager
    async def _turn(self, is_suspect: bool, slot: Slot) -> AsyncIterator[bool]:
        """A suspect runs alone, so that nobody dies with it; then the next. Says whether it is."""
        if not is_suspect:
            await self._slots.pass_gate()
            yield False
            return
        # A handler that takes longer than this must not hold everybody up.
        async with self._slots.alone(slot, patience=self._leases.ack_wait) as alone:
            yield alone

    # --- one run ---------------------------------------------------------------------------

    async def _outcome(
        self,
        slot: Slot,
        delivery: Delivery,
        trouble: Trouble | None,
        read: Event[Any] | Outcome,
    ) -> Outcome:
        """Run it, unless something is in the way: it cannot be read, is guarded, or all fail."""
        if type(read) is not self._model:
            return cast("Outcome", read)
        if self._guards is not None:
            return await self._guarded(self._guards, slot, delivery, trouble, read)
        return await self._attempt(slot, delivery, trouble, read)

    async def _guarded(
        self,
        guards: Guards,
        slot: Slot,
        delivery: Delivery,
        trouble: Trouble | None,
        event: Event[Any],
    ) -> Outcome:
        """One run among all processes: enter the guard, run, mark it done before the ack."""
        try:
            guard = await guards.enter(event.id, self._leases.ack_wait)
        except OmniWorkerError as error:
            return HandBack(GUARD_DELAY, f"nobody can tell whether it runs elsewhere: {error}")
        if isinstance(guard, DoneBefore):
            return DONE_BEFORE
        if isinstance(guard, Busy):
            return HandBack(guard.delay, "it runs elsewhere")
        outcome: Outcome | None = None
        try:
            async with guard.kept():
                outcome = await self._attempt(slot, delivery, trouble, event)
        finally:
            if outcome is not DONE:
                with suppress(OmniWorkerError):
                    await guard.clear()
        if outcome is not DONE:
            return outcome
        with suppress(OmniWorkerError):  # it ran: an ack that gets through still settles it
            await guard.finish()
        return CONFIRM

    async def _attempt(
        self, slot: Slot, delivery: Delivery, trouble: Trouble | None, event: Event[Any]
    ) -> Outcome:
        """Run it now; or, while everything fails, when its turn for a trial comes."""
        breaker = self.breaker
        if breaker.is_open:
            async with breaker.trial() as turn:
                if not turn:
                    return HandBack(0.0, "we stop")
                if self._leases.has_lapsed(delivery):
                    return HandBack(0.0, "its lease ran out while it waited")
                outcome = await self._call(slot, delivery, trouble, event)
                self._tell_breaker(outcome)
                return outcome
        outcome = await self._call(slot, delivery, trouble, event)
        if outcome is not DONE or breaker.failures:
            self._tell_breaker(outcome)
        return outcome

    def _tell_breaker(self, outcome: Outcome) -> None:
        if outcome is DONE:
            self.breaker.succeeded()
        elif isinstance(outcome, Failed) and not isinstance(outcome.error, Retry):
            self.breaker.failed()  # a Retry was asked for, not suffered

    async def _call(
        self, slot: Slot, delivery: Delivery, trouble: Trouble | None, read: Event[Any]
    ) -> Outcome:
        if trouble is None:
            context = Context(read, delivery, 1, time.time(), self._around)
        else:
            attempt = trouble.failures + 1
            context = Context(read, delivery, attempt, trouble.first_seen, self._around)
        if self._leases.timeout is not None:
            self._leases.begin_run(slot)
        slot.is_running = True
        outcome = await self._dispatcher.run(read, context)
        slot.is_running = False
        return await self._ended(slot, delivery, outcome)

    async def _ended(self, slot: Slot, delivery: Delivery, outcome: Outcome) -> Outcome:
        """The handler's own ending, or what a timeout or a cancellation from outside made of it."""
        leases = self._leases
        if leases.timeout is not None and leases.end_run(slot):
            if isinstance(outcome, Failed | Rejected):
                text = f"the handler ran longer than timeout={leases.timeout:g} s"
                # With the frames of what was stopped: they say where it was waiting.
                return Failed(TimedOut(text).with_traceback(outcome.error.__traceback__))
        elif slot.is_cancelled:
            if delivery.lapsed:
                raise asyncio.CancelledError  # handed back at the end of grace: its ending is late
            with suppress(asyncio.CancelledError):  # asked for and not delivered yet
                await asyncio.sleep(0)
        return outcome

    def _judge_foreign(self, outcome: Outcome, trouble: Trouble) -> Outcome:
        """Another version's delivery waits for that version, but not for ever."""
        if not isinstance(outcome, HandBack) or not outcome.foreign:
            return outcome
        now = self._leases.now()
        if trouble.handed_back_since is None:
            trouble.handed_back_since = now
        if now - trouble.handed_back_since >= self._parts.foreign_limit:
            return Rejected(TransportError(f"nobody took it: {outcome.reason}"), unreadable=True)
        if not self._said_foreign:
            self._said_foreign = True
            self._parts.signals.emit(
                ForeignDelivery(handler=self._parts.handler, reason=outcome.reason)
            )
        return outcome

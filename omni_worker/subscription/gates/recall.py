"""Recall: the notes on a repeated event, before it is read.

Its attempts may have been spent elsewhere, and its last run may have ended a process: while it was
read (validators), while its key was computed, or in the handler. A first delivery passes without a
look.

After a first death an event runs beside all others, with its start noted. What ran in both of two
deaths runs alone. If the process dies then, the event did it: that is a failure, and the first two
deaths together are another one. So one kill stops nothing, and an innocent event is not charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...letters.written import Failure
from ...notes import AttemptNotes, Note, NoteState
from ...outcomes import DONE_BEFORE, GIVEN_UP, KEPT, HandBack, Outcome
from ...settle import Trouble
from ...signals import NeverEnded
from ...transports.base import Delivery
from ..run import Line, Run
from . import Flow, Gate, Go
from .breaker import Breaker

UNPROVEN = 2  # deaths that prove nothing: others ran at the same time
AGAIN = 0.5  # seconds, at least, until an event that cannot be alone now comes again
UNKNOWN_DELAY = 5.0  # seconds until an event comes again whose retry may be kept elsewhere

# Tells whether a schedule has the retry after so many failures; None: it cannot be known now.
IsKept = Callable[[Delivery, int], Awaitable[bool | None]]


class Recall(Gate):
    """Complete a run's trouble, and note its start. An event that used up its attempts ends here.

    It is outside of every other gate, because it is passed before the event is read.
    """

    lets_plain_runs_pass = True

    def __init__(
        self,
        notes: AttemptNotes,
        attempts: int,
        breaker: Breaker,
        *,
        ordered: bool,
        most_waiting: int = 0,
        is_kept: IsKept | None = None,
    ) -> None:
        self._notes = notes
        self._attempts = attempts  # how often an event may run
        self._is_kept = is_kept
        self._breaker = breaker
        # With an order, events get their keys one after the other, as they came.
        self._line = Line() if ordered else None
        self._is_taken = False  # an event runs alone, or waits to be
        self._rest_until = 0.0  # loop time; until then the others run
        # A batch that killed its process twice leaves hundreds: so many of them wait in a slot.
        self._most_waiting = most_waiting
        self._waiting = 0
        self._turns = asyncio.Lock()

    def opened(self, flow: Flow) -> None:
        """Take the handler whose notes they are, and its slots, where an event may be alone."""
        self._flow = flow

    async def through(self, run: Run, go: Go) -> Outcome:
        """Look up the notes, and run the event beside the others or alone."""
        line = self._line
        if line is None or (line.is_empty and not run.is_repeat):
            return await self._pass(run, go)
        await line.enter(run)
        try:
            await self._flow.slots.pass_barrier()
            return await self._pass(run, go)
        finally:
            run.leave_line()

    async def _pass(self, run: Run, go: Go) -> Outcome:
        if not run.is_repeat:
            return await go(run)
        trouble = run.trouble
        if trouble.letter is None and (outcome := await self._recall(run)) is not None:
            return outcome
        if trouble.letter is not None:
            return GIVEN_UP
        if trouble.deaths >= UNPROVEN:
            return await self._alone(run, go)
        while not run.is_noted:
            await self._flow.slots.pass_barrier()
            await self.note_start(run)
            if self._flow.slots.is_barred:  # another run has to be alone now
                await self.note_wait(run)
        return await self._noted(run, go)

    async def note_start(self, run: Run) -> None:
        """Note, before anything of the user's runs, that the event is begun."""
        run.is_noted = True
        await self._note(run, NoteState.STARTED)

    async def note_wait(self, run: Run) -> None:
        """Note that a begun event waits: a death is none of its own now."""
        if run.is_noted:
            run.is_noted = False
            await self._note(run, NoteState.BACK)

    async def forget(self, run: Run) -> None:
        """Delete the note on the start of a run that ended well.

        A server that is killed forgets the ack: such a note would then tell of a death.
        """
        if run.is_noted:
            await self._notes.forget(run.delivery)

    async def _noted(self, run: Run, go: Go) -> Outcome:
        outcome = await go(run)
        if outcome is KEPT:  # it waits behind its key, or was let go before it began
            await self.note_wait(run)
        return outcome

    async def _alone(self, run: Run, go: Go) -> Outcome:
        """Run while no other event runs, at most half of the time; otherwise it comes again."""
        flow, rest = self._flow, self._rest_until - self._flow.now()
        if self._line is not None:
            return await self._alone_in_line(run, go)
        if self._waiting < self._most_waiting:
            return await self._alone_in_turn(run, go)
        if self._is_taken or rest > 0 or self._breaker.is_open or flow.slots.is_closed:
            return HandBack(max(rest, AGAIN), "it has to run alone, and others run now")
        return await self._alone_now(run, go)

    async def _alone_in_turn(self, run: Run, go: Go) -> Outcome:
        """Wait here, noted as not begun, until those before it have run and the others rested."""
        flow = self._flow
        self._waiting += 1
        try:
            await self._note(run, NoteState.BACK)
            async with self._turns:
                if (rest := self._rest_until - flow.now()) > 0:
                    await flow.wait(rest)
                if flow.slots.is_closed or self._breaker.is_open or self._is_taken:
                    return HandBack(AGAIN, "it has to run alone, and others run now")
                if flow.leases.has_lapsed(run.delivery):
                    return HandBack(0.0, "its lease ran out while it waited")
                return await self._alone_now(run, go)
        finally:
            self._waiting -= 1

    async def _alone_now(self, run: Run, go: Go) -> Outcome:
        flow = self._flow
        self._is_taken, began = True, flow.now()
        try:
            async with flow.slots.alone(run.slot, patience=flow.leases.ack_wait) as alone:
                if not alone:
                    wait = max(AGAIN, flow.now() - began)
                    return HandBack(wait, "it has to run alone, and others did not end")
                run.is_alone = True
                await self.note_start(run)
                return await self._noted(run, go)
        finally:
            self._is_taken = False
            self._rest_until = flow.now() + (flow.now() - began)

    async def _alone_in_line(self, run: Run, go: Go) -> Outcome:
        """With an order nothing may overtake it: wait for the others here, or run beside them."""
        slots = self._flow.slots
        async with slots.alone(run.slot, patience=self._flow.leases.ack_wait) as run.is_alone:
            await self.note_start(run)
            return await self._noted(run, go)

    async def _recall(self, run: Run) -> Outcome | None:
        """Take over what others noted, and count the death of a run that never ended.

        Return an outcome if the event does not run: a schedule has its retry, or may have it.
        """
        note, trouble = await self._notes.recall(run.delivery), run.trouble
        if note is not None and note.scheduled and self._is_kept is not None:
            is_kept = await self._is_kept(run.delivery, note.failures)
            if is_kept is None:
                return HandBack(UNKNOWN_DELAY, "it is unknown whether a schedule has its retry")
            if is_kept:  # stored, and the ack was not sent, or was lost
                return DONE_BEFORE
        # A first delivery is one the server forgot: nothing says that it ended a process.
        came_again = run.delivery.count > 1
        # A process that lives has ended its run, though a note of that could not be written, or was
        # stored before the one of the start, whose answer was late.
        has_died = came_again and not (note is not None and self._notes.is_ours(note))
        if note is None:
            if came_again and self._notes.works:
                trouble.deaths = max(trouble.deaths, 1)
            return None
        trouble.first_seen = note.first_seen
        trouble.failures = max(trouble.failures, note.failures)
        trouble.deaths = note.deaths
        error = note.error
        if note.state is NoteState.STARTED and has_died:
            trouble.deaths = max(trouble.deaths, UNPROVEN * note.alone) + 1
            if note.alone:
                trouble.failures += 2 if trouble.deaths == UNPROVEN + 1 else 1
                error = "the worker process died each time it ran"
                handler, failures = self._flow.handler, trouble.failures
                self._flow.emit(
                    NeverEnded(handler=handler, delivery=run.delivery, failures=failures)
                )
        self._give_up_if_used_up(trouble, error)
        # Who hands it back later has to know this, too.
        run.state.remember(run.delivery, trouble)
        return None

    async def _note(self, run: Run, state: NoteState) -> None:
        trouble = run.trouble
        note = Note(
            state=state,
            failures=trouble.failures,
            first_seen=trouble.first_seen,
            alone=run.is_alone and state is NoteState.STARTED,
            deaths=trouble.deaths,
        )
        await self._notes.keep(run.delivery, note)

    def _give_up_if_used_up(self, trouble: Trouble, error: str) -> None:
        if trouble.failures >= self._attempts:
            trouble.letter = Failure(
                error=error, error_type="", traceback="", attempts=trouble.failures
            )

"""Alone: an event that may have killed its process runs with no other at the same time."""

from __future__ import annotations

from ...notes import AttemptNotes, Note, NoteState
from ...outcomes import Outcome
from ..run import Run
from . import Flow, Gate, Go


class Alone(Gate):
    """Note the start of a repeat; a suspect runs alone, so that no other event dies with it."""

    lets_plain_runs_pass = True

    def __init__(self, notes: AttemptNotes) -> None:
        self._notes = notes

    def opened(self, flow: Flow) -> None:
        """Take the slots it keeps from beginning, and the leases that limit for how long."""
        self._slots = flow.slots
        self._leases = flow.leases

    async def through(self, run: Run, go: Go) -> Outcome:
        """Wait while another one runs alone; a suspect waits until the others have ended."""
        if run.is_suspect:
            # A handler that takes longer than this must not hold everybody up.
            async with self._slots.alone(run.slot, patience=self._leases.ack_wait) as alone:
                await self._note_start(run, alone)
                return await go(run)
        if self._slots.is_barred:
            await self._slots.pass_barrier()
        if run.is_repeat:
            await self._note_start(run, alone=False)
        return await go(run)

    async def _note_start(self, run: Run, alone: bool) -> None:
        note = Note(
            state=NoteState.STARTED,
            failures=run.trouble.failures,
            first_seen=run.trouble.first_seen,
            alone=alone,
        )
        await self._notes.keep(run.delivery, note)

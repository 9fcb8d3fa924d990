"""Recall: the notes of other processes about a repeated event.

Its attempts may have been spent elsewhere, and its last run may have ended a process. A first
delivery passes without a look.
"""

from __future__ import annotations

from ...letters.written import Failure
from ...notes import AttemptNotes, NoteState
from ...outcomes import GIVEN_UP, Outcome
from ...settle import Trouble
from ...signals import NeverEnded
from ..run import Run
from . import Flow, Gate, Go


class Recall(Gate):
    """Complete a run's trouble. An event whose attempts are used up does not run."""

    lets_plain_runs_pass = True

    def __init__(self, notes: AttemptNotes, attempts: int) -> None:
        self._notes = notes
        self._attempts = attempts  # how often an event may run

    def opened(self, flow: Flow) -> None:
        """Take the handler whose notes they are."""
        self._flow = flow

    async def through(self, run: Run, go: Go) -> Outcome:
        """Look up the notes, and count the run that never ended."""
        if run.is_repeat:
            trouble = run.trouble
            if trouble.letter is None:
                # A first delivery is one the server forgot: nothing says that it ended a process.
                run.is_suspect = await self._recall(run) and run.delivery.count > 1
            if trouble.letter is not None:
                return GIVEN_UP
        return await go(run)

    async def _recall(self, run: Run) -> bool:
        """Take over the notes of others. Return True if the event may have killed a process."""
        note, trouble = await self._notes.recall(run.delivery), run.trouble
        if note is None:
            return self._notes.works
        trouble.first_seen = note.first_seen
        trouble.failures = max(trouble.failures, note.failures)
        if note.state is not NoteState.STARTED:
            self._give_up_if_used_up(trouble, note.error)
            return False
        if not note.alone:
            return True  # others ran at the same time: any of them may have ended the process
        trouble.failures += 1
        handler, failures = self._flow.handler, trouble.failures
        self._flow.emit(NeverEnded(handler=handler, delivery=run.delivery, failures=failures))
        self._give_up_if_used_up(trouble, "the worker process died each time it ran")
        return True

    def _give_up_if_used_up(self, trouble: Trouble, error: str) -> None:
        if trouble.failures >= self._attempts:
            trouble.letter = Failure(
                error=error, error_type="", traceback="", attempts=trouble.failures
            )

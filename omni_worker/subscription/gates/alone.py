"""Alone: while an event that may kill its process runs alone, no other one begins."""

from __future__ import annotations

from ...outcomes import Outcome
from ..run import Run
from . import Flow, Gate, Go
from .recall import Recall


class Alone(Gate):
    """Hold every run back while one runs alone, and note again the start of one that waited."""

    lets_plain_runs_pass = True

    def __init__(self, recall: Recall) -> None:
        self._recall = recall

    def opened(self, flow: Flow) -> None:
        """Take the slots that may be barred."""
        self._slots = flow.slots

    async def through(self, run: Run, go: Go) -> Outcome:
        """Wait while another one runs alone."""
        if not run.is_alone and self._slots.is_barred:
            await self._recall.note_wait(run)
            await self._slots.pass_barrier()
        if run.is_repeat and not run.is_noted:
            await self._recall.note_start(run)
        return await go(run)

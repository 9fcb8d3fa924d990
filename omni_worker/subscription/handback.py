"""Handback: deliveries that do not run here, or not to their end, go back to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ..notes import AttemptNotes, Note, NoteState
from ..settle import Settler
from ..tasks import own
from ..transports.base import Delivery, Source
from .leases import Leases
from .source_state import SourceState

NOTES_TIME = 2.0  # seconds a handback may take to be noted, and longer for very many:
NOTES_A_SECOND = 2_000  # a slow machine writes more


class HandingBack:
    """Hand deliveries back to the server, as long as their lease is ours."""

    def __init__(
        self,
        settler: Settler,
        notes: AttemptNotes,
        states: dict[Source, SourceState],
        leases: Leases,
        is_connected: Callable[[], bool],
    ) -> None:
        self._settler = settler
        self._notes = notes
        self._is_connected = is_connected
        self._states = states
        self._leases = leases
        self._noted: list[
            tuple[SourceState, Delivery]
        ] = []  # that ran when the handler was stopped
        self._noting: asyncio.Task[None] | None = None
        self.leaving: set[Delivery] = set()  # on their way back: none of them begins any more

    def one(
        self, delivery: Delivery, delay: float = 0.0, reason: str = "the handler stops"
    ) -> None:
        """Hand back one delivery, with a delay in seconds, unless its lease lapsed."""
        if not self._leases.has_lapsed(delivery):
            self._settler.hand_back(delivery, delay, reason)

    async def all(
        self,
        deliveries: list[Delivery],
        reason: str = "the handler stops",
        delay: float = 0.0,
    ) -> None:
        """Hand back in stream order, each with a note: without it an event would be a suspect."""
        self.leaving.update(deliveries)
        try:
            await self._note(deliveries)
        finally:
            self.leaving.difference_update(deliveries)
            for delivery in sorted(deliveries, key=lambda one: one.sequence):
                self.one(delivery, delay, reason)

    def note_running(self, deliveries: list[Delivery]) -> None:
        """Note at once, at a stop, what still runs as handed back.

        A process manager may kill the process before the grace is over.
        """
        states = [(self._states.get(one.source), one) for one in deliveries]
        self._noted = [(state, one) for state, one in states if state is not None]
        self._noting = asyncio.create_task(self._note(deliveries), name=own("handback"))

    async def forget_ended(self) -> None:
        """Delete those notes of what ended well in the meantime."""
        if self._noting is not None:
            await asyncio.gather(self._noting, return_exceptions=True)
        ended = [
            delivery
            for state, delivery in self._noted
            if state.settled.holds(delivery.sequence, delivery.stored_at)
        ]
        if ended and self._is_connected():
            with suppress(TimeoutError):
                async with asyncio.timeout(NOTES_TIME):
                    await asyncio.gather(*(self._notes.forget(one) for one in ended))

    async def _note(self, deliveries: list[Delivery]) -> None:
        """Note what goes back. A delivery that is not ours any more belongs to another process,
        which notes it: one whose consumer was lost, or whose lease lapsed.
        """
        if not self._is_connected():
            return
        firsts: list[tuple[Delivery, Note]] = []
        repeats: list[tuple[Delivery, Note]] = []
        for one in deliveries:
            if (state := self._states.get(one.source)) and not self._leases.has_lapsed(one):
                note = state.note_of(one, NoteState.BACK)
                (firsts if state.is_first(one) else repeats).append((one, note))
        if not (firsts or repeats):
            return
        writes = len(firsts) + 2 * len(repeats)
        with suppress(TimeoutError):
            async with asyncio.timeout(NOTES_TIME + writes / NOTES_A_SECOND):
                await self._notes.keep_all(firsts)
                await self._notes.keep_back(repeats)

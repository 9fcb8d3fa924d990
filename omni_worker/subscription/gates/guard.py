"""Guard: with ``exactly_once`` one run of an event among all processes."""

from __future__ import annotations

from contextlib import suppress

from ...errors import OmniWorkerError
from ...notes import Busy, DoneBefore, Guards
from ...outcomes import CONFIRM, DONE, DONE_BEFORE, HandBack, Outcome
from ..run import Run
from . import Flow, Gate, Go

GUARD_DELAY = 1.0  # seconds until a guard that could not be read is read again


class ExactlyOnce(Gate):
    """Enters the event's guard, runs, and marks the guard done before the ack."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards

    def opened(self, flow: Flow) -> None:
        """The guard lives as long as the lease of its delivery."""
        self._leases = flow.leases

    async def through(self, run: Run, go: Go) -> Outcome:
        """Run only if no process has run it, and none runs it now."""
        try:
            guard = await self._guards.enter(run.event.id, self._leases.ack_wait)
        except OmniWorkerError as error:
            return HandBack(GUARD_DELAY, f"unknown whether it runs elsewhere: {error}")
        if isinstance(guard, DoneBefore):
            return DONE_BEFORE
        if isinstance(guard, Busy):
            return HandBack(guard.delay, "it runs elsewhere")
        outcome: Outcome | None = None
        try:
            async with guard.kept():
                outcome = await go(run)
        finally:
            if outcome is not DONE:
                with suppress(OmniWorkerError):
                    await guard.clear()
        if outcome is not DONE:
            return outcome
        with suppress(OmniWorkerError):  # it ran: an ack that gets through still settles it
            await guard.finish()
        return CONFIRM

"""Guard: with ``exactly_once`` one run of an event among all processes."""

from __future__ import annotations

import asyncio

from ...errors import OmniWorkerError
from ...letters.written import STREAM_HEADER
from ...notes import Busy, DoneBefore, Guarded, Guards, digest_of
from ...outcomes import CONFIRM, DONE, DONE_BEFORE, HandBack, Outcome
from ...signals import Duplicate
from ...topology import OWN_STREAM
from ...transports.base import Delivery
from ...transports.headers import parse_headers
from ...transports.returned import identity_of
from ...wire import read_envelope
from ..run import Run
from . import Flow, Gate, Go

PAUSES = (0.5, 1.0, 2.0, 4.0, 5.0)  # seconds until guards that do not work are tried again
STALLED_AFTER = 3.0  # seconds of failures until they are reported: most end with the next election
GUARDS = "guards"


class ExactlyOnce(Gate):
    """Enter the event's guard, run, and mark the guard done before the ack."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards
        self._failed_since: float | None = None  # loop time
        self._failures = 0
        self._trial: asyncio.TimerHandle | None = None  # until then no guard is asked for

    def opened(self, flow: Flow) -> None:
        """Take the leases: a guard lives as long as the lease of its delivery."""
        self._flow = flow
        self._leases = flow.leases

    async def through(self, run: Run, go: Go) -> Outcome:
        """Run only if no process has run it, and none runs it now."""
        if self._trial is not None:
            return self._handed_back()
        try:
            guard = await self._guards.enter(guarded(run.delivery), self._leases.ack_wait)
        except OmniWorkerError as error:
            self._on_failure(error)
            return self._handed_back()
        if self._failed_since is not None:
            self._on_success()
        if isinstance(guard, DoneBefore):
            if guard.duplicate:
                self._flow.emit(Duplicate(handler=self._flow.handler, delivery=run.delivery))
            return DONE_BEFORE
        if isinstance(guard, Busy):
            return HandBack(guard.delay, "it runs elsewhere")
        outcome: Outcome | None = None
        try:
            async with guard.kept():
                outcome = await go(run)
        finally:
            if outcome is not DONE:
                await guard.clear()
        if outcome is not DONE:
            return outcome
        await guard.finish()
        return CONFIRM

    def close(self) -> None:
        """Try no longer."""
        self._guards.close()
        if self._trial is not None:
            self._trial.cancel()

    def _handed_back(self) -> HandBack:
        pause = PAUSES[min(self._failures, len(PAUSES)) - 1]
        return HandBack(pause, "it is unknown whether it runs elsewhere")

    def _on_failure(self, error: OmniWorkerError) -> None:
        """Stop pulling for a pause: events that only come to be handed back cost their attempts."""
        now = self._flow.now()
        if self._failed_since is None:
            self._failed_since = now
        if self._trial is None:
            pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
            self._failures += 1
            self._flow.hold(GUARDS)
            self._trial = asyncio.get_running_loop().call_later(pause, self._try_again)
        if now - self._failed_since >= STALLED_AFTER:
            self._flow.stall(GUARDS, f"exactly_once has no guards: {error}")

    def _try_again(self) -> None:
        self._trial = None
        self._flow.release(GUARDS)

    def _on_success(self) -> None:
        self._failed_since = None
        self._failures = 0
        if self._trial is not None:
            self._trial.cancel()
            self._try_again()
        self._flow.stall_ended(GUARDS)


def guarded(delivery: Delivery) -> Guarded:
    """Return a delivery's event as its guard knows it; its body is known to be readable."""
    envelope = read_envelope(delivery.body, stored_at=0)
    identity = identity_of(delivery)
    stream = identity.stream
    if stream == OWN_STREAM.name:  # in any other stream the header is not ours
        headers = parse_headers(delivery.raw_headers)
        stream = next(iter(headers.get(STREAM_HEADER, ())), stream)
    return Guarded(
        stream=stream,
        id=envelope.id,
        digest=digest_of(envelope.type, envelope.payload),
        sequence=identity.sequence,
    )

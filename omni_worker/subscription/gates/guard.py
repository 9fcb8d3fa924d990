"""Guard: with ``exactly_once`` one run of an event among all processes."""

from __future__ import annotations

from contextlib import suppress

from ...errors import OmniWorkerError
from ...letters.written import STREAM_HEADER
from ...notes import Busy, DoneBefore, Guarded, Guards, digest_of
from ...outcomes import CONFIRM, DONE, DONE_BEFORE, HandBack, Outcome
from ...signals import Duplicate
from ...topology import OWN_STREAM
from ...transports.base import Delivery
from ...transports.headers import parse_headers
from ...wire import read_envelope
from ..run import Run
from . import Flow, Gate, Go

GUARD_DELAY = 1.0  # seconds until an unavailable guard is asked again


class ExactlyOnce(Gate):
    """Enter the event's guard, run, and mark the guard done before the ack."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards

    def opened(self, flow: Flow) -> None:
        """Take the leases: a guard lives as long as the lease of its delivery."""
        self._flow = flow
        self._leases = flow.leases

    async def through(self, run: Run, go: Go) -> Outcome:
        """Run only if no process has run it, and none runs it now."""
        try:
            guard = await self._guards.enter(guarded(run.delivery), self._leases.ack_wait)
        except OmniWorkerError as error:
            return HandBack(GUARD_DELAY, f"it is unknown whether it runs elsewhere: {error}")
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
                with suppress(OmniWorkerError):
                    await guard.clear()
        if outcome is not DONE:
            return outcome
        with suppress(OmniWorkerError):  # it ran: an ack that gets through still settles it
            await guard.finish()
        return CONFIRM


def guarded(delivery: Delivery) -> Guarded:
    """Return a delivery's event as its guard knows it; its body is known to be readable."""
    envelope = read_envelope(delivery.body, stored_at=0)
    stream = delivery.source.stream
    if stream == OWN_STREAM.name:  # in any other stream the header is not ours
        headers = parse_headers(delivery.raw_headers)
        stream = next(iter(headers.get(STREAM_HEADER, ())), stream)
    return Guarded(
        stream=stream,
        id=envelope.id,
        digest=digest_of(envelope.type, envelope.payload),
        sequence=delivery.sequence,
    )

"""Settle: one outcome becomes one ack, nak or dead letter. No other file answers a run delivery."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

from .errors import OmniWorkerError
from .events import DEAD_LETTER, Published
from .failures import error_line
from .handlers import Handler
from .letter_storage import LetterStorage
from .letters.written import Failure
from .long_retries import HandlerRetries
from .notes import AttemptNotes, Note, NoteState
from .outcomes import Done, Failed, GivenUp, HandBack, Kept, Outcome, Rejected, Skip
from .retry import RetryPolicy, retry_delay
from .signals import (
    DeadLetterDelayed,
    DeadLetterDropped,
    DeadLettered,
    HandedBack,
    IdTaken,
    Lapsed,
    Recognised,
    Retried,
    Signals,
    Skipped,
)
from .subjects import matches
from .topology import main_name
from .transports.base import Delivery, StoredMessage
from .transports.headers import parse_headers
from .transports.returned import Returned, identity_of

# Storing a dead letter is retried: 1, 2, 4 … seconds, at most five minutes apart.
LETTER_RETRY = RetryPolicy(retries=0, delay=1.0, factor=2.0, cap=300.0, jitter=0.1)
# The server's count includes handbacks and crashes of neighbours; below this multiple of the
# allowed attempts it says nothing about the event.
COUNT_FACTOR = 4
ADDRESSED_LETTERS = f"{DEAD_LETTER}.*.>"  # with channel and instance: other programs, a setting


@dataclass(slots=True)
class Trouble:
    """Trouble of one unsettled event, as far as this process knows."""

    failures: int = 0
    deaths: int = 0  # runs since the last that ended, whose processes died: see gates/recall
    first_seen: float = 0.0  # epoch seconds
    handed_back_since: float | None = None  # loop time
    letter: Failure | None = None  # given up; only its dead letter is still to be stored
    letter_tries: int = 0
    retry_in: float | None = None  # seconds; until then the event is kept here, and with it its key
    consumer: str = ""  # that delivers it again
    ending: str = ""  # why it is given up: "rejected", "unreadable", or "" for all attempts spent


@dataclass(slots=True)
class Counts:
    """Counts of what became of one handler's deliveries."""

    handled: int = 0
    skipped: int = 0
    retried: int = 0
    dead_lettered: int = 0
    handed_back: int = 0
    recognised: int = 0  # came again although settled, acknowledged unrun
    rejected: int = 0  # of the dead-lettered: at once, because the handler said so
    unreadable: int = 0  # of the dead-lettered: no event at all
    lapsed: int = 0  # ended badly after its lease had run out: nothing was answered

    def gave_up(self, ending: str) -> None:
        """Count a dead letter."""
        self.dead_lettered += 1
        self.rejected += ending == "rejected"
        self.unreadable += ending == "unreadable"


class Settler:
    """Answer the deliveries of one handler."""

    def __init__(
        self,
        handler: Handler,
        *,
        letters: LetterStorage,
        attempts: AttemptNotes,
        counts: Counts,
        signals: Signals,
        letter_retry: RetryPolicy = LETTER_RETRY,
        long_retries: HandlerRetries | None = None,
    ) -> None:
        self._handler = handler
        self._letter_retry = letter_retry
        self._policy = handler.options.retry or RetryPolicy()
        self._letters = letters
        self._keeps_retries = handler.options.order_by is not None
        self._attempts = attempts
        self._long_retries = long_retries
        self._counts = counts
        self._emit = signals.emit
        # These may come as often as events do: nothing is made where nothing listens.
        self._emit_skipped = signals.emitter(Skipped)
        self._emit_recognised = signals.emitter(Recognised)
        self._emit_handed_back = signals.emitter(HandedBack)

    @property
    def attempts(self) -> int:
        """Maximum number of runs of an event."""
        return self._policy.attempts

    def done(self, delivery: Delivery) -> None:
        """Acknowledge a handled event, the usual ending."""
        delivery.source.ack(delivery)
        self._counts.handled += 1

    def settled_before(self, delivery: Delivery) -> None:
        """Acknowledge again an event that was settled before: its answer was lost."""
        delivery.ack()
        self._recognised(delivery)

    def hand_back(
        self, delivery: Delivery, delay: float = 0.0, reason: str = "", *, foreign: bool = False
    ) -> None:
        """Hand back a delivery that did not run to its end; it takes no further answer."""
        delivery.nak(delay)
        delivery.lapsed = True
        self._counts.handed_back += 1
        if self._emit_handed_back is not None:
            self._emit_handed_back(
                HandedBack(
                    handler=self._handler,
                    delivery=delivery,
                    after=delay,
                    reason=reason,
                    foreign=foreign,
                )
            )

    async def settle(self, delivery: Delivery, outcome: Outcome, trouble: Trouble) -> bool:
        """Answer once. Return True if the event is settled: acknowledged or terminated.

        A delivery whose lease lapsed while it ran may belong to another process: it may only be
                acknowledged.
        """
        match outcome:
            case Done(confirm=True, before=before):
                return await self._done_for_sure(delivery, before)
            case Done():
                self.done(delivery)
                return True
            case Skip():
                self._skip(delivery)
                return True
            case Kept():
                return False
            case GivenUp():
                return await self.send_letter(delivery, trouble)
            case _ if delivery.lapsed:
                self._counts.lapsed += 1
                self._emit(Lapsed(handler=self._handler, delivery=delivery, outcome=outcome))
                return False
            case HandBack(delay=delay, reason=reason, foreign=foreign, bodiless=bodiless):
                await self._note(delivery, trouble, NoteState.BACK)
                if delay and self._keeps_retries and not (foreign or bodiless):
                    trouble.retry_in = delay
                else:
                    self.hand_back(delivery, delay, reason, foreign=foreign)
                return False
            case Rejected(error=error, unreadable=unreadable):
                trouble.failures += not unreadable
                trouble.ending = "unreadable" if unreadable else "rejected"
                trouble.letter = _failure(error, trouble.failures, unreadable)
                return await self.send_letter(delivery, trouble)
            case Failed(error=error, after=after):
                trouble.failures += 1
                trouble.deaths = 0
                if self._is_used_up(delivery, trouble):
                    trouble.letter = _failure(error, trouble.failures)
                    return await self.send_letter(delivery, trouble)
                return await self._retry(delivery, trouble, error, after)

    async def _done_for_sure(self, delivery: Delivery, before: bool) -> bool:
        """Ack with confirmation; without one the event may come again, and is recognised here.

        Elsewhere the guard answers for it.
        """
        await delivery.confirm()
        if before:
            self._recognised(delivery)
        else:
            self._counts.handled += 1
        return True

    def _recognised(self, delivery: Delivery) -> None:
        self._counts.recognised += 1
        if self._emit_recognised is not None:
            self._emit_recognised(Recognised(handler=self._handler, delivery=delivery))

    def _skip(self, delivery: Delivery) -> None:
        delivery.ack()
        self._counts.skipped += 1
        if self._emit_skipped is not None:
            self._emit_skipped(Skipped(handler=self._handler, delivery=delivery))

    def _is_used_up(self, delivery: Delivery, trouble: Trouble) -> bool:
        attempts = self._policy.attempts
        if trouble.failures >= attempts:
            return True
        return not self._attempts.works and delivery.count >= COUNT_FACTOR * attempts

    async def _note(
        self,
        delivery: Delivery,
        trouble: Trouble,
        state: NoteState,
        error: str = "",
        *,
        scheduled: bool = False,
    ) -> None:
        note = Note(
            state=state,
            failures=trouble.failures,
            first_seen=trouble.first_seen,
            error=error,
            deaths=trouble.deaths,
            scheduled=scheduled,
        )
        await self._attempts.keep(delivery, note)

    async def _retry(
        self, delivery: Delivery, trouble: Trouble, error: BaseException, after: float | None
    ) -> bool:
        """Let it come again later. Return True if a schedule keeps it: the delivery is settled."""
        attempt = trouble.failures
        delay = retry_delay(self._policy, attempt, self._jitter(error)) if after is None else after
        retries = self._long_retries
        if retries is not None and not retries.wants(delivery, delay):
            retries = None
        # The note first: a process that dies in between counts one run twice at most.
        text, is_long = error_line(error), retries is not None
        await self._note(delivery, trouble, NoteState.FAILED, text, scheduled=is_long)
        is_kept = False
        if retries is not None and self._attempts.works:
            # Schedule first, then ack: what a crash between them delivers again is recognised.
            is_kept = await retries.keep(
                delivery, failures=attempt, first_seen=trouble.first_seen, delay=delay
            )
        if is_kept:
            delivery.ack()
        elif self._keeps_retries:
            trouble.retry_in = delay
        else:
            delivery.nak(delay)
        self._counts.retried += 1
        self._emit(
            Retried(
                handler=self._handler,
                delivery=delivery,
                attempt=attempt,
                of=self._policy.attempts,
                after=delay,
                error=error,
            )
        )
        return is_kept

    def _jitter(self, error: BaseException) -> float:
        """Return the same for all events that failed by one exception: they come again together."""
        if self._handler.batch is None:
            return random.random()
        return random.Random(id(error)).random()

    async def send_letter(self, delivery: Delivery, trouble: Trouble) -> bool:
        """Store the dead letter in ``trouble``, then terminate the original.

        A crash between the two stores the dead letter again; the other order would lose the event.
        If it cannot be stored, the original waits, and only storing is tried again.
        """
        failure = trouble.letter
        assert failure is not None
        if delivery.subject == DEAD_LETTER or matches(ADDRESSED_LETTERS, delivery.subject):
            delivery.term("a dead letter that cannot be handled")
            self._emit(
                DeadLetterDropped(
                    handler=self._handler, delivery=delivery, error=failure.error, failure=failure
                )
            )
            return True
        try:
            letter = await self._publish_letter(delivery, failure)
        except OmniWorkerError as error:
            trouble.letter_tries += 1
            delay = retry_delay(self._letter_retry, trouble.letter_tries, random.random())
            if not delivery.lapsed:
                await self._note(delivery, trouble, NoteState.FAILED, failure.error)
                delivery.nak(delay)
            # It may wait for hours, and the frames of an exception hold whatever the handler held.
            trouble.letter = replace(failure, exception=None)
            self._emit(
                DeadLetterDelayed(
                    handler=self._handler,
                    delivery=delivery,
                    after=delay,
                    error=failure.error,
                    cause=error,
                    failure=failure,
                )
            )
            return False
        if not delivery.lapsed:
            delivery.term(failure.error)
        self._counts.gave_up(trouble.ending)
        self._emit(
            DeadLettered(
                handler=self._handler,
                delivery=delivery,
                attempts=failure.attempts,
                error=failure.error,
                error_type=failure.error_type,
                letter=letter.id,
                number=letter.sequence,
                of=self._policy.attempts,
                failure=failure,
            )
        )
        return True

    async def _publish_letter(self, delivery: Delivery, failure: Failure) -> Published:
        identity, is_returned = identity_of(delivery), isinstance(delivery, Returned)
        consumer = main_name(delivery.source.consumer, self._handler.options.durable)
        original = StoredMessage(
            subject=delivery.subject,
            stream=identity.stream,
            sequence=identity.sequence,
            stored_at=identity.stored_at,
            body=delivery.body,
            headers=parse_headers(delivery.raw_headers),
        )
        return await self._letters.store(
            original,
            failure,
            handler=self._handler.name,
            consumer=self._handler.name if is_returned else consumer,
            now=time.time_ns() // 1_000_000,
            may_be_gone=is_returned,
            on_taken=lambda by: self._emit(
                IdTaken(
                    handler=self._handler,
                    delivery=delivery,
                    id=by.id,
                    by_stream=by.stream,
                    by_sequence=by.sequence,
                )
            ),
        )


def _failure(error: BaseException, attempts: int, unreadable: bool = False) -> Failure:
    # The traceback of an unreadable event would only show our own lines.
    return Failure.of(error.with_traceback(None) if unreadable else error, attempts)

"""Trace, waiting: an event in our own stream, which waits for its time, a retry or its stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from ..schedules.messages import DUE_HEADER, as_datetime, due_consumer, schedule_subject
from ..schedules.retries import (
    WaitingRetry,
    again_consumer,
    due_filter,
    read_stored,
    waiting_filter,
)
from ..subjects import matches
from ..topology import OWN_STREAM
from ..transports.base import StoredMessage, Transport
from ..transports.infos import ConsumerInfo
from ..transports.timestamps import nanoseconds
from .schedules import ScheduledEvent, scheduled_event

LATER = schedule_subject("*", "*")
_DUE = "omni-worker.due.>"  # what is due, and what atomic() blocks committed


class Word(StrEnum):
    """State of an event at a consumer, as far as the consumer's positions show."""

    SETTLED = "settled"
    PERHAPS = "in flight or settled"
    NOT_YET = "not yet delivered"
    BEFORE = "stored before it was made"
    RETRY = "waits for its retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRetry:
    """Retry of the event that a schedule keeps; with a ``word``, that was due."""

    retry: WaitingRetry
    sequence: int  # in our own stream
    stored_at: int = 0  # epoch nanoseconds
    word: Word | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """Event on its way from our own stream to its subject, or that was brought there.

    ``due`` is None for one that an atomic() block committed.
    """

    app: str
    sequence: int  # in our own stream
    stored_at: int  # epoch nanoseconds
    due: datetime | None
    word: Word = Word.PERHAPS  # at ``consumer``, the one of its app's forwarders
    is_paused: bool = False

    @property
    def since(self) -> datetime:
        """Time from which on it could be forwarded."""
        return as_datetime(self.stored_at)

    @property
    def consumer(self) -> str:
        """Name of the consumer that all processes of the app read."""
        return due_consumer(self.app).name


Waiting = LongRetry | Forwarding | ScheduledEvent


def filters_of(stream: str) -> list[tuple[tuple[str, ...], bool]]:
    """Return the subjects of a stream that hold events, and if they are bound to a time.

    A schedule is looked for however long ago it was written.
    """
    if stream != OWN_STREAM.name:
        return [((), True)]
    retries = (waiting_filter("*"), due_filter("*"))
    return [
        (("omni-worker.retry.>", "omni-worker.raw.>", *retries, _DUE), True),
        ((LATER,), False),
    ]


def read_waiting(message: StoredMessage, now: int) -> Waiting | None:
    """Return what a message of our own stream waits for; None for any other."""
    if message.stream != OWN_STREAM.name:
        return None
    if (retry := read_stored(message)) is not None:
        is_due = matches(due_filter("*"), message.subject)
        word = Word.PERHAPS if is_due else None
        return LongRetry(
            retry=retry, sequence=message.sequence, stored_at=message.stored_at, word=word
        )
    if matches(LATER, message.subject):
        return scheduled_event(message, now)
    if matches(_DUE, message.subject):
        due = next(iter(message.headers.get(DUE_HEADER, ())), "")
        return Forwarding(
            app=message.subject.split(".")[2],
            sequence=message.sequence,
            stored_at=message.stored_at,
            due=as_datetime(nanoseconds(due)) if due else None,
        )
    return None


async def with_retry_words(transport: Transport, retries: Sequence[LongRetry]) -> list[LongRetry]:
    """Add what became of retries that were due."""
    found = []
    for one in retries:
        if one.word is not None:
            spec = again_consumer(one.retry.app)
            info = await transport.operators.consumer_info(spec.stream, spec.name)
            word = Word.PERHAPS if info is None else word_on(info, one.sequence, one.stored_at)
            one = replace(one, word=word)
        found.append(one)
    return found


async def with_forward_words(
    transport: Transport, forwardings: Sequence[Forwarding], *, is_there: bool
) -> list[Forwarding]:
    """Add how far each is; an event that ``is_there``, on its subject, was forwarded."""
    found = []
    for one in forwardings:
        info = await transport.operators.consumer_info(OWN_STREAM.name, one.consumer)
        word = Word.NOT_YET if info is None else word_on(info, one.sequence, one.stored_at)
        if is_there and word is Word.PERHAPS:
            word = Word.SETTLED
        is_paused = info is not None and info.is_paused
        found.append(replace(one, word=word, is_paused=is_paused))
    return found


def word_on(info: ConsumerInfo, sequence: int, stored_at: int) -> Word:
    """Tell an event's state from a consumer's ack floor and last delivery."""
    if sequence > info.delivered:
        return Word.NOT_YET
    is_late = info.created > stored_at
    if is_late and info.config.deliver_policy not in ("all", "by_start_sequence"):
        return Word.BEFORE
    if sequence <= info.ack_floor:
        return Word.SETTLED
    return Word.PERHAPS

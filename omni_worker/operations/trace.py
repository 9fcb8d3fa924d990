"""Trace: the places of one event, its consumers, its failures, and the events it caused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..errors import InvalidEvent
from ..events import DEAD_LETTER
from ..letters.read import DeadLetter, read_letter, stored_time
from ..notes import attempts
from ..notes.attempts import Note, note_key, read_note
from ..subjects import matches
from ..topology import OWN_STREAM, app_of, function_of, handler_of, holds_events
from ..transports.base import StoredMessage, Transport
from ..wire import Envelope, read_envelope
from .dead_letters import DeadLetters
from .scan import Scan
from .schedules import ScheduledEvent
from .trace_waiting import (
    Forwarding,
    LongRetry,
    Waiting,
    Word,
    filters_of,
    read_waiting,
    with_forward_words,
    with_retry_words,
    word_on,
)

RELATED = 200  # events of the same correlation that are kept; further ones are only counted
PLACES = 10  # places of one id; further ones are copies of copies
NOTES = f"KV_{attempts.BUCKET}"
CANDIDATES = 20  # events whose id begins with what was given that are kept
SHORTEST = 8  # minimum characters of an id that may be given for the whole id: logs show as many
SAY_EVERY = 500  # messages
_PLACE = re.compile(r"(?P<stream>[^:#]+?)\s*[:#]\s*(?P<sequence>\d+)")  # MESSAGE:8, MESSAGE #8

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPlace:
    """A stored event, with facts from its body if it can be read."""

    stream: str
    sequence: int
    stored_at: int  # epoch nanoseconds
    time: datetime
    subject: str
    id: str = ""
    type: str = ""  # empty: the body cannot be read
    source: str | None = None
    correlation_id: str = ""
    causation_id: str = ""  # the event in whose handler it was published


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerWord:
    """A consumer that wants the event; ``note`` if there is a note of its attempts."""

    stream: str
    consumer: str
    handler: str  # the name people know the consumer by; a bare one has its main one's
    app: str | None
    word: Word
    function: str = ""  # of the handler
    note: Note | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An event whose id begins with the characters that were given."""

    id: str
    type: str
    stream: str  # where the event is stored, or a dead letter of it
    sequence: int
    time: datetime


@dataclass(slots=True, kw_only=True)
class Trace:
    """All that is known about one event."""

    id: str
    places: list[EventPlace] = field(default_factory=list)
    returns: list[EventPlace] = field(default_factory=list)  # on its way back from a dead letter
    retries: list[LongRetry] = field(default_factory=list)  # in the order they were written
    consumers: list[ConsumerWord] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    related: list[EventPlace] = field(
        default_factory=list
    )  # of the same correlation, in order of time
    related_letters: list[DeadLetter] = field(default_factory=list)  # of the related events
    more_related: int = 0
    scanned: int = 0
    candidates: list[Candidate] = field(default_factory=list)  # if several ids begin with ``id``
    scheduled: list[ScheduledEvent] = field(default_factory=list)  # it is not published yet
    forwardings: list[Forwarding] = field(default_factory=list)  # due, or committed in a block
    later: list[ScheduledEvent] = field(default_factory=list)  # others of the same correlation
    correlations: set[str] = field(default_factory=set)  # of the event, wherever it is kept

    @property
    def is_found(self) -> bool:
        """True if anything is known of the event itself."""
        stored = self.places or self.returns or self.letters
        return bool(stored or self.scheduled or self.forwardings)


async def trace_event(
    transport: Transport, id: str, *, since: datetime, progress: Progress | None = None
) -> Trace:
    """Search all messages stored since a time, in every stream. No consumer is disturbed.

    A place, `MESSAGE #8`, may be given instead of an id, also for a message that cannot be read
    and has no id; or the first characters of an id (8+). If several ids begin with them and none is
    equal to them, the trace has only the ``candidates``.
    """
    named = await named_place(transport, id)
    trace = Trace(id=named.id if named is not None else id)
    scanning = _Scanning(transport, since, progress)
    await scanning.look_for(trace, trace.id)
    if named is None and not trace.is_found:
        if len(trace.candidates) != 1:
            return trace
        trace = Trace(id=trace.candidates[0].id)
        await scanning.look_for(trace, trace.id)
    trace.candidates.clear()  # they are other events
    if named is not None and named not in trace.places:
        trace.places.insert(0, named)
        trace.correlations.add(named.correlation_id)
    for correlation in sorted(trace.correlations - {trace.id, ""}):
        await scanning.look_for(trace, correlation)
    known = {(place.stream, place.sequence) for place in trace.places}
    unique = {(one.stream, one.sequence): one for one in trace.related}
    trace.related = sorted(
        (one for key, one in unique.items() if key not in known), key=lambda one: one.stored_at
    )
    trace.letters = await DeadLetters(transport).with_states(trace.letters)
    for place in [*trace.places, *trace.returns]:
        trace.consumers += await consumer_words(transport, place)
    await _follow(transport, trace)
    return trace


async def named_place(transport: Transport, text: str) -> EventPlace | None:
    """Return the message at `STREAM #SEQUENCE`, None if it does not exist."""
    found = _PLACE.fullmatch(text.strip())
    if found is None:
        return None
    stream, sequence = found["stream"], int(found["sequence"])
    names = [info.name for info in await transport.operators.streams()]
    message = await transport.operators.message(stream, sequence) if stream in names else None
    if message is None:
        return None
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
    except InvalidEvent:
        # A dead letter refers to the event by this id, too.
        return replace(_unread_place(message), id=f"{stream}:{sequence}")
    return _place(message, envelope)


class _Scanning:
    """Searches through every stream that may hold the event."""

    def __init__(self, transport: Transport, since: datetime, progress: Progress | None) -> None:
        self._transport = transport
        self._since = since
        self._progress = progress

    async def look_for(self, trace: Trace, word: str) -> None:
        """Read all messages once, and keep those that hold this id."""
        # A cheap check first: most messages do not hold the id. Some programs write ids escaped.
        needles = {word.encode("utf-8", "replace"), json.dumps(word)[1:-1].encode()}
        async with AsyncExitStack() as stack:
            scans = [
                await stack.enter_async_context(
                    Scan(
                        self._transport,
                        name,
                        filters=filters,
                        since=self._since if is_bound else None,
                    )
                )
                for name in await self._names()
                for filters, is_bound in filters_of(name)
            ]
            total, done = sum(scan.total for scan in scans), 0
            for scan in scans:
                async for message in scan:
                    done += 1
                    if self._progress is not None and done % SAY_EVERY == 0:
                        self._progress(done, total)
                    if any(needle in message.body for needle in needles):
                        _take(trace, word, message, read_waiting(message, self._transport.clock()))
        trace.scanned = max(trace.scanned, done)

    async def _names(self) -> list[str]:
        return sorted(
            info.name
            for info in await self._transport.operators.streams()
            if holds_events(info.config) or info.name == OWN_STREAM.name
        )


async def _follow(transport: Transport, trace: Trace) -> None:
    """Add what became of what was due; an event that waits for a long retry is not settled."""
    trace.retries = await with_retry_words(transport, trace.retries)
    trace.forwardings = await with_forward_words(
        transport, trace.forwardings, is_there=bool(trace.places)
    )
    waiting = {
        (one.retry.app, one.retry.handler, one.retry.identity.stream)
        for one in trace.retries
        if one.word is None
    }
    trace.consumers = [
        replace(one, word=Word.RETRY) if (one.app, one.handler, one.stream) in waiting else one
        for one in trace.consumers
    ]


def _take(trace: Trace, word: str, message: StoredMessage, waiting: Waiting | None) -> None:
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
    except InvalidEvent:
        return
    place = _place(message, envelope)
    if envelope.id == trace.id:
        trace.correlations.add(place.correlation_id)
    if waiting is not None:
        is_related = place.correlation_id == word
        _take_waiting(trace, waiting, is_itself=envelope.id == trace.id, is_related=is_related)
    elif envelope.id == trace.id:
        found = trace.returns if message.stream == OWN_STREAM.name else trace.places
        if len(found) < PLACES and place not in found:
            found.append(place)
    elif envelope.type == DEAD_LETTER and _original_id(envelope) == trace.id:
        letter = read_letter(message)
        if len(trace.letters) < RELATED and letter not in trace.letters:
            trace.letters.append(letter)
    elif envelope.type == DEAD_LETTER and place.correlation_id == word:
        letter = read_letter(message)
        if len(trace.related_letters) < RELATED and letter not in trace.related_letters:
            trace.related_letters.append(letter)
        _relate(trace, place)
    elif place.correlation_id == word and message.stream != OWN_STREAM.name:
        _relate(trace, place)
    if word == trace.id and len(word) >= SHORTEST:
        _consider(trace, envelope, place)


def _take_waiting(trace: Trace, waiting: Waiting, *, is_itself: bool, is_related: bool) -> None:
    found: list[Any] = []
    if isinstance(waiting, ScheduledEvent):
        if is_itself or is_related:
            found = trace.scheduled if is_itself else trace.later
    elif is_itself:
        found = trace.retries if isinstance(waiting, LongRetry) else trace.forwardings
    if len(found) < RELATED and waiting not in found:
        found.append(waiting)


def _consider(trace: Trace, envelope: Envelope, place: EventPlace) -> None:
    """Keep the event as a candidate if its id begins with what was given."""
    found = [(envelope.id, envelope.type)]
    if envelope.type == DEAD_LETTER and isinstance(envelope.payload, Mapping):
        original, type = _original_id(envelope), envelope.payload.get("originalEventType")
        found.append((str(original), str(type or "")))
    for id, type in found:
        is_known = any(one.id == id for one in trace.candidates)
        if id.startswith(trace.id) and not is_known and len(trace.candidates) < CANDIDATES:
            trace.candidates.append(
                Candidate(
                    id=id, type=type, stream=place.stream, sequence=place.sequence, time=place.time
                )
            )


def _relate(trace: Trace, place: EventPlace) -> None:
    if len(trace.related) < RELATED:
        trace.related.append(place)
    else:
        trace.more_related += 1


def _place(message: StoredMessage, envelope: Envelope) -> EventPlace:
    source = envelope.metadata.get("source")
    return replace(
        _unread_place(message),
        id=envelope.id,
        type=envelope.type,
        source=source if isinstance(source, str) else None,
        correlation_id=str(envelope.metadata.get("correlationId") or envelope.id),
        causation_id=str(envelope.metadata.get("causationId") or ""),
    )


def _unread_place(message: StoredMessage) -> EventPlace:
    return EventPlace(
        stream=message.stream,
        sequence=message.sequence,
        stored_at=message.stored_at,
        time=stored_time(message),
        subject=message.subject,
    )


def _original_id(envelope: Envelope) -> object:
    payload = envelope.payload
    return payload.get("originalEventId") if isinstance(payload, Mapping) else None


async def consumer_words(transport: Transport, place: EventPlace) -> list[ConsumerWord]:
    """Return what is known of an event at each consumer that wants it."""
    words = []
    for info in await transport.operators.consumers(place.stream):
        filters = info.config.filters
        if filters and not any(matches(one, place.subject) for one in filters):
            continue
        if info.config.ack_policy == "none":
            continue  # another reader that settles nothing, like us
        words.append(
            ConsumerWord(
                stream=place.stream,
                consumer=info.name,
                handler=handler_of(info.config),
                app=app_of(info.config),
                function=function_of(info.config),
                word=word_on(info, place.sequence, place.stored_at),
            )
        )
    if not words or await transport.operators.stream_info(NOTES) is None:
        return words
    bucket = await transport.bucket(attempts.BUCKET, ttl=attempts.TTL)
    noted = []
    for one in words:
        key = note_key(one.handler, place.stream, place.sequence, place.stored_at)
        entry = await bucket.get(key)
        noted.append(replace(one, note=read_note(entry.value)) if entry is not None else one)
    return noted

"""Trace: where one event is, who has had it, how it failed, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from ..errors import InvalidEvent
from ..events import DEAD_LETTER
from ..notes import attempts
from ..notes.attempts import Note, note_key, read_note
from ..subjects import matches
from ..topology import OWN_STREAM, TAG, filters_of, holds_events
from ..transports.base import StoredMessage, Transport
from ..transports.timestamps import nanoseconds
from ..wire import Envelope, read_envelope
from .dead_letters import DeadLetters
from .letters import DeadLetter, read_letter, stored_time
from .scan import Scan

RELATED = 200  # events of the same correlation that are kept; more are counted
PLACES = 10  # places of one id; more are copies of copies
NOTES = f"KV_{attempts.BUCKET}"

Progress = Callable[[int, int], None]


class Word(StrEnum):
    """What a consumer's positions say about an event."""

    SETTLED = "settled"
    PERHAPS = "in flight or settled"
    NOT_YET = "not yet delivered"
    BEFORE = "stored before it was made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A stored event."""

    stream: str
    sequence: int
    stored_at: int  # epoch nanoseconds
    time: datetime
    subject: str
    id: str
    type: str
    source: str | None
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerWord:
    """One consumer that wants the event; ``note`` where its attempts are written down."""

    stream: str
    consumer: str
    app: str | None
    word: Word
    note: Note | None = None


@dataclass(slots=True, kw_only=True)
class Trace:
    """What is known of one event."""

    id: str
    places: list[Place] = field(default_factory=list)
    returns: list[Place] = field(default_factory=list)  # on its way back from a dead letter
    consumers: list[ConsumerWord] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    related: list[Place] = field(default_factory=list)  # of the same correlation, in order of time
    more_related: int = 0
    scanned: int = 0


async def trace_event(
    transport: Transport, id: str, *, since: datetime, progress: Progress | None = None
) -> Trace:
    """Look through what every stream stored since then. Reads, and disturbs nobody."""
    trace = Trace(id=id)
    await _look_for(trace, id, transport, since, progress)
    correlations = {place.correlation_id for place in trace.places} - {id}
    for correlation in sorted(correlations):
        await _look_for(trace, correlation, transport, since, progress)
    known = {(place.stream, place.sequence) for place in trace.places}
    unique = {(one.stream, one.sequence): one for one in trace.related}
    trace.related = sorted(
        (one for key, one in unique.items() if key not in known), key=lambda one: one.stored_at
    )
    trace.letters = await DeadLetters(transport).with_states(trace.letters)
    for place in [*trace.places, *trace.returns]:
        trace.consumers += await _words(transport, place)
    return trace


async def _look_for(
    trace: Trace, word: str, transport: Transport, since: datetime, progress: Progress | None
) -> None:
    """One pass over every stream for messages that hold this id."""
    streams = await transport.operators.streams()
    names = [
        info["config"]["name"]
        for info in streams
        if holds_events(info["config"]) or info["config"]["name"] == OWN_STREAM.name
    ]
    needle = word.encode()
    done = 0
    for name in sorted(names):
        async with Scan(transport, name, since=since) as messages:
            async for message in messages:
                done += 1
                if progress is not None and done % 500 == 0:
                    progress(done, 0)
                # A cheap look first: most messages are not about it.
                if needle in message.body:
                    _take(trace, word, name, message)
    trace.scanned = max(trace.scanned, done)


def _take(trace: Trace, word: str, stream: str, message: StoredMessage) -> None:
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
    except InvalidEvent:
        return
    place = _place(stream, message, envelope)
    if envelope.id == trace.id:
        found = trace.returns if stream == OWN_STREAM.name else trace.places
        if len(found) < PLACES and place not in found:
            found.append(place)
    elif envelope.type == DEAD_LETTER and _original_id(envelope) == trace.id:
        letter = read_letter(message, stream)
        if len(trace.letters) < RELATED and letter not in trace.letters:
            trace.letters.append(letter)
    elif place.correlation_id == word and stream != OWN_STREAM.name:
        if len(trace.related) < RELATED:
            trace.related.append(place)
        else:
            trace.more_related += 1


def _place(stream: str, message: StoredMessage, envelope: Envelope) -> Place:
    source = envelope.metadata.get("source")
    return Place(
        stream=stream,
        sequence=message.sequence,
        stored_at=message.stored_at,
        time=stored_time(message),
        subject=message.subject,
        id=envelope.id,
        type=envelope.type,
        source=source if isinstance(source, str) else None,
        correlation_id=str(envelope.metadata.get("correlationId") or envelope.id),
    )


def _original_id(envelope: Envelope) -> object:
    payload = envelope.payload
    return payload.get("originalEventId") if isinstance(payload, Mapping) else None


async def _words(transport: Transport, place: Place) -> list[ConsumerWord]:
    words = []
    for info in await transport.operators.consumers(place.stream):
        config = info["config"]
        filters = filters_of(config)
        if filters and not any(matches(one, place.subject) for one in filters):
            continue
        if config.get("ack_policy") == "none":
            continue  # somebody looks on, as we do
        words.append(
            ConsumerWord(
                stream=place.stream,
                consumer=info["name"],
                app=(config.get("metadata") or {}).get(TAG + "app"),
                word=word_on(info, place.sequence, place.stored_at),
            )
        )
    if not words or await transport.operators.stream_info(NOTES) is None:
        return words
    bucket = await transport.bucket(attempts.BUCKET, ttl=attempts.TTL)
    noted = []
    for one in words:
        key = note_key(one.consumer, place.stream, place.sequence, place.stored_at)
        entry = await bucket.get(key)
        noted.append(replace(one, note=read_note(entry.value)) if entry is not None else one)
    return noted


def word_on(info: Mapping[str, Any], sequence: int, stored_at: int) -> Word:
    """What a consumer's ack floor and last delivery say about one sequence of its stream."""
    if sequence > int(info["delivered"]["stream_seq"]):
        return Word.NOT_YET
    late = nanoseconds(info["created"]) > stored_at
    if late and info["config"].get("deliver_policy") not in ("all", "by_start_sequence"):
        return Word.BEFORE
    if sequence <= int(info["ack_floor"]["stream_seq"]):
        return Word.SETTLED
    return Word.PERHAPS

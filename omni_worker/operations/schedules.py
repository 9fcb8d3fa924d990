"""Schedules: events that are published later, and crons: listed, cancelled, or published now.

Over the port alone. No process of the app has to run, but one has to publish what is due.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from heapq import heappush, heappushpop
from typing import Any

from ..cron import Cron, time_after
from ..errors import ApiError, TransportError
from ..handlers import CRON_TYPE
from ..ids import random_id
from ..letters.written import SUBJECT_HEADER
from ..schedules.messages import (
    KEY_HEADER,
    Kept,
    as_datetime,
    cancellation,
    due_now,
    over,
    read_kept,
    schedule_subject,
)
from ..schedules.occurrences import (
    cron_subject,
    durable_of,
    is_cron,
    is_occurrence,
    occurrence,
    read_cron,
)
from ..schedules.paused import SchedulePause, pause_of, paused, resumed
from ..topology import OWN_STREAM
from ..transports.base import Message, StoredMessage, Transport
from ..transports.bucket import WRONG_REVISIONS
from ..transports.timestamps import iso
from .scan import Scan

TIMEOUT = 10.0  # seconds
SHORTEST = 8  # characters of an id that find its event, as many as are shown


class NoSuchSchedule(TransportError):
    """Operations must act: nothing is scheduled by this key or id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledEvent:
    """An event that is not due yet, or the next one of a cron."""

    app: str
    id: str
    key: str | None
    subject: str
    due_at: int  # epoch nanoseconds
    message: StoredMessage
    cron: Cron | None = None
    pause: SchedulePause | None = None

    @property
    def due(self) -> datetime:
        """Time it is due at, in UTC."""
        return as_datetime(self.due_at)

    @property
    def name(self) -> str:
        """Name it is replaced and cancelled by; of a cron the durable of its handler."""
        if self.cron is not None:
            return durable_of(self.message.subject)
        return self.id if self.key is None else self.key


Place = tuple[int, int]  # when an event is due, in epoch nanoseconds, and the sequence it has


def place_of(one: ScheduledEvent) -> Place:
    """Return where an event is in the order in which they are due."""
    return one.due_at, one.message.sequence


class Soonest:
    """The next of any number of events, ``limit`` at most; no other is kept in memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, int, ScheduledEvent]] = []  # the latest due first

    def add(self, event: ScheduledEvent) -> None:
        """Keep an event, if it is one of the next; the latest of more than ``limit`` goes."""
        due_at, sequence = place_of(event)
        entry = (-due_at, -sequence, event)  # a sequence is there once: events are never compared
        if len(self._heap) < self._limit:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def in_order(self) -> list[ScheduledEvent]:
        """Return those that are kept, the next due first."""
        return [event for _, _, event in sorted(self._heap, reverse=True)]


async def scheduled_events(transport: Transport, app: str | None = None) -> list[ScheduledEvent]:
    """Return every event that is scheduled, by all apps or one, the next due first."""
    async with aclosing(_each(transport, app)) as events:
        return sorted([event async for event in events], key=place_of)


async def crons_of(transport: Transport, app: str) -> list[ScheduledEvent]:
    """Return the crons of an app; they are few, so that no consumer is made to read them."""
    found: list[ScheduledEvent] = []
    after, subject = 1, cron_subject(app, "*")
    while True:
        message = await transport.operators.next_message(OWN_STREAM.name, after, subject)
        if message is None:
            return found
        after = message.sequence + 1
        if (event := scheduled_event(message, transport.clock())) is not None:
            found.append(event)


async def next_schedules(
    transport: Transport, app: str | None, *, limit: int
) -> tuple[list[ScheduledEvent], int]:
    """Return the next that are due, and the number of all; of more than ``limit`` none is kept."""
    soonest, total = Soonest(limit), 0
    async with aclosing(_each(transport, app)) as events:
        async for event in events:
            total += 1
            soonest.add(event)
    return soonest.in_order(), total


async def _each(transport: Transport, app: str | None) -> AsyncGenerator[ScheduledEvent, None]:
    """Yield what is scheduled, by all apps or one, as it is stored."""
    if await transport.operators.stream_info(OWN_STREAM.name) is None:
        return
    filters = (schedule_subject(app or "*", "*"), cron_subject(app or "*", "*"))
    now = transport.clock()
    async with Scan(transport, OWN_STREAM.name, filters=filters) as messages:
        async for one in messages:
            if (event := scheduled_event(one, now)) is not None:
                yield event


def _may_be(event: ScheduledEvent, name: str) -> bool:
    begins = len(name) >= SHORTEST and event.id.startswith(name)
    is_type = event.cron is not None and f"{CRON_TYPE}{event.name}" == name
    return name in (event.name, event.id) or begins or is_type


async def find_schedule(transport: Transport, name: str, app: str | None) -> ScheduledEvent:
    """Find what is scheduled by a key or an id, or a cron by its durable or its event's type.

    Raises NoSuchSchedule.
    """
    async with aclosing(_each(transport, app)) as every:
        events = [one async for one in every if _may_be(one, name)]
    found = (
        [one for one in events if one.name == name]
        or [one for one in events if one.id == name]
        or [one for one in events if len(name) >= SHORTEST and one.id.startswith(name)]
        or [one for one in events if one.cron is not None and f"{CRON_TYPE}{one.name}" == name]
    )
    apps = sorted({one.app for one in found})
    if len(apps) > 1:
        raise NoSuchSchedule(
            f"{name} is scheduled by {' and by '.join(apps)}: choose by --app-name"
        )
    if not found:
        whose = f" by {app}" if app else ""
        raise NoSuchSchedule(
            f"nothing is scheduled{whose} as {name!r}: it is due already, was cancelled, or never"
            " existed; omni-worker schedules list shows all"
        )
    if len(found) > 1:
        ids = " and ".join(one.id for one in found if one.cron is None)
        if all(one.cron is None for one in found):
            raise NoSuchSchedule(f"{name} is the beginning of {ids}: give more characters")
        raise NoSuchSchedule(
            f"{name} is the key of an event and a cron: choose by the event's id, {ids}, or by the"
            f" cron's type, {CRON_TYPE}{name}"
        )
    return found[0]


async def read_schedule(
    transport: Transport, app: str, name: str, sequence: int, *, is_cron: bool
) -> ScheduledEvent:
    """Read one schedule, without looking at the others.

    Raises NoSuchSchedule if it became due, was cancelled or was replaced since it had ``sequence``.
    """
    subject = cron_subject(app, name) if is_cron else schedule_subject(app, name)
    message = await transport.operators.last_message(OWN_STREAM.name, subject)
    event = None if message is None else scheduled_event(message, transport.clock())
    if event is None or (event.message.sequence, event.app, event.name) != (sequence, app, name):
        raise NoSuchSchedule(
            f"{name!r} of {app} became due, was cancelled or was replaced since it was shown"
        )
    return event


async def cancel_schedule(transport: Transport, event: ScheduledEvent) -> None:
    """Cancel it. Raises NoSuchSchedule if it became due or was replaced since it was read.

    A cron is declared again when its app starts.
    """
    mark = cancellation(event.app, event.name, cause=None)
    await _write(transport, event, mark._replace(subject=event.message.subject))


async def run_schedule_now(transport: Transport, event: ScheduledEvent) -> None:
    """Let it be due now. Raises NoSuchSchedule if it was due or replaced since it was read.

    A cron has one occurrence more.
    """
    if (cron := event.cron) is not None:
        app, at = event.app, transport.clock()
        extra = occurrence(app, event.name, cron, event.subject, at, is_extra=True)
        await transport.publish(extra, timeout=TIMEOUT)
        return
    await _write(transport, event, due_now(resumed(event.message), transport.clock()))


async def pause_schedule(
    transport: Transport, event: ScheduledEvent, *, by: str, reason: str = ""
) -> None:
    """Keep it from being due until it is resumed. Raises NoSuchSchedule as above, or ConfigError.

    A deploy does not end the pause of a cron; another event of the same key replaces a paused one.
    """
    now = transport.clock()
    await _write(transport, event, paused(event.message, now, by=by, reason=reason))


async def resume_schedule(transport: Transport, event: ScheduledEvent) -> None:
    """End its pause: an event whose time is over is due now. Raises NoSuchSchedule as above.

    A cron goes on with its next time.
    """
    await _write(transport, event, resumed(event.message))


async def _write(transport: Transport, event: ScheduledEvent, message: Message) -> None:
    try:
        await transport.publish(over(message, random_id(), event.message.sequence), timeout=TIMEOUT)
    except ApiError as error:
        if error.err_code not in WRONG_REVISIONS:
            raise
        raise NoSuchSchedule(
            f"{event.name!r} of {event.app} became due or was replaced at this moment"
        ) from None


def as_json(event: ScheduledEvent) -> Mapping[str, Any]:
    """Write a scheduled event for programs."""
    return {
        "app": event.app,
        "id": event.id,
        "key": event.key,
        "subject": event.subject,
        "due": iso(event.due),
        "cron": None if event.cron is None else event.cron.expression,
        "tz": None if event.cron is None else event.cron.tz,
        "paused": None if event.pause is None else iso(event.pause.since),
        "by": None if event.pause is None else event.pause.by,
        "reason": None if event.pause is None else event.pause.reason,
    }


def scheduled_event(message: StoredMessage, now: int) -> ScheduledEvent | None:
    """Read what is kept; None for the mark of a cancelled one, or what is none of ours."""
    headers = message.headers
    if is_cron(message.subject):
        return _cron(message, now) if is_occurrence(headers) else None
    kept: Kept | None = read_kept(message)
    if kept is None or kept.is_cancelled:
        return None
    return ScheduledEvent(
        app=message.subject.split(".")[2],
        id=kept.id,
        key=next(iter(headers.get(KEY_HEADER, ())), None),
        subject=next(iter(headers.get(SUBJECT_HEADER, ())), ""),
        due_at=kept.due,
        message=message,
        pause=pause_of(headers),
    )


def _cron(message: StoredMessage, now: int) -> ScheduledEvent | None:
    cron = read_cron(message.headers)
    try:
        due = time_after(cron.expression, cron.tz, now)
    except ValueError:  # a zone that is not known here
        due = 0
    return ScheduledEvent(
        app=message.subject.split(".")[2],
        id="",
        key=None,
        subject=next(iter(message.headers.get(SUBJECT_HEADER, ())), ""),
        due_at=due,
        message=message,
        cron=cron,
        pause=pause_of(message.headers),
    )

"""Upcoming: the next of what is scheduled, however many wait, read in bounded memory.

Counts come from the server, and only the events that are shown are kept while it is read through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ..schedules.messages import due_consumer, schedule_subject, token
from ..schedules.occurrences import cron_subject
from ..topology import OWN_STREAM
from ..transports.base import Transport
from ..transports.infos import StreamInfo
from .handler_status import HandlerStatus
from .scan import Scan
from .schedules import Place, ScheduledEvent, Soonest, place_of, scheduled_event

STEP = 5_000  # messages between two steps
MOST_CRONS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Choice of events: ``text`` is part of a name, an id or a subject."""

    app: str = ""
    text: str = ""
    after: Place | None = None  # only those that are due later than this one

    def accepts(self, one: ScheduledEvent) -> bool:
        """Return True for an event that was asked for."""
        if self.app and one.app != self.app:
            return False
        text = self.text.casefold()
        return not text or any(text in each.casefold() for each in (one.name, one.id, one.subject))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Crons and the next events that were found so far, the next due first."""

    crons: tuple[ScheduledEvent, ...] = ()
    events: tuple[ScheduledEvent, ...] = ()
    matching: int = 0  # events that were asked for, those before ``after`` not counted
    read: int = 0
    total: int = 0
    is_complete: bool = False

    @property
    def share(self) -> float:
        """Part of what is scheduled that was read."""
        return 1.0 if self.is_complete or not self.total else min(1.0, self.read / self.total)

    @property
    def has_more(self) -> bool:
        """True if more events were asked for than are here."""
        return self.matching > len(self.events)


async def upcoming(
    transport: Transport, wanted: Wanted, *, limit: int
) -> AsyncGenerator[Step, None]:
    """Read what is scheduled in steps, each more complete than the one before."""
    if await transport.operators.stream_info(OWN_STREAM.name) is None:
        yield Step(is_complete=True)
        return
    # Any text may be given as an app; one that can be none is compared only.
    app = wanted.app if wanted.app and token(wanted.app) == wanted.app else "*"
    now = transport.clock()
    crons: list[ScheduledEvent] = []
    async with Scan(transport, OWN_STREAM.name, filters=(cron_subject(app, "*"),)) as messages:
        async for message in messages:
            one = scheduled_event(message, now)
            if one is not None and wanted.accepts(one) and len(crons) < MOST_CRONS:
                crons.append(one)
    found = tuple(sorted(crons, key=place_of))
    soonest = Soonest(limit)
    matching = read = 0
    async with Scan(transport, OWN_STREAM.name, filters=(schedule_subject(app, "*"),)) as messages:
        total = messages.total
        yield Step(crons=found, total=total)
        async for message in messages:
            read += 1
            if read % STEP == 0:
                yield Step(
                    crons=found, events=tuple(soonest.in_order()), matching=matching, read=read,
                    total=total,
                )  # fmt: skip
            one = scheduled_event(message, now)
            if one is None or not wanted.accepts(one):
                continue
            if wanted.after is not None and place_of(one) <= wanted.after:
                continue
            matching += 1
            soonest.add(one)
    yield Step(
        crons=found, events=tuple(soonest.in_order()), matching=matching, read=read, total=total,
        is_complete=True,
    )  # fmt: skip


# --- what the server counts -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """Events of an app that are due or committed, and not published yet."""

    app: str
    waiting: int
    pulls: int  # requests of its processes for them


def outboxes(handlers: tuple[HandlerStatus, ...]) -> list[Outbox]:
    """Return the outbox of every app that has one, by what is known of the consumers."""
    return [
        Outbox(app=one.app, waiting=one.waiting + one.unacked, pulls=one.pulls)
        for handler in handlers
        for one in handler.consumers
        if one.app is not None
        and (one.stream, one.name) == (OWN_STREAM.name, due_consumer(one.app).name)
    ]


def long_retries(handlers: tuple[HandlerStatus, ...]) -> list[tuple[HandlerStatus, int]]:
    """Return the handlers with retries that wait in schedules, those with the most first."""
    found = [
        # A handler's two consumers on a stream both have the count of the stream.
        (one, sum({each.stream: each.long_retries for each in one.consumers}.values()))
        for one in handlers
    ]
    return sorted(
        ((one, count) for one, count in found if count), key=lambda each: (-each[1], each[0].name)
    )


def version_of(streams: tuple[StreamInfo, ...], handlers: tuple[HandlerStatus, ...]) -> int:
    """Return a number that is another one when anything here may be."""
    own = [
        (one.created, one.state.last_sequence, one.state.messages)
        for one in streams
        if one.name == OWN_STREAM.name
    ]
    waiting = [(one.app, one.waiting) for one in outboxes(handlers)]
    return hash((*own, *waiting))

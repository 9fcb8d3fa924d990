"""Messages: schedules and what becomes of them, as our own stream keeps them. Pure.

A schedule is kept on a subject of its own, so that one of the same name replaces it. When it is
due, the server stores it again on the subject its app's forwarders read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import InvalidEvent
from ..ids import derived_id
from ..letters.written import SUBJECT_HEADER
from ..topology import OWN_STREAM, OWN_SUBJECTS, ConsumerSpec
from ..transports.base import Headers, Message, StoredMessage
from ..transports.timestamps import nanoseconds, timestamp

SCHEDULE = "Nats-Schedule"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID = "Nats-Msg-Id"

# Ours: the event's id, the name people gave the schedule, and the time of the event that caused it.
ID_HEADER = "Omni-Worker-Id"
KEY_HEADER = "Omni-Worker-Key"
CAUSE_HEADER = "Omni-Worker-Cause"
DUE_HEADER = "Omni-Worker-Due"
PAUSED_HEADER = "Omni-Worker-Paused"  # since when; see `paused`

KEPT_DUE = "720h"  # an event that is due waits so long for a process of its app
KEPT_CANCELLED = "24h"  # within it an older cause cannot schedule the name again

_OURS = frozenset({SUBJECT_HEADER, ID_HEADER, KEY_HEADER, CAUSE_HEADER, DUE_HEADER})
_WAYS = frozenset({SCHEDULE, "Nats-Scheduler", PAUSED_HEADER})  # to be, or to have been, scheduled
_TOKEN = re.compile(r"[A-Za-z0-9_:@=+-]{1,100}")
_FORBIDDEN = re.compile(r"[\s\x00-\x1f*>]|^\$|^_INBOX\.|\.\.|^\.|\.$")


@dataclass(frozen=True, slots=True)
class Scheduled:
    """An event that the server publishes later; ``app.cancel`` takes it, or its key or id.

    ``applied`` is False if nothing was written: the same event is scheduled, or was, or a newer
    event has scheduled or cancelled this key.
    """

    id: str
    due: datetime
    key: str | None = None
    applied: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Message that a stream keeps under the name of a schedule."""

    sequence: int
    id: str  # of the event; empty: cancelled
    due: int  # epoch nanoseconds
    cause: int  # epoch nanoseconds: of the event that caused it, else when it was stored
    message_id: str  # of the write

    @property
    def is_cancelled(self) -> bool:
        """True if it is only the mark of a cancelled one."""
        return not self.id


def schedule_subject(app: str, name: str) -> str:
    """Return the subject that keeps a schedule until it is due; ``*``: of all of an app."""
    return f"omni-worker.schedule.{app}.{name if name == '*' else token(name)}"


def due_subject(app: str, name: str) -> str:
    """Return the subject an event comes to when it is due."""
    return f"omni-worker.due.{app}.{token(name)}"


def batch_subject(app: str, batch: str) -> str:
    """Return the subject of events that are committed together; ``*``: of all of an app."""
    return f"omni-worker.due.{app}.atomic.{batch}"


def due_consumer(app: str) -> ConsumerSpec:
    """Return the consumer from which all processes of an app read what is due."""
    return ConsumerSpec(
        stream=OWN_STREAM.name,
        name=f"{app}-due",
        app=app,
        filters=(f"omni-worker.due.{app}.>",),
        # What a process that is killed holds is forwarded by another one so much later. To be
        # forwarded by two does no harm: a slower one renews its leases, and may fail to.
        ack_wait=0.5,
        may_repeat=True,
        # The consumer exists before anything is scheduled; one that is recreated after a deletion
        # must not publish a month of events again.
        start_from="new",
    )


def schedule_message(
    message: Message, app: str, name: str, *, due: int, key: str | None, cause: int | None
) -> Message:
    """Return the schedule of an event's message."""
    headers = {
        **message.headers,
        SCHEDULE: f"@at {timestamp(due)}",
        "Nats-Schedule-Target": due_subject(app, name),
        "Nats-Schedule-TTL": KEPT_DUE,
        # Without it the stream's max_age removes the schedule, and it is never due.
        "Nats-TTL": "never",
        SUBJECT_HEADER: message.subject,
        ID_HEADER: message.id,
        DUE_HEADER: timestamp(due),
    }
    if key is not None:
        headers[KEY_HEADER] = key
    if cause is not None:
        headers[CAUSE_HEADER] = timestamp(cause)
    return message._replace(subject=schedule_subject(app, name), headers=headers)


def batch_of(events: Sequence[Message], app: str) -> list[Message]:
    """Return the messages by which events are committed, to be stored together.

    The ids decide on the subject, and the first message is stored only if it has none yet: the
    same events are stored once, for as long as our own stream keeps them.
    """
    name = derived_id(b"omni-worker.atomic", "\n".join(event.id for event in events))
    subject = batch_subject(app, name)
    entries = [
        Message(
            subject,
            event.body,
            "",
            {**event.headers, SUBJECT_HEADER: event.subject, ID_HEADER: event.id},
        )
        for event in events
    ]
    return [over(entries[0], "", 0), *entries[1:]]


def cancellation(app: str, name: str, *, cause: int | None) -> Message:
    """Return the message that replaces a schedule and is never due."""
    headers = {"Nats-Rollup": "sub", "Nats-TTL": KEPT_CANCELLED}
    if cause is not None:
        headers[CAUSE_HEADER] = timestamp(cause)
    return Message(schedule_subject(app, name), b"", "", headers)


def due_now(schedule: Message, now: int) -> Message:
    """Return a schedule as one that is due now."""
    due = {SCHEDULE: f"@at {timestamp(now)}", DUE_HEADER: timestamp(now)}
    return schedule._replace(id="", headers={**schedule.headers, **due})


def written_headers(headers: Headers) -> dict[str, str]:
    """Return a stored message's headers without those that were about one write."""
    return {
        name: values[0]
        for name, values in headers.items()
        if values and name not in (MESSAGE_ID, EXPECTED)
    }


def over(message: Message, id: str, expected: int) -> Message:
    """Return a message that is stored only over this sequence of its subject, by a write's id."""
    return message._replace(id=id, headers={**message.headers, EXPECTED: str(expected)})


def read_kept(message: StoredMessage | None) -> Kept | None:
    """Read what is kept; what others wrote there counts as cancelled."""
    if message is None:
        return None
    headers = message.headers
    is_ours = not _WAYS.isdisjoint(headers)
    return Kept(
        sequence=message.sequence,
        id=_first(headers, ID_HEADER) if is_ours else "",
        due=_time(headers, DUE_HEADER, message.stored_at),
        cause=_time(headers, CAUSE_HEADER, message.stored_at),
        message_id=_first(headers, MESSAGE_ID),
    )


def forwarded(headers: Headers, body: bytes) -> Message:
    """Return the event's message of one that is due. Raises InvalidEvent if it is none of ours."""
    subject, id = _first(headers, SUBJECT_HEADER), _first(headers, ID_HEADER)
    if not subject or not id:
        raise InvalidEvent("it has no event's subject and id")
    if not is_plain(subject) or subject.startswith(OWN_SUBJECTS.removesuffix(">")):
        raise InvalidEvent(f"{subject!r} is no subject of an event")
    kept = {
        name: values[0]
        for name, values in headers.items()
        if values and name not in _OURS and not name.lower().startswith("nats-")
    }
    return Message(subject, body, id, kept)


def is_plain(subject: str) -> bool:
    """Return True for a subject without wildcards, and none of the server's own."""
    return _FORBIDDEN.search(subject) is None


def as_datetime(due: int) -> datetime:
    """Return a time in epoch nanoseconds as people's, in UTC."""
    return datetime.fromtimestamp(due // 1000 / 1e6, UTC)


def token(name: str) -> str:
    """Return one token of a subject; what cannot be one is written as its digest."""
    if _TOKEN.fullmatch(name):
        return name
    return "sha256-" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _first(headers: Headers, name: str) -> str:
    return next(iter(headers.get(name, ())), "")


def _time(headers: Headers, name: str, otherwise: int) -> int:
    text = _first(headers, name)
    try:
        return nanoseconds(text) if text else otherwise
    except ValueError:
        return otherwise

"""Occurrences: a cron as our own stream keeps it, and the event of each of its times. Pure.

The server stores a message for each occurrence; the event of it is made when that is forwarded,
and its id follows from the cron and the time alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from ..cron import Cron, time_before
from ..errors import InvalidEvent
from ..handlers import CRON_TYPE
from ..ids import derived_id
from ..letters.written import SUBJECT_HEADER
from ..topology import NANO
from ..transports.base import Headers, Message
from ..transports.timestamps import nanoseconds, timestamp
from ..wire import encode_event
from .messages import is_plain

SCHEDULE = "Nats-Schedule"
ZONE = "Nats-Schedule-Time-Zone"

# Ours: the cron, for those who forward and list it, and the occurrence that is not the last one.
CRON_HEADER = "Omni-Worker-Cron"
ZONE_HEADER = "Omni-Worker-Time-Zone"
OCCURRENCE_HEADER = "Omni-Worker-Occurrence"

KEPT_DUE = {"one": "720h", "none": "60s"}  # so long an occurrence waits for a process of its app


def cron_subject(app: str, durable: str) -> str:
    """Return the subject that keeps a cron."""
    return f"omni-worker.schedule.{app}.cron.{durable}"


def occurrence_subject(app: str, durable: str) -> str:
    """Return the subject the occurrences of a cron come to."""
    return f"omni-worker.due.{app}.cron.{durable}"


def is_cron(subject: str) -> bool:
    """Return True for the subject of a cron, of those that keep schedules."""
    return subject.count(".") == 4


def durable_of(subject: str) -> str:
    """Return the durable of a cron by its subject, or by that of its occurrences."""
    return subject.rpartition(".")[2]


def cron_message(app: str, durable: str, cron: Cron, subject: str) -> Message:
    """Return the schedule of a cron; ``subject`` is that of its events."""
    fields = cron.expression.split()
    headers = {
        SCHEDULE: cron.expression if len(fields) == 6 else f"0 {cron.expression}",
        ZONE: cron.tz,
        "Nats-Schedule-Target": occurrence_subject(app, durable),
        "Nats-Schedule-TTL": KEPT_DUE[cron.catch_up],
        # Of occurrences that nothing forwarded the last one is enough.
        "Nats-Schedule-Rollup": "sub",
        "Nats-TTL": "never",
        **_facts(cron, subject),
    }
    return Message(cron_subject(app, durable), b"", "", headers)


def occurrence(
    app: str, durable: str, cron: Cron, subject: str, at: int, *, is_extra: bool
) -> Message:
    """Return one occurrence as the server would store it: a missed one, or an extra one.

    A missed one is stored once, however many processes see that it was missed.
    """
    headers = {
        "Nats-Rollup": "sub",
        "Nats-TTL": KEPT_DUE[cron.catch_up],
        **_facts(cron, subject),
        OCCURRENCE_HEADER: timestamp(at),
    }
    id = "" if is_extra else occurrence_id(app, durable, at)
    return Message(occurrence_subject(app, durable), b"", id, headers)


def occurrence_id(app: str, durable: str, at: int) -> str:
    """Return the id of a cron's event: the same in every process, however often it is made."""
    return derived_id(b"omni-worker.cron", f"{app} {durable} {at}")


def occurred(app: str, subject: str, headers: Headers, stored_at: int) -> Message:
    """Return the event's message of an occurrence. Raises InvalidEvent if it is none of ours."""
    durable = durable_of(subject)
    event_subject, cron = _first(headers, SUBJECT_HEADER), read_cron(headers)
    given = _first(headers, OCCURRENCE_HEADER)
    try:
        # The server is late by less than a second, or by an election, and never early.
        at = nanoseconds(given) if given else time_before(cron.expression, cron.tz, stored_at)
        zone = ZoneInfo(cron.tz)
    except (ValueError, LookupError, OSError) as error:
        raise InvalidEvent(f"its time cannot be found: {error}") from None
    type = f"{CRON_TYPE}{durable}"
    if not f"{event_subject}.".startswith(f"{type}.") or not is_plain(event_subject):
        raise InvalidEvent(f"{event_subject!r} is no subject of {type}")
    id = occurrence_id(app, durable, at)
    payload = {
        "due": datetime.fromtimestamp(at // NANO, UTC).astimezone(zone).isoformat(),
        "cron": cron.expression,
        "tz": cron.tz,
    }
    body = encode_event(
        id=id,
        type=type,
        payload=payload,
        timestamp=at // 1_000_000,
        metadata={"correlationId": id, "traceId": id, "source": app},
    )
    return Message(event_subject, body, id, {})


def is_occurrence(headers: Headers) -> bool:
    """Return True for what a cron left on a due subject."""
    return CRON_HEADER in headers


def read_cron(headers: Headers) -> Cron:
    """Return the cron that a message tells of."""
    return Cron(_first(headers, CRON_HEADER), _first(headers, ZONE_HEADER))


def _facts(cron: Cron, subject: str) -> dict[str, str]:
    return {SUBJECT_HEADER: subject, CRON_HEADER: cron.expression, ZONE_HEADER: cron.tz}


def _first(headers: Headers, name: str) -> str:
    return next(iter(headers.get(name, ())), "")

"""Retries: an event that waits long for its retry, as a schedule of our own stream. Pure.

The subject is the event's identity and the number of the failed run: a repeated write is the same
schedule, and whether a retry is kept, or was due, can be looked up.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from ..topology import OWN_STREAM, ConsumerSpec
from ..transports.base import Delivery, Headers, Message, StoredMessage
from ..transports.returned import Identity, Returned, identity_of
from ..transports.timestamps import nanoseconds, timestamp
from .messages import DUE_HEADER, EXPECTED, KEPT_DUE, SCHEDULE, token

AGAIN_ACK_WAIT = 30.0  # seconds, at least; a worker with longer leases raises it
RETRY_HEADER = "Omni-Worker-Waits"
HEADERS_HEADER = "Omni-Worker-Headers"  # those of the event, as they came
_WAITS, _DUE = "omni-worker.schedule.{app}.retry.{rest}", "omni-worker.again.{app}.{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRetry:
    """Retry that is kept as a schedule, or that was due."""

    app: str
    handler: str
    identity: Identity
    subject: str  # of the event
    failures: int  # runs that failed
    first_seen: float  # epoch seconds
    due: int = 0  # epoch nanoseconds


def again_consumer(app: str) -> ConsumerSpec:
    """Return the consumer from which all processes of an app read the retries that are due."""
    return ConsumerSpec(
        stream=OWN_STREAM.name,
        name=f"{app}-again",
        app=app,
        filters=(f"omni-worker.again.{app}.>",),
        ack_wait=AGAIN_ACK_WAIT,
        # It exists before a retry is kept; one that is recreated goes on where it was.
        start_from="new",
    )


def subjects_of(app: str, handler: str, identity: Identity, failures: int) -> tuple[str, str]:
    """Return the subjects of one retry: while it waits, and once it is due."""
    rest = f"{token(handler)}.{token(identity.stream)}.{identity.sequence}.{identity.stored_at}"
    rest += f".{failures}"
    return _WAITS.format(app=app, rest=rest), _DUE.format(app=app, rest=rest)


def waiting_filter(app: str, handler: str = "", stream: str = "") -> str:
    """Return the filter of the retries that wait; empty: of all handlers, of all streams."""
    return _WAITS.format(app=app, rest=_rest(handler, stream))


def due_filter(app: str, handler: str = "", stream: str = "") -> str:
    """Return the filter of the retries that were due."""
    return _DUE.format(app=app, rest=_rest(handler, stream))


def retry_message(retry: WaitingRetry, delivery: Delivery) -> Message:
    """Return the schedule of a retry, which is stored only if there is none."""
    subject, target = subjects_of(retry.app, retry.handler, retry.identity, retry.failures)
    facts = {
        "handler": retry.handler,
        "subject": retry.subject,
        "stream": retry.identity.stream,
        "sequence": retry.identity.sequence,
        "storedAt": retry.identity.stored_at,
        "failures": retry.failures,
        "firstSeen": retry.first_seen,
    }
    headers = {
        SCHEDULE: f"@at {timestamp(retry.due)}",
        "Nats-Schedule-Target": target,
        "Nats-Schedule-TTL": KEPT_DUE,
        # Without it the stream's max_age removes the schedule, and the retry never comes.
        "Nats-TTL": "never",
        EXPECTED: "0",
        DUE_HEADER: timestamp(retry.due),
        RETRY_HEADER: json.dumps(facts),
    }
    if delivery.raw_headers:
        headers[HEADERS_HEADER] = base64.b64encode(delivery.raw_headers).decode()
    return Message(subject, delivery.body, "", headers)


def retry_of(
    delivery: Delivery, app: str, handler: str, *, failures: int, first_seen: float, due: int
) -> WaitingRetry:
    """Return the retry that a failed delivery waits for."""
    return WaitingRetry(
        app=app,
        handler=handler,
        identity=identity_of(delivery),
        subject=delivery.subject,
        failures=failures,
        first_seen=first_seen,
        due=due,
    )


def read_retry(headers: Headers, app: str) -> WaitingRetry | None:
    """Read a retry from the headers of its message; None if it is none."""
    try:
        facts = json.loads(_first(headers, RETRY_HEADER))
        due = _first(headers, DUE_HEADER)
        return WaitingRetry(
            app=app,
            handler=str(facts["handler"]),
            identity=Identity(str(facts["stream"]), int(facts["sequence"]), int(facts["storedAt"])),
            subject=str(facts["subject"]),
            failures=int(facts["failures"]),
            first_seen=float(facts["firstSeen"]),
            due=nanoseconds(due) if due else 0,
        )
    except (ValueError, KeyError, TypeError):
        return None


def read_stored(message: StoredMessage) -> WaitingRetry | None:
    """Read a retry from a stored message; None if it is none."""
    tokens = message.subject.split(".")
    return read_retry(message.headers, tokens[2]) if len(tokens) > 2 else None


def returned(delivery: Delivery, retry: WaitingRetry, headers: Headers) -> Returned:
    """Return a retry's delivery as one of its event."""
    try:
        raw = base64.b64decode(_first(headers, HEADERS_HEADER), validate=True) or None
    except binascii.Error:
        raw = None
    return Returned(
        delivery,
        retry.identity,
        subject=retry.subject,
        raw_headers=raw,
        failures=retry.failures,
        first_seen=retry.first_seen,
    )


def _rest(handler: str, stream: str) -> str:
    if not handler:
        return ">"
    return f"{token(handler)}.{token(stream)}.>" if stream else f"{token(handler)}.>"


def _first(headers: Headers, name: str) -> str:
    return next(iter(headers.get(name, ())), "")

"""Returned: a delivery of an event that waited elsewhere, and where or when it was first.

The message that is delivered lies in our own stream. After a retry that was kept it is, for people,
dead letters, guards and handlers, the event it was: of its first stream, sequence, stored time.
"""

from __future__ import annotations

from typing import NamedTuple

from .base import Delivery


class Identity(NamedTuple):
    """Identity of an event: sequences repeat when a stream is recreated."""

    stream: str
    sequence: int
    stored_at: int  # epoch nanoseconds


class Returned(Delivery):
    """Delivery of an event that a schedule kept until its retry was due."""

    __slots__ = ("failures", "first_seen", "identity")

    def __init__(
        self,
        delivery: Delivery,
        identity: Identity,
        *,
        subject: str,
        raw_headers: bytes | None,
        failures: int,
        first_seen: float,
    ) -> None:
        super().__init__(
            delivery.source,
            subject,
            delivery.body,
            raw_headers,
            delivery.reply,
            delivery.sequence,
            delivery.stored_at,
            delivery.count,
        )
        self.identity = identity
        self.failures = failures  # runs that failed before
        self.first_seen = first_seen  # epoch seconds


class SentBack(Delivery):
    """Delivery of an event that was a dead letter: as old as it was when it was first stored."""

    __slots__ = ("first_stored_at",)

    def __init__(self, delivery: Delivery, first_stored_at: int) -> None:
        super().__init__(
            delivery.source,
            delivery.subject,
            delivery.body,
            delivery.raw_headers,
            delivery.reply,
            delivery.sequence,
            delivery.stored_at,
            delivery.count,
        )
        self.first_stored_at = first_stored_at  # epoch nanoseconds


def identity_of(delivery: Delivery) -> Identity:
    """Return the identity of a delivery's event."""
    if isinstance(delivery, Returned):
        return delivery.identity
    return Identity(delivery.source.stream, delivery.sequence, delivery.stored_at)


def stored_at_of(delivery: Delivery) -> int:
    """Return when a delivery's event was first stored, in epoch nanoseconds."""
    if isinstance(delivery, SentBack):
        return delivery.first_stored_at
    return delivery.identity.stored_at if isinstance(delivery, Returned) else delivery.stored_at

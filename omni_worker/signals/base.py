"""Base of all signals: what happened, as frozen facts in the field's words.

Keep a signal no longer than needed: it holds its event, and the bytes that came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InvalidEvent
from ..events import Event, addressed
from ..handlers import Handler
from ..subjects import parse_subject
from ..transports.base import Delivery
from ..transports.returned import identity_of, stored_at_of
from ..wire import read_envelope, to_event


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Base of every signal; a listener of this class hears all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSignal(Signal):
    """Something happened to one handler."""

    handler: Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSignal(HandlerSignal):
    """Something happened to one delivery of one handler."""

    delivery: Delivery

    @property
    def event(self) -> Event[Any] | None:
        """Event in the delivery, its payload unchecked; None if it is unreadable.

        Read when asked for, except in the two signals of a run.
        """
        return _event_in(self.delivery)

    @property
    def subject(self) -> str:
        """Subject the event came on."""
        return self.delivery.subject

    @property
    def stream(self) -> str:
        """Stream the event is stored in."""
        return identity_of(self.delivery).stream

    @property
    def sequence(self) -> int:
        """Sequence of the event in its stream."""
        return identity_of(self.delivery).sequence


def _event_in(delivery: Delivery) -> Event[Any] | None:
    try:
        stored_at = stored_at_of(delivery) // 1_000_000
        envelope = read_envelope(delivery.body, stored_at=stored_at)
        event = to_event(Event[Any], envelope)
    except InvalidEvent:
        return None
    try:
        return addressed(event, parse_subject(delivery.subject, event.type))
    except InvalidEvent:
        return event

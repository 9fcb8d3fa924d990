"""Dry: a transport that captures published messages, and stores nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..letters.written import SUBJECT_HEADER
from ..schedules.messages import (
    DUE_HEADER,
    ID_HEADER,
    KEY_HEADER,
    SCHEDULE,
    as_datetime,
    schedule_subject,
)
from ..subjects import matches
from ..transports.base import Message, Stored, Transport
from ..transports.timestamps import nanoseconds

Captured = Callable[[Message], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldPublish:
    """Event that a captured message is, or would become."""

    subject: str
    id: str
    body: bytes
    due: datetime | None = None  # None: now
    key: str | None = None  # by which a later one replaces it


@dataclass(frozen=True, slots=True)
class WouldCancel:
    """Schedule that a captured message would cancel, by its key or its event's id."""

    name: str


def meaning_of(message: Message) -> WouldPublish | WouldCancel:
    """Return what a captured message is for: what our own stream keeps is read as its event."""
    headers = message.headers
    if matches(schedule_subject("*", "*"), message.subject):
        if SCHEDULE not in headers:
            return WouldCancel(message.subject.split(".", 3)[3])
        return WouldPublish(
            subject=headers.get(SUBJECT_HEADER, ""),
            id=headers.get(ID_HEADER, ""),
            body=message.body,
            due=as_datetime(nanoseconds(headers[DUE_HEADER])),
            key=headers.get(KEY_HEADER),
        )
    return WouldPublish(subject=message.subject, id=message.id, body=message.body)


def dry(transport: Transport, captured: Captured) -> Transport:
    """Wrap a transport: reading is unchanged, published messages go to ``captured`` instead."""
    return _Dry(transport, captured)


class _Dry:
    """Wrapper that passes everything but publishing to the transport."""

    is_dry = True  # schedules neither prepare the server nor read what is due

    def __init__(self, transport: Transport, captured: Captured) -> None:
        self._transport = transport
        self._captured = captured
        self.operators = transport.operators

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def publish(self, message: Message, *, timeout: float) -> Stored:
        """Capture a message and confirm it as if it were stored."""
        self._captured(message)
        return Stored("(dry run)", 0, False)

    async def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> list[Stored | Exception]:
        """Capture many messages."""
        return [await self.publish(one, timeout=timeout) for one in messages]

    async def publish_atomic(self, messages: Sequence[Message], *, timeout: float) -> Stored:
        """Capture the messages of a batch."""
        return [await self.publish(one, timeout=timeout) for one in messages][-1]

"""Dry: a transport that captures published messages, and stores nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..transports.base import Message, Stored, Transport

Captured = Callable[[Message], None]


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

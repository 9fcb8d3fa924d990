"""Dry: a transport that shows what would be published, and stores nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..transports.base import Message, Stored, Transport

Captured = Callable[[Message], None]


def dry(transport: Transport, captured: Captured) -> Transport:
    """The same server to read from; what is published is handed to ``captured`` instead."""
    return _Dry(transport, captured)


class _Dry:
    """Everything but publishing is the transport's own."""

    def __init__(self, transport: Transport, captured: Captured) -> None:
        self._transport = transport
        self._captured = captured
        self.operators = transport.operators

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def publish(self, message: Message, *, timeout: float) -> Stored:
        """Confirmed as if it were stored."""
        self._captured(message)
        return Stored("(dry run)", 0, False)

    async def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> list[Stored | Exception]:
        """The same for many."""
        return [await self.publish(one, timeout=timeout) for one in messages]

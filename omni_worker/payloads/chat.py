"""Chats: handed over, closed or idle, and the follow-ups that bring an idle one back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..events import Event
from .base import Payload

__all__ = [
    "ChatArchivedEvent",
    "ChatArchivedHandler",
    "ChatArchivedPayload",
    "ChatClosedEvent",
    "ChatClosedHandler",
    "ChatClosedPayload",
    "ChatHandoffActivatedEvent",
    "ChatHandoffActivatedHandler",
    "ChatHandoffActivatedPayload",
    "ChatIdleTimeoutEvent",
    "ChatIdleTimeoutHandler",
    "ChatIdleTimeoutPayload",
    "FollowUpArmedEvent",
    "FollowUpArmedHandler",
    "FollowUpArmedPayload",
    "FollowUpDisarmedEvent",
    "FollowUpDisarmedHandler",
    "FollowUpDisarmedPayload",
    "FollowUpFiredEvent",
    "FollowUpFiredHandler",
    "FollowUpFiredPayload",
    "FollowUpSkippedEvent",
    "FollowUpSkippedHandler",
    "FollowUpSkippedPayload",
]


class ChatIdleTimeoutPayload(Payload):
    """A chat is idle, and a follow-up is due; ``attempt_number`` counts from 1."""

    chat_id: str
    instance_id: str
    agent_id: str | None = None
    sequence_index: int
    attempt_number: int
    total_attempts: int
    minutes_since_last_agent_reply: float
    synthetic_prompt: str
    chat_name: str | None = None


class ChatHandoffActivatedPayload(Payload):
    """A human takes a chat over."""

    chat_id: str
    instance_id: str
    agent_id: str | None = None
    reason: str | None = None


class ChatArchivedPayload(Payload):
    """A chat was archived or muted (``source``)."""

    chat_id: str
    instance_id: str
    source: str


class ChatClosedPayload(Payload):
    """A chat was closed; ``outcome``: won, lost, no_response, …"""

    chat_id: str
    instance_id: str
    agent_id: str | None = None
    outcome: str
    reason: str | None = None
    escalated: bool
    closed_fields: dict[str, Any] | None = None
    closed_at: str  # ISO 8601


class FollowUpArmedPayload(Payload):
    """A follow-up waits for its time."""

    chat_id: str
    instance_id: str
    agent_id: str | None = None
    sequence_index: int
    next_fire_at: int  # epoch milliseconds


class FollowUpFiredPayload(Payload):
    """A follow-up went out."""

    chat_id: str
    instance_id: str
    agent_id: str | None = None
    sequence_index: int
    fired_at: int  # epoch milliseconds
    synthetic_prompt: str


class FollowUpSkippedPayload(Payload):
    """A follow-up was left out; the next ones go on."""

    chat_id: str
    instance_id: str
    agent_id: str | None = None
    sequence_index: int
    reason: str


class FollowUpDisarmedPayload(FollowUpSkippedPayload):
    """The follow-ups of a chat end: the customer replied, the chat was closed, …"""


ChatIdleTimeoutEvent = Event[ChatIdleTimeoutPayload]
ChatHandoffActivatedEvent = Event[ChatHandoffActivatedPayload]
ChatArchivedEvent = Event[ChatArchivedPayload]
ChatClosedEvent = Event[ChatClosedPayload]
FollowUpArmedEvent = Event[FollowUpArmedPayload]
FollowUpFiredEvent = Event[FollowUpFiredPayload]
FollowUpSkippedEvent = Event[FollowUpSkippedPayload]
FollowUpDisarmedEvent = Event[FollowUpDisarmedPayload]

ChatIdleTimeoutHandler = Callable[[ChatIdleTimeoutEvent], Awaitable[None]]
ChatHandoffActivatedHandler = Callable[[ChatHandoffActivatedEvent], Awaitable[None]]
ChatArchivedHandler = Callable[[ChatArchivedEvent], Awaitable[None]]
ChatClosedHandler = Callable[[ChatClosedEvent], Awaitable[None]]
FollowUpArmedHandler = Callable[[FollowUpArmedEvent], Awaitable[None]]
FollowUpFiredHandler = Callable[[FollowUpFiredEvent], Awaitable[None]]
FollowUpSkippedHandler = Callable[[FollowUpSkippedEvent], Awaitable[None]]
FollowUpDisarmedHandler = Callable[[FollowUpDisarmedEvent], Awaitable[None]]

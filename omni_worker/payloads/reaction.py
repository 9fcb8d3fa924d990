"""Reactions and presence: emoji on messages, who types, who is online."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..events import Event
from .base import Payload

__all__ = [
    "PresenceOfflineEvent",
    "PresenceOfflineHandler",
    "PresenceOfflinePayload",
    "PresenceOnlineEvent",
    "PresenceOnlineHandler",
    "PresenceOnlinePayload",
    "PresenceTypingEvent",
    "PresenceTypingHandler",
    "PresenceTypingPayload",
    "ReactionReceivedEvent",
    "ReactionReceivedHandler",
    "ReactionReceivedPayload",
    "ReactionRemovedEvent",
    "ReactionRemovedHandler",
    "ReactionRemovedPayload",
]


class ReactionRemovedPayload(Payload):
    """A reaction to a message was taken back."""

    message_id: str
    chat_id: str
    from_: str
    emoji: str
    emoji_name: str | None = None
    is_custom_emoji: bool | None = None


class ReactionReceivedPayload(ReactionRemovedPayload):
    """A person reacted to a message; ``emoji`` is the character, or a custom one's id."""

    raw_payload: dict[str, Any] | None = None


class PresenceTypingPayload(Payload):
    """A person types in a chat."""

    chat_id: str
    from_: str
    timestamp: int | None = None  # epoch milliseconds


class PresenceOnlinePayload(Payload):
    """A user came online."""

    user_id: str
    last_seen: int | None = None  # epoch milliseconds


class PresenceOfflinePayload(Payload):
    """A user went offline."""

    user_id: str
    last_seen: int  # epoch milliseconds


ReactionRemovedEvent = Event[ReactionRemovedPayload]
ReactionReceivedEvent = Event[ReactionReceivedPayload]
PresenceTypingEvent = Event[PresenceTypingPayload]
PresenceOnlineEvent = Event[PresenceOnlinePayload]
PresenceOfflineEvent = Event[PresenceOfflinePayload]

ReactionRemovedHandler = Callable[[ReactionRemovedEvent], Awaitable[None]]
ReactionReceivedHandler = Callable[[ReactionReceivedEvent], Awaitable[None]]
PresenceTypingHandler = Callable[[PresenceTypingEvent], Awaitable[None]]
PresenceOnlineHandler = Callable[[PresenceOnlineEvent], Awaitable[None]]
PresenceOfflineHandler = Callable[[PresenceOfflineEvent], Awaitable[None]]

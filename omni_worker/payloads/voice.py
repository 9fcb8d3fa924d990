"""Voice: sessions in voice channels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..events import Event
from .base import Payload

__all__ = [
    "VoiceSessionEndedEvent",
    "VoiceSessionEndedHandler",
    "VoiceSessionEndedPayload",
    "VoiceSessionStartedEvent",
    "VoiceSessionStartedHandler",
    "VoiceSessionStartedPayload",
    "VoiceStreamEndedEvent",
    "VoiceStreamEndedHandler",
    "VoiceStreamEndedPayload",
    "VoiceStreamReadyEvent",
    "VoiceStreamReadyHandler",
    "VoiceStreamReadyPayload",
    "VoiceUserJoinedChannelEvent",
    "VoiceUserJoinedChannelHandler",
    "VoiceUserJoinedChannelPayload",
    "VoiceUserLeftChannelEvent",
    "VoiceUserLeftChannelHandler",
    "VoiceUserLeftChannelPayload",
]


class VoiceSessionStartedPayload(Payload):
    """A voice session began."""

    session_id: str
    channel_id: str
    instance_id: str
    guild_id: str | None = None


class VoiceStreamReadyPayload(Payload):
    """A speaker's audio can be heard."""

    session_id: str
    user_id: str
    platform_user_id: str
    ssrc: int


class VoiceStreamEndedPayload(Payload):
    """A speaker's audio ended; ``reason``: left, disconnected, session_ended."""

    session_id: str
    user_id: str
    reason: str


class VoiceSessionEndedPayload(Payload):
    """A voice session ended; ``reason``: disconnected, kicked, channel_deleted, manual."""

    session_id: str
    reason: str


class VoiceUserJoinedChannelPayload(Payload):
    """A user joined a voice channel."""

    user_id: str
    channel_id: str
    guild_id: str
    instance_id: str
    display_name: str | None = None


class VoiceUserLeftChannelPayload(VoiceUserJoinedChannelPayload):
    """A user left a voice channel."""


VoiceSessionStartedEvent = Event[VoiceSessionStartedPayload]
VoiceStreamReadyEvent = Event[VoiceStreamReadyPayload]
VoiceStreamEndedEvent = Event[VoiceStreamEndedPayload]
VoiceSessionEndedEvent = Event[VoiceSessionEndedPayload]
VoiceUserJoinedChannelEvent = Event[VoiceUserJoinedChannelPayload]
VoiceUserLeftChannelEvent = Event[VoiceUserLeftChannelPayload]

VoiceSessionStartedHandler = Callable[[VoiceSessionStartedEvent], Awaitable[None]]
VoiceStreamReadyHandler = Callable[[VoiceStreamReadyEvent], Awaitable[None]]
VoiceStreamEndedHandler = Callable[[VoiceStreamEndedEvent], Awaitable[None]]
VoiceSessionEndedHandler = Callable[[VoiceSessionEndedEvent], Awaitable[None]]
VoiceUserJoinedChannelHandler = Callable[[VoiceUserJoinedChannelEvent], Awaitable[None]]
VoiceUserLeftChannelHandler = Callable[[VoiceUserLeftChannelEvent], Awaitable[None]]

"""Media: files that come with messages, and what is read out of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..events import Event
from .base import Payload

__all__ = [
    "MediaProcessedEvent",
    "MediaProcessedHandler",
    "MediaProcessedPayload",
    "MediaProcessingFailedEvent",
    "MediaProcessingFailedHandler",
    "MediaProcessingFailedPayload",
    "MediaReceivedEvent",
    "MediaReceivedHandler",
    "MediaReceivedPayload",
]


class MediaReceivedPayload(Payload):
    """A file came with a message."""

    event_id: str
    media_id: str
    mime_type: str
    size: int  # bytes
    duration: float | None = None
    url: str


class MediaProcessedPayload(Payload):
    """A file was transcribed, described or read (``processing_type``)."""

    event_id: str
    media_id: str
    processing_type: str
    content: str
    model: str | None = None
    provider: str | None = None
    tokens_used: int | None = None
    error: str | None = None  # then content is empty


class MediaProcessingFailedPayload(Payload):
    """A file could not be transcribed, described or read."""

    event_id: str
    media_id: str
    processing_type: str
    error: str
    provider: str | None = None
    model: str | None = None
    retry_attempts: int | None = None


MediaReceivedEvent = Event[MediaReceivedPayload]
MediaProcessedEvent = Event[MediaProcessedPayload]
MediaProcessingFailedEvent = Event[MediaProcessingFailedPayload]

MediaReceivedHandler = Callable[[MediaReceivedEvent], Awaitable[None]]
MediaProcessedHandler = Callable[[MediaProcessedEvent], Awaitable[None]]
MediaProcessingFailedHandler = Callable[[MediaProcessingFailedEvent], Awaitable[None]]

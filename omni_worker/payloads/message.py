"""Messages: what people write, and what became of what we wrote."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..events import Event
from .base import Payload

__all__ = [
    "MessageButtonClickEvent",
    "MessageButtonClickHandler",
    "MessageButtonClickPayload",
    "MessageDeliveredEvent",
    "MessageDeliveredHandler",
    "MessageDeliveredPayload",
    "MessageFailedEvent",
    "MessageFailedHandler",
    "MessageFailedPayload",
    "MessagePinnedEvent",
    "MessagePinnedHandler",
    "MessagePinnedPayload",
    "MessagePollEvent",
    "MessagePollHandler",
    "MessagePollPayload",
    "MessagePollVoteEvent",
    "MessagePollVoteHandler",
    "MessagePollVotePayload",
    "MessageReadEvent",
    "MessageReadHandler",
    "MessageReadPayload",
    "MessageReceivedEvent",
    "MessageReceivedHandler",
    "MessageReceivedPayload",
    "MessageSentEvent",
    "MessageSentHandler",
    "MessageSentPayload",
    "MessageUnpinnedEvent",
    "MessageUnpinnedHandler",
    "MessageUnpinnedPayload",
    "ReceivedContent",
    "SentContent",
]


class ReceivedContent(Payload):
    """Content of a received message; ``type``: text, audio, image, video, document, sticker, …"""

    type: str
    text: str | None = None
    media_url: str | None = None
    media_id: str | None = None  # of the channel, to fetch a file that has no public URL
    mime_type: str | None = None
    local_path: str | None = None
    is_voice_note: bool | None = None


class SentContent(Payload):
    """Content of a sent message."""

    type: str
    text: str | None = None
    caption: str | None = None
    media_url: str | None = None
    local_path: str | None = None
    mime_type: str | None = None
    filename: str | None = None
    is_voice_note: bool | None = None


class MessageReceivedPayload(Payload):
    """A message arrived on a channel."""

    external_id: str
    chat_id: str
    thread_id: str | None = None
    from_: str
    sender_name: str | None = None
    chat_name: str | None = None
    content: ReceivedContent
    reply_to_id: str | None = None
    raw_payload: dict[str, Any] | None = None


class MessageSentPayload(Payload):
    """A message went out on a channel."""

    external_id: str
    chat_id: str
    thread_id: str | None = None
    to: str
    content: SentContent
    reply_to_id: str | None = None
    raw_payload: dict[str, Any] | None = None
    sender_agent_id: str | None = None
    system_notice: bool | None = None  # a courtesy such as "one moment", no answer


class MessageDeliveredPayload(Payload):
    """The channel delivered our message."""

    external_id: str
    chat_id: str
    delivered_at: int  # epoch milliseconds


class MessageReadPayload(Payload):
    """Our message was read."""

    external_id: str
    chat_id: str
    read_at: int  # epoch milliseconds


class MessageFailedPayload(Payload):
    """The channel did not take our message."""

    external_id: str | None = None
    chat_id: str
    error: str
    error_code: str | None = None
    retryable: bool


class MessagePinnedPayload(Payload):
    """A message was pinned in its chat."""

    message_id: str
    chat_id: str
    from_: str | None = None
    raw_payload: dict[str, Any] | None = None


class MessageUnpinnedPayload(Payload):
    """A message is no longer pinned."""

    message_id: str
    chat_id: str
    from_: str | None = None
    raw_payload: dict[str, Any] | None = None


class MessageButtonClickPayload(Payload):
    """A button below a message was clicked; ``data`` is the button's own."""

    callback_query_id: str | None = None
    message_id: str | None = None
    chat_id: str | None = None
    from_: str
    text: str | None = None
    data: str | None = None
    raw_payload: dict[str, Any] | None = None


class MessagePollPayload(Payload):
    """A poll was made in a chat."""

    poll_id: str
    chat_id: str | None = None
    from_: str | None = None
    question: str
    options: list[str]
    multi_select: bool | None = None
    raw_payload: dict[str, Any] | None = None


class MessagePollVotePayload(Payload):
    """A person voted in a poll; ``option_ids`` count from 0."""

    poll_id: str
    chat_id: str | None = None
    from_: str
    option_ids: list[int]
    raw_payload: dict[str, Any] | None = None


MessageReceivedEvent = Event[MessageReceivedPayload]
MessageSentEvent = Event[MessageSentPayload]
MessageDeliveredEvent = Event[MessageDeliveredPayload]
MessageReadEvent = Event[MessageReadPayload]
MessageFailedEvent = Event[MessageFailedPayload]
MessagePinnedEvent = Event[MessagePinnedPayload]
MessageUnpinnedEvent = Event[MessageUnpinnedPayload]
MessageButtonClickEvent = Event[MessageButtonClickPayload]
MessagePollEvent = Event[MessagePollPayload]
MessagePollVoteEvent = Event[MessagePollVotePayload]

MessageReceivedHandler = Callable[[MessageReceivedEvent], Awaitable[None]]
MessageSentHandler = Callable[[MessageSentEvent], Awaitable[None]]
MessageDeliveredHandler = Callable[[MessageDeliveredEvent], Awaitable[None]]
MessageReadHandler = Callable[[MessageReadEvent], Awaitable[None]]
MessageFailedHandler = Callable[[MessageFailedEvent], Awaitable[None]]
MessagePinnedHandler = Callable[[MessagePinnedEvent], Awaitable[None]]
MessageUnpinnedHandler = Callable[[MessageUnpinnedEvent], Awaitable[None]]
MessageButtonClickHandler = Callable[[MessageButtonClickEvent], Awaitable[None]]
MessagePollHandler = Callable[[MessagePollEvent], Awaitable[None]]
MessagePollVoteHandler = Callable[[MessagePollVoteEvent], Awaitable[None]]

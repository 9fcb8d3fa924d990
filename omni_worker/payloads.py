"""Payloads: the core event types' models, and the names people use for them.

Enumerations are open strings and extra keys are kept: a newer Omni must not break an old worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .events import Event


class Payload(BaseModel):
    """A core payload: snake_case here, camelCase on the wire, None fields are not written."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, alias_generator=to_camel)


class ReceivedContent(Payload):
    """Content of a received message; ``type``: text, audio, image, video, document, sticker, …"""

    type: str
    text: str | None = None
    media_url: str | None = None
    mime_type: str | None = None


class SentContent(Payload):
    """Content of a sent message."""

    type: str
    text: str | None = None
    media_url: str | None = None


class MessageReceivedPayload(Payload):
    """A message arrived on a channel."""

    external_id: str
    chat_id: str
    from_: str = Field(alias="from")
    content: ReceivedContent
    reply_to_id: str | None = None
    raw_payload: dict[str, Any] | None = None


class MessageSentPayload(Payload):
    """A message went out on a channel."""

    external_id: str
    chat_id: str
    to: str
    content: SentContent
    reply_to_id: str | None = None


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


class IdentityCreatedPayload(Payload):
    """A person became known."""

    person_id: str
    display_name: str | None = None
    primary_phone: str | None = None
    primary_email: str | None = None


class IdentityLinkedPayload(Payload):
    """A platform's user was recognised as a person; ``linked_by`` says how."""

    person_id: str
    platform_identity_id: str
    channel_type: str
    platform_user_id: str
    linked_by: str
    confidence: float


class IdentityMergedPayload(Payload):
    """Two persons turned out to be one."""

    target_person_id: str
    source_person_id: str
    merged_identity_ids: list[str]
    reason: str
    merged_by: str | None = None


class IdentityUnlinkedPayload(Payload):
    """A platform's user is no longer taken for that person."""

    person_id: str
    platform_identity_id: str
    reason: str | None = None


class InstanceConnectedPayload(Payload):
    """An instance of a channel is online."""

    instance_id: str
    channel_type: str
    profile_name: str | None = None
    profile_pic_url: str | None = None
    owner_identifier: str | None = None


class InstanceDisconnectedPayload(Payload):
    """An instance of a channel is offline."""

    instance_id: str
    channel_type: str
    reason: str | None = None
    will_reconnect: bool


class InstanceQrCodePayload(Payload):
    """An instance waits for its code to be scanned."""

    instance_id: str
    channel_type: str
    qr_code: str
    expires_at: int  # epoch milliseconds


class AccessAllowedPayload(Payload):
    """A user passed the access rules."""

    instance_id: str
    platform_user_id: str
    person_id: str | None = None
    rule_id: str | None = None


class AccessDeniedPayload(AccessAllowedPayload):
    """A user was denied access; ``action`` is block or silent_block."""

    reason: str
    action: str


MessageReceivedEvent = Event[MessageReceivedPayload]
MessageSentEvent = Event[MessageSentPayload]
MessageDeliveredEvent = Event[MessageDeliveredPayload]
MessageReadEvent = Event[MessageReadPayload]
MessageFailedEvent = Event[MessageFailedPayload]
MediaReceivedEvent = Event[MediaReceivedPayload]
MediaProcessedEvent = Event[MediaProcessedPayload]
IdentityCreatedEvent = Event[IdentityCreatedPayload]
IdentityLinkedEvent = Event[IdentityLinkedPayload]
IdentityMergedEvent = Event[IdentityMergedPayload]
IdentityUnlinkedEvent = Event[IdentityUnlinkedPayload]
InstanceConnectedEvent = Event[InstanceConnectedPayload]
InstanceDisconnectedEvent = Event[InstanceDisconnectedPayload]
InstanceQrCodeEvent = Event[InstanceQrCodePayload]
AccessAllowedEvent = Event[AccessAllowedPayload]
AccessDeniedEvent = Event[AccessDeniedPayload]

MessageReceivedHandler = Callable[[MessageReceivedEvent], Awaitable[None]]
MessageSentHandler = Callable[[MessageSentEvent], Awaitable[None]]
MessageDeliveredHandler = Callable[[MessageDeliveredEvent], Awaitable[None]]
MessageReadHandler = Callable[[MessageReadEvent], Awaitable[None]]
MessageFailedHandler = Callable[[MessageFailedEvent], Awaitable[None]]
MediaReceivedHandler = Callable[[MediaReceivedEvent], Awaitable[None]]
MediaProcessedHandler = Callable[[MediaProcessedEvent], Awaitable[None]]
IdentityCreatedHandler = Callable[[IdentityCreatedEvent], Awaitable[None]]
IdentityLinkedHandler = Callable[[IdentityLinkedEvent], Awaitable[None]]
IdentityMergedHandler = Callable[[IdentityMergedEvent], Awaitable[None]]
IdentityUnlinkedHandler = Callable[[IdentityUnlinkedEvent], Awaitable[None]]
InstanceConnectedHandler = Callable[[InstanceConnectedEvent], Awaitable[None]]
InstanceDisconnectedHandler = Callable[[InstanceDisconnectedEvent], Awaitable[None]]
InstanceQrCodeHandler = Callable[[InstanceQrCodeEvent], Awaitable[None]]
AccessAllowedHandler = Callable[[AccessAllowedEvent], Awaitable[None]]
AccessDeniedHandler = Callable[[AccessDeniedEvent], Awaitable[None]]

CORE_PAYLOADS: dict[str, type[Payload]] = {
    "message.received": MessageReceivedPayload,
    "message.sent": MessageSentPayload,
    "message.delivered": MessageDeliveredPayload,
    "message.read": MessageReadPayload,
    "message.failed": MessageFailedPayload,
    "media.received": MediaReceivedPayload,
    "media.processed": MediaProcessedPayload,
    "identity.created": IdentityCreatedPayload,
    "identity.linked": IdentityLinkedPayload,
    "identity.merged": IdentityMergedPayload,
    "identity.unlinked": IdentityUnlinkedPayload,
    "instance.connected": InstanceConnectedPayload,
    "instance.disconnected": InstanceDisconnectedPayload,
    "instance.qr_code": InstanceQrCodePayload,
    "access.allowed": AccessAllowedPayload,
    "access.denied": AccessDeniedPayload,
}

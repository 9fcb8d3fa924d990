"""Instances: connections of channels, who may use them, and what their providers report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..events import Event
from .base import Payload

__all__ = [
    "AccessAllowedEvent",
    "AccessAllowedHandler",
    "AccessAllowedPayload",
    "AccessDeniedEvent",
    "AccessDeniedHandler",
    "AccessDeniedPayload",
    "AccessPairingApprovedEvent",
    "AccessPairingApprovedHandler",
    "AccessPairingApprovedPayload",
    "AccessPairingRequestedEvent",
    "AccessPairingRequestedHandler",
    "AccessPairingRequestedPayload",
    "ChannelAlertEvent",
    "ChannelAlertHandler",
    "ChannelAlertPayload",
    "FlowDataExchangeEvent",
    "FlowDataExchangeHandler",
    "FlowDataExchangePayload",
    "InstanceConnectedEvent",
    "InstanceConnectedHandler",
    "InstanceConnectedPayload",
    "InstanceDisconnectedEvent",
    "InstanceDisconnectedHandler",
    "InstanceDisconnectedPayload",
    "InstanceQrCodeEvent",
    "InstanceQrCodeHandler",
    "InstanceQrCodePayload",
    "TemplateStatusChangedEvent",
    "TemplateStatusChangedHandler",
    "TemplateStatusChangedPayload",
]


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


class AccessPairingRequestedPayload(Payload):
    """A user asked for access with a pairing code."""

    instance_id: str
    platform_user_id: str
    pairing_code: str
    request_id: str
    expires_at: int  # epoch milliseconds


class AccessPairingApprovedPayload(Payload):
    """A user's pairing was approved; ``rule_id`` is the new access rule."""

    instance_id: str
    platform_user_id: str
    request_id: str
    rule_id: str


class ChannelAlertPayload(Payload):
    """A provider reports trouble with an account; ``severity``: info, warning, critical."""

    instance_id: str
    channel_type: str
    alert_type: str
    severity: str
    message: str
    entity_type: str | None = None
    entity_id: str | None = None
    data: dict[str, Any] | None = None


class TemplateStatusChangedPayload(Payload):
    """A provider approved, rejected or paused a message template."""

    instance_id: str
    template_id: str
    meta_template_id: str
    template_name: str
    language: str
    previous_status: str | None = None
    new_status: str
    rejection_reason: str | None = None


class FlowDataExchangePayload(Payload):
    """A user's form sent its data; ``action``: INIT, data_exchange, BACK."""

    instance_id: str
    channel_type: str
    flow_id: str | None = None
    flow_token: str
    action: str
    screen: str | None = None
    data: dict[str, Any] | None = None
    response_screen: str | None = None
    duration_ms: float


InstanceConnectedEvent = Event[InstanceConnectedPayload]
InstanceDisconnectedEvent = Event[InstanceDisconnectedPayload]
InstanceQrCodeEvent = Event[InstanceQrCodePayload]
AccessAllowedEvent = Event[AccessAllowedPayload]
AccessDeniedEvent = Event[AccessDeniedPayload]
AccessPairingRequestedEvent = Event[AccessPairingRequestedPayload]
AccessPairingApprovedEvent = Event[AccessPairingApprovedPayload]
ChannelAlertEvent = Event[ChannelAlertPayload]
TemplateStatusChangedEvent = Event[TemplateStatusChangedPayload]
FlowDataExchangeEvent = Event[FlowDataExchangePayload]

InstanceConnectedHandler = Callable[[InstanceConnectedEvent], Awaitable[None]]
InstanceDisconnectedHandler = Callable[[InstanceDisconnectedEvent], Awaitable[None]]
InstanceQrCodeHandler = Callable[[InstanceQrCodeEvent], Awaitable[None]]
AccessAllowedHandler = Callable[[AccessAllowedEvent], Awaitable[None]]
AccessDeniedHandler = Callable[[AccessDeniedEvent], Awaitable[None]]
AccessPairingRequestedHandler = Callable[[AccessPairingRequestedEvent], Awaitable[None]]
AccessPairingApprovedHandler = Callable[[AccessPairingApprovedEvent], Awaitable[None]]
ChannelAlertHandler = Callable[[ChannelAlertEvent], Awaitable[None]]
TemplateStatusChangedHandler = Callable[[TemplateStatusChangedEvent], Awaitable[None]]
FlowDataExchangeHandler = Callable[[FlowDataExchangeEvent], Awaitable[None]]

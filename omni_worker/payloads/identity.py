"""Identities: persons, and the accounts on channels that belong to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..events import Event
from .base import Payload

__all__ = [
    "IdentityCreatedEvent",
    "IdentityCreatedHandler",
    "IdentityCreatedPayload",
    "IdentityLinkedEvent",
    "IdentityLinkedHandler",
    "IdentityLinkedPayload",
    "IdentityMergedEvent",
    "IdentityMergedHandler",
    "IdentityMergedPayload",
    "IdentityUnlinkedEvent",
    "IdentityUnlinkedHandler",
    "IdentityUnlinkedPayload",
    "ProfileSyncedEvent",
    "ProfileSyncedHandler",
    "ProfileSyncedPayload",
]


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


class ProfileSyncedPayload(Payload):
    """The profile of an instance's own account was read."""

    instance_id: str
    name: str | None = None
    avatar_url: str | None = None
    bio: str | None = None
    platform_metadata: dict[str, Any] | None = None


IdentityCreatedEvent = Event[IdentityCreatedPayload]
IdentityLinkedEvent = Event[IdentityLinkedPayload]
IdentityMergedEvent = Event[IdentityMergedPayload]
IdentityUnlinkedEvent = Event[IdentityUnlinkedPayload]
ProfileSyncedEvent = Event[ProfileSyncedPayload]

IdentityCreatedHandler = Callable[[IdentityCreatedEvent], Awaitable[None]]
IdentityLinkedHandler = Callable[[IdentityLinkedEvent], Awaitable[None]]
IdentityMergedHandler = Callable[[IdentityMergedEvent], Awaitable[None]]
IdentityUnlinkedHandler = Callable[[IdentityUnlinkedEvent], Awaitable[None]]
ProfileSyncedHandler = Callable[[ProfileSyncedEvent], Awaitable[None]]

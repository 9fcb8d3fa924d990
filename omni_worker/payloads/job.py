"""Jobs: synchronisation of an instance's history, and batches over many messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..events import Event
from .base import Payload

__all__ = [
    "BatchJobCancelledEvent",
    "BatchJobCancelledHandler",
    "BatchJobCancelledPayload",
    "BatchJobCompletedEvent",
    "BatchJobCompletedHandler",
    "BatchJobCompletedPayload",
    "BatchJobCreatedEvent",
    "BatchJobCreatedHandler",
    "BatchJobCreatedPayload",
    "BatchJobFailedEvent",
    "BatchJobFailedHandler",
    "BatchJobFailedPayload",
    "BatchJobProgressEvent",
    "BatchJobProgressHandler",
    "BatchJobProgressPayload",
    "BatchJobStartedEvent",
    "BatchJobStartedHandler",
    "BatchJobStartedPayload",
    "BatchProgress",
    "SyncCompletedEvent",
    "SyncCompletedHandler",
    "SyncCompletedPayload",
    "SyncFailedEvent",
    "SyncFailedHandler",
    "SyncFailedPayload",
    "SyncProgress",
    "SyncProgressEvent",
    "SyncProgressHandler",
    "SyncProgressPayload",
    "SyncStartedEvent",
    "SyncStartedHandler",
    "SyncStartedPayload",
]


class SyncProgress(Payload):
    """Counts of a synchronisation."""

    fetched: int
    stored: int
    duplicates: int
    media_downloaded: int
    total_estimated: int | None = None


class SyncStartedPayload(Payload):
    """A synchronisation began; ``type``: profile, messages, contacts, groups, all, …"""

    job_id: str
    instance_id: str
    type: str
    config: dict[str, Any] | None = None


class SyncProgressPayload(Payload):
    """A synchronisation went on."""

    job_id: str
    instance_id: str
    type: str
    progress: SyncProgress


class SyncCompletedPayload(SyncProgressPayload):
    """A synchronisation is complete."""


class SyncFailedPayload(Payload):
    """A synchronisation failed."""

    job_id: str
    instance_id: str
    type: str
    error: str


class BatchProgress(Payload):
    """Counts of a batch."""

    total_items: int
    processed_items: int
    failed_items: int
    skipped_items: int
    current_item: str | None = None
    progress_percent: float
    total_cost_cents: float
    total_tokens: int


class BatchJobCreatedPayload(Payload):
    """A batch was asked for."""

    job_id: str
    instance_id: str
    job_type: str
    request_params: dict[str, Any]


class BatchJobStartedPayload(Payload):
    """A batch began."""

    job_id: str
    instance_id: str
    job_type: str
    total_items: int


class BatchJobProgressPayload(Payload):
    """A batch went on."""

    job_id: str
    instance_id: str
    progress: BatchProgress


class BatchJobCompletedPayload(Payload):
    """A batch is complete."""

    job_id: str
    instance_id: str
    job_type: str
    progress: BatchProgress
    duration_ms: float


class BatchJobCancelledPayload(BatchJobProgressPayload):
    """A batch was cancelled."""


class BatchJobFailedPayload(Payload):
    """A batch failed."""

    job_id: str
    instance_id: str
    error: str
    progress: BatchProgress | None = None


SyncStartedEvent = Event[SyncStartedPayload]
SyncProgressEvent = Event[SyncProgressPayload]
SyncCompletedEvent = Event[SyncCompletedPayload]
SyncFailedEvent = Event[SyncFailedPayload]
BatchJobCreatedEvent = Event[BatchJobCreatedPayload]
BatchJobStartedEvent = Event[BatchJobStartedPayload]
BatchJobProgressEvent = Event[BatchJobProgressPayload]
BatchJobCompletedEvent = Event[BatchJobCompletedPayload]
BatchJobCancelledEvent = Event[BatchJobCancelledPayload]
BatchJobFailedEvent = Event[BatchJobFailedPayload]

SyncStartedHandler = Callable[[SyncStartedEvent], Awaitable[None]]
SyncProgressHandler = Callable[[SyncProgressEvent], Awaitable[None]]
SyncCompletedHandler = Callable[[SyncCompletedEvent], Awaitable[None]]
SyncFailedHandler = Callable[[SyncFailedEvent], Awaitable[None]]
BatchJobCreatedHandler = Callable[[BatchJobCreatedEvent], Awaitable[None]]
BatchJobStartedHandler = Callable[[BatchJobStartedEvent], Awaitable[None]]
BatchJobProgressHandler = Callable[[BatchJobProgressEvent], Awaitable[None]]
BatchJobCompletedHandler = Callable[[BatchJobCompletedEvent], Awaitable[None]]
BatchJobCancelledHandler = Callable[[BatchJobCancelledEvent], Awaitable[None]]
BatchJobFailedHandler = Callable[[BatchJobFailedEvent], Awaitable[None]]

"""An event as a handler gets it, for tests that call the handler as the plain function it is."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from ..events import Event, Metadata, addressed
from ..subjects import build_subject, parse_subject

T = TypeVar("T")


def event_of(
    type: str,
    payload: T,
    *,
    channel: str | None = None,
    instance: str | None = None,
    id: str | None = None,
    timestamp: int | None = None,
    source: str = "test",
    correlation_id: str | None = None,
    trace_id: str | None = None,
    person_id: str | None = None,
    platform_identity_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Event[T]:
    """The event, with the payload as it is: give a handler of ``Event[Model]`` a Model.

    ``await route(event_of("message.received", Received(…), channel="whatsapp", instance="wa"))``.
    ``timestamp`` is epoch milliseconds, now by default. Raises InvalidSubject for a type, channel
    or instance that could not be published.
    """
    subject = build_subject(type, channel, instance)
    id = id or str(uuid.uuid4())
    event: Event[T] = Event(
        id=id,
        type=type,
        payload=payload,
        timestamp=time.time_ns() // 1_000_000 if timestamp is None else timestamp,
        metadata=Metadata(
            **{
                **(metadata or {}),
                "source": source,
                "correlation_id": correlation_id or id,
                "trace_id": trace_id or id,
                "person_id": person_id,
                "platform_identity_id": platform_identity_id,
                "channel_type": channel,
                "instance_id": instance,
            }
        ),
    )
    return addressed(event, parse_subject(subject, type))

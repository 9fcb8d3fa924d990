"""Declared: the handlers and types of an app, as JSON. No server is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..events import Event
from ..handler_consumers import PlannedConsumers
from ..handlers import Handler
from ..options import options_in_force
from ..schemas import SchemaRegistry


def as_json(
    app: str, planned: Sequence[PlannedConsumers], registry: SchemaRegistry
) -> dict[str, Any]:
    """Return the handlers and types of an app, for programs."""
    return {
        "app": app,
        "handlers": [
            {
                "name": one.handler.name,
                "function": one.handler.function,
                "where": one.handler.where,
                "types": list(one.handler.types),
                "channels": list(one.handler.channels),
                "instance": one.handler.instance,
                "filters": list(one.handler.filters),
                "durable": one.handler.options.durable,
                "queue": one.handler.options.queue,
                "shared": one.is_shared,
                "consumers": [{"stream": s.stream, "name": s.name} for s in one.specs],
                "unserved": list(one.unserved),
                "doubtful": list(one.doubts),
                "payload": model_name(one.handler),
                "batch": _batch(one.handler),
                "options": options_in_force(one.handler.options),
            }
            for one in planned
        ],
        "schemas": [
            {
                "type": one.type,
                "model": one.model.__name__ if one.model else None,
                "stream": one.stream,
                "description": one.description,
            }
            for one in registry.list()
        ],
    }


def _batch(handler: Handler) -> dict[str, Any] | None:
    batch = handler.batch
    if batch is None:
        return None
    quiet = None if batch.by is None else batch.quiet
    return {"size": batch.size, "wait": batch.wait, "by": batch.by is not None, "quiet": quiet}


def model_name(handler: Handler) -> str | None:
    """Name the model of a handler's payload; None if any payload is accepted."""
    payload = handler.model.model_fields["payload"].annotation
    if handler.model is Event[Any] or payload in (None, Any):
        return None
    return getattr(payload, "__name__", None) or str(payload)

"""Publish middlewares: functions around every publish, and the event they see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..events import Event, Metadata, Published, addressed
from ..subjects import Address
from ..wire import ENVELOPE
from .drafts import Draft

PublishNext = Callable[[Event[Any]], Awaitable[Published]]
PublishMiddleware = Callable[[Event[Any], PublishNext], Awaitable[Published]]

_ANY_EVENT = Event[Any]  # pydantic takes longer to look it up than to make one
_ALIASES = {name: str(field.alias) for name, field in Metadata.model_fields.items()}


def event_of(draft: Draft, id: str, timestamp: int, metadata: Mapping[str, Any]) -> Event[Any]:
    """The event that middlewares see, on the subject it is about to be published to."""
    extra = draft.extra and {k: value for k, value in draft.extra.items() if k not in ENVELOPE}
    event = _ANY_EVENT(
        id=id,
        type=draft.type,
        payload=draft.payload,
        timestamp=timestamp,
        metadata=metadata,  # validated here, in the same pass
        **extra,
    )
    return addressed(event, Address(draft.type, draft.channel, draft.instance))


def metadata_of(event: Event[Any]) -> dict[str, Any]:
    """The keys that say something, by their names on the wire."""
    metadata = event.metadata
    if type(metadata) is not Metadata:
        return metadata.model_dump(by_alias=True, exclude_none=True)
    # By hand: pydantic's dump takes three times as long.
    given = {_ALIASES[name]: value for name, value in vars(metadata).items() if value is not None}
    if more := metadata.model_extra:
        given.update((name, value) for name, value in more.items() if value is not None)
    return given


Send = Callable[[Event[Any]], Coroutine[Any, Any, Published]]


def chain(middlewares: Sequence[PublishMiddleware], send: Send) -> Send:
    """Put the middlewares around ``send``, the first outermost."""
    call = send
    for middleware in reversed(middlewares):
        call = _bind(middleware, call)
    return call


def _bind(middleware: PublishMiddleware, call: Send) -> Send:
    async def bound(event: Event[Any]) -> Published:
        published: Any = await middleware(event, call)
        if not isinstance(published, Published):
            name = getattr(middleware, "__qualname__", type(middleware).__name__)
            raise ConfigError(
                f"publish middleware {name} returned {type(published).__name__}:"
                " write return await call_next(event)"
            )
        return published

    return bound

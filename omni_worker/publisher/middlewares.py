"""Publish middlewares: functions around every publish."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..errors import ConfigError
from ..events import Event, Published

PublishNext = Callable[[Event[Any]], Awaitable[Published]]
PublishMiddleware = Callable[[Event[Any], PublishNext], Awaitable[Published]]


def chain(middlewares: Sequence[PublishMiddleware]) -> PublishMiddleware:
    """Make one middleware of several, the first outermost; ``check_published`` is the caller's."""
    outermost, *others = middlewares
    if not others:
        return outermost
    inner = chain(others)

    def chained(event: Event[Any], call_next: PublishNext) -> Awaitable[Published]:
        async def call_inner(event: Event[Any]) -> Published:
            return check_published(others[0], await inner(event, call_next))

        return outermost(event, call_inner)

    return chained


def check_published(middleware: PublishMiddleware, published: object) -> Published:
    """Refuse what is no confirmation: the middleware forgot to return it."""
    if isinstance(published, Published):
        return published
    name = getattr(middleware, "__qualname__", type(middleware).__name__)
    raise ConfigError(
        f"publish middleware {name} returned {type(published).__name__}:"
        " write return await call_next(event)"
    )


async def awaiting(begun: Awaitable[Published]) -> Published:
    """Make a coroutine of anything else that can be awaited; a middleware may return it."""
    return await begun

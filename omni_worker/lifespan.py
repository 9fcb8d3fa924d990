"""Lifespan: what an app and its extensions open before handlers run, and close after them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from .bus import EventBus
from .extensions import Extension, overrides
from .parts import Part
from .service import service

LAST_STEPS = 3.0  # seconds each exit has in any case, when the handlers took all of the grace

log = logging.getLogger("omni_worker.worker")


class Grace:
    """The time handlers, lifespan and extensions have to end, all together."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends: float | None = None

    def left_at(self) -> float:
        """Loop time at which an exit that begins now is cancelled; the first call begins it."""
        now = asyncio.get_running_loop().time()
        if self._ends is None:
            self._ends = now + self.seconds
        return max(self._ends, now + LAST_STEPS)


@asynccontextmanager
async def alive(
    bus: EventBus,
    lifespans: Sequence[tuple[Part, AbstractAsyncContextManager[Any]]],
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[None]:
    """Enter the extensions, then the lifespan of each part; what they yield is ``bus.states``.

    Leaving drains the bus, then leaves them in the other order. An exit has what the handlers left
    of the grace; then it is cancelled, one line says so, and what was raised inside passes on.
    """
    grace = Grace(bus.settings.grace)
    async with AsyncExitStack() as stack:
        stack.enter_context(service(bus))
        for extension in extensions:
            if overrides(extension, "running"):
                await _enter(stack, extension, bus, grace)
        for part, lifespan in lifespans:
            name = "the lifespan" if part.name == bus.name else f"the lifespan of {part.name}"
            bus.states[part] = await stack.enter_async_context(_within(grace, lifespan, name))
        try:
            yield
        finally:
            grace.left_at()
            await bus.drain()


async def _enter(stack: AsyncExitStack, extension: Extension, bus: EventBus, grace: Grace) -> None:
    name = f"extension {type(extension).__name__}"
    try:
        await stack.enter_async_context(_within(grace, extension.running(bus), name))
    except Exception as error:
        error.add_note(f"{name} could not start")
        raise


@asynccontextmanager
async def _within(
    grace: Grace, context: AbstractAsyncContextManager[Any], name: str
) -> AsyncIterator[Any]:
    """Enter a context; its exit is cancelled when the grace is over."""
    limit = asyncio.timeout(None)
    failed: BaseException | None = None
    try:
        async with limit, context as value:
            try:
                yield value
            except BaseException as error:
                failed = error
                raise
            finally:
                limit.reschedule(grace.left_at())
    except TimeoutError:
        if not limit.expired():
            raise
        log.warning(
            "%s did not end within the grace of %g s; stopped without it", name, grace.seconds
        )
        if failed is not None:
            raise failed from None

"""Lifespan: resources an app opens before its handlers run and closes after they have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from .bus import EventBus

LAST_STEPS = 3.0  # seconds its exit has in any case, when the handlers took all of the grace

log = logging.getLogger("omni_worker.worker")


@asynccontextmanager
async def alive(
    bus: EventBus, lifespan: AbstractAsyncContextManager[object]
) -> AsyncIterator[None]:
    """Enter the lifespan; its value becomes ``bus.state``. Leaving drains the bus first.

    Its exit has what the handlers left of the grace. Then it is cancelled, one line says so, and
    what was raised inside passes on.
    """
    now, limit = asyncio.get_running_loop().time, asyncio.timeout(None)
    failed: BaseException | None = None
    try:
        async with limit, lifespan as bus.state:
            try:
                yield
            except BaseException as error:
                failed = error
                raise
            finally:
                grace_ends = now() + bus.settings.grace
                try:
                    await bus.drain()
                finally:
                    limit.reschedule(max(grace_ends, now() + LAST_STEPS))
    except TimeoutError:
        if not limit.expired():
            raise
        log.warning(
            "the lifespan did not end within the grace of %g s; stopped without it",
            bus.settings.grace,
        )
        if failed is not None:
            raise failed from None

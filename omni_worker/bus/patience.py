"""Patience: a start waits for a server that does not answer yet, as long as for a missing one.

A cluster without a leader accepts connections and leaves requests unanswered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import backoff

from ..errors import Unanswered
from ..settings import Settings

log = logging.getLogger("omni_worker.bus")

T = TypeVar("T")


async def patiently(step: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """Repeat a step of the start while it stays unanswered, as often as connecting is tried.

    Raises Unanswered after the last try.
    """
    waits = backoff.expo(
        base=2, factor=settings.reconnect_delay, max_value=settings.reconnect_max_delay
    )
    next(waits)  # the generator's first value is None
    limit = settings.reconnect_max_retries
    tries = 0
    while True:
        tries += 1
        try:
            return await step()
        except Unanswered as error:
            if limit is not None and tries > limit:
                raise
            wait = backoff.full_jitter(next(waits))
            log.warning(
                "JetStream does not answer (a cluster without a leader?): %s; try %d%s in %.1f s",
                error, tries + 1, f" of {limit + 1}" if limit is not None else "", wait,
            )  # fmt: skip
            await asyncio.sleep(wait)

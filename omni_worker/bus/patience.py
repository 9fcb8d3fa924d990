"""Patience: a start waits for a server that does not answer yet, as long as for a missing one.

A cluster without a leader accepts connections and leaves requests unanswered. A worker waits as
long for the stream of a handler's type.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

import backoff

from ..errors import StreamMissing, Unanswered
from ..settings import Settings

log = logging.getLogger("omni_worker.bus")

T = TypeVar("T")

# Set by a worker process: a program that subscribes by itself is answered at once.
waits_for_streams: ContextVar[bool] = ContextVar("waits_for_streams", default=False)


async def patiently(step: Callable[[], Awaitable[T]], settings: Settings) -> T:
    """Repeat a step of the start while it stays unanswered, as often as connecting is tried.

    Raises Unanswered after the last try; StreamMissing at once, or in a worker after the last.
    """
    waits = backoff.expo(
        base=2, factor=settings.reconnect_delay, max_value=settings.reconnect_max_delay
    )
    next(waits)  # the generator's first value is None
    limit = settings.reconnect_max_retries
    tries, is_reported = 0, False
    while True:
        tries += 1
        try:
            return await step()
        except (Unanswered, StreamMissing) as error:
            is_missing = isinstance(error, StreamMissing)
            if (limit is not None and tries > limit) or (
                is_missing and not waits_for_streams.get()
            ):
                raise
            wait = backoff.full_jitter(next(waits))
            if is_missing:
                if not is_reported:
                    count = "without end" if limit is None else f"{limit} times"
                    log.warning("%s; waiting for it: the server is asked %s", error, count)
                    is_reported = True
                await asyncio.sleep(wait)
                continue
            log.warning(
                "JetStream does not answer (a cluster without a leader?): %s; try %d%s in %.1f s",
                error, tries + 1, f" of {limit + 1}" if limit is not None else "", wait,
            )  # fmt: skip
            await asyncio.sleep(wait)

"""Ending: subscriptions on their way out, and handlers that ask for it from inside.

A handler that waited for the end of its own subscription would wait for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..current import current_run
from ..publisher import Publisher
from ..subscription import Subscription
from ..tasks import own


class Ending:
    """The subscriptions of a bus that are ending right now."""

    def __init__(self) -> None:
        self._ended: dict[Subscription, asyncio.Event] = {}
        self._begun: set[asyncio.Task[None]] = set()

    @contextmanager
    def of(self, subscription: Subscription) -> Iterator[None]:
        """Mark a subscription as ending inside this block."""
        ended = self._ended[subscription] = asyncio.Event()
        try:
            yield
        finally:
            del self._ended[subscription]
            ended.set()

    async def wait(self, subscription: Subscription | None = None) -> None:
        """Wait until it has ended, or (None) until all have that are ending now."""
        for one, ended in list(self._ended.items()):
            if subscription in (None, one):
                await ended.wait()

    async def begin_or_await(self, ending: Coroutine[Any, Any, None], inside: bool) -> None:
        """Await it; for who asks from ``inside`` it only begins, and no handler begins after it."""
        if not inside:
            await ending
            return
        task = asyncio.get_running_loop().create_task(ending, name=own("ending"))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        await asyncio.sleep(0)


def caller_among(
    subscriptions: Iterable[Subscription], publisher: Publisher
) -> Subscription | None:
    """The one in whose handler the caller is running, in its task, its threads or its children."""
    context = current_run()
    if context is None or context.publisher is not publisher:
        return None
    ours = (one for one in subscriptions if one.handler.name == context.handler)
    return next((one for one in ours if context.sequence in one.holds(context.stream)), None)

"""Roster: the subscriptions of one bus, from their start to their end; who is asked, who ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

from ..binding import Binding
from ..context import current_context
from ..errors import ConfigError, TransportError
from ..handlers import Handler
from ..publisher import Publisher
from ..subscription import Subscription
from ..threads import DaemonThreads
from ..transports.base import Source

log = logging.getLogger("omni_worker.bus")


class Roster:
    """Every subscription with its consumers and threads; ``publisher`` tells the bus they are of.

    What runs longer than ``grace`` seconds at an end is handed back.
    """

    def __init__(self, publisher: Publisher, grace: float) -> None:
        self._publisher = publisher
        self._grace = grace
        self._bindings: dict[Subscription, Binding] = {}
        self._threads: dict[Subscription, DaemonThreads] = {}
        self._ending: dict[Subscription, asyncio.Event] = {}
        self._later: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._bindings))

    @property
    def bindings(self) -> list[Binding]:
        """The consumers of each."""
        return list(self._bindings.values())

    @property
    def consumers(self) -> set[str]:
        """The names of all consumers read here."""
        return {bound.spec.name for binding in self.bindings for bound in binding.bound.values()}

    def add(
        self, subscription: Subscription, binding: Binding, threads: DaemonThreads | None
    ) -> None:
        """One more, before its consumers are bound."""
        self._bindings[subscription] = binding
        if threads is not None:
            self._threads[subscription] = threads

    def refuse_taken(self, handler: Handler, wanted: list[tuple[str, str]]) -> None:
        """One consumer feeds one handler of a process: the second would take its events away."""
        for other in self.bindings:
            for bound in other.bound.values():
                if (bound.spec.stream, bound.spec.name) in wanted:
                    raise ConfigError(
                        f"{handler.function}: consumer {bound.spec.name!r} on {bound.spec.stream}"
                        f" already feeds {other.subscription.handler.function}"
                    )

    async def refresh(self, *, busy_only: bool) -> None:
        """Read the consumers anew, all at once: the questions go out in one piece."""
        due = [one for one in self.bindings if one.is_busy or not busy_only]
        for result in await asyncio.gather(*(one.refresh() for one in due), return_exceptions=True):
            if isinstance(result, TransportError):
                log.debug("consumers not read: %s", result)
            elif isinstance(result, BaseException):
                raise result

    def on_lost(self, source: Source, cause: Exception) -> None:
        """A consumer is gone: its binding makes another, or fails."""
        for binding in self.bindings:
            if source in binding.bound:
                binding.on_lost(source, cause)
                return

    async def fail(self, cause: Exception) -> None:
        """Nothing can be read any more."""
        for subscription, binding in list(self._bindings.items()):
            binding.fail(cause)
            await self.drain(subscription, 0.0)

    # --- endings ---------------------------------------------------------------------------

    async def unsubscribe(self, subscription: Subscription, grace: float | None) -> None:
        """End one; a handler that ends its own subscription does not wait for itself."""
        is_own = self.running_inside() is subscription
        await self.now_or_later(self.drain(subscription, grace), not is_own)

    async def drain_all(self, grace: float | None) -> None:
        """End every one, those as well that are ending already."""
        await asyncio.gather(*(self.drain(one, grace) for one in (*self._bindings, *self._ending)))

    async def drain(self, subscription: Subscription, grace: float | None = None) -> None:
        """End one, or wait until it has ended."""
        binding = self._bindings.pop(subscription, None)
        if binding is None:
            if (ended := self._ending.get(subscription)) is not None:
                await ended.wait()
            return
        ended = self._ending[subscription] = asyncio.Event()
        try:
            await subscription.drain(self._grace if grace is None else grace)
            await binding.close()
            threads = self._threads.pop(subscription, None)
            if threads is not None:
                threads.close()
        finally:
            del self._ending[subscription]
            ended.set()

    async def now_or_later(self, ending: Coroutine[Any, Any, None], now: bool) -> None:
        """Await it, or begin it only: what a handler asks for must not wait for that handler."""
        if now:
            await ending
            return
        task = asyncio.get_running_loop().create_task(ending, name="omni-worker ending")
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        await asyncio.sleep(0)  # from here on no handler begins

    def running_inside(self) -> Subscription | None:
        """The subscription whose handler the caller is running in."""
        context = current_context.get()
        if context is None or context.publisher is not self._publisher:
            return None
        ours = (one for one in self._bindings if one.handler.name == context.handler)
        return next((one for one in ours if context.sequence in one.holds(context.stream)), None)

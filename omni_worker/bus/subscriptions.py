"""Subscriptions of one bus, from their start to their end: who is asked, who ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from ..binding import Binding
from ..errors import ConfigError, StreamMissing, TransportError
from ..handler_consumers import misspelt_types
from ..handlers import Handler
from ..provision import Provisioner
from ..publisher import Publisher
from ..schemas import SchemaRegistry
from ..settings import Settings
from ..signals import Signals
from ..stream_consumers import plan_consumers, specs_to_read
from ..subscription import Subscription
from ..topology import ConsumerSpec, StreamConsumers
from ..transports.base import Source, Transport
from .ending import Ending, caller_among
from .late_streams import LateStreams, from_their_first, late_streams
from .narrowing import Narrowing
from .patience import patiently
from .pins import Pins
from .steered import Steered

log = logging.getLogger("omni_worker.bus")


class Subscriptions:
    """Every subscription with its consumers; ``publisher`` tells the bus they are of.

    What runs longer than ``grace`` seconds (default: the setting) at an end is handed back.
    ``look_for_returns`` looks for events sent back from their dead letters.
    """

    def __init__(
        self, publisher: Publisher, settings: Settings, transport: Transport, process: str,
        look_for_returns: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._publisher = publisher
        self._process = process
        self._settings = settings  # its grace is read at the end: dev takes it away on a save
        self._bindings: dict[Subscription, Binding] = {}
        self._ending_bindings: list[Binding] = []  # whose last runs still have leases
        self._ending = Ending()
        self._transport = transport
        self._late: LateStreams | None = None
        self._narrowing: Narrowing | None = None
        self._pins: Pins | None = None
        self._look_for_returns = look_for_returns
        self.steered = Steered(publisher.name, transport, lambda: self, self._look_at_once)

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

    def add(self, subscription: Subscription, binding: Binding) -> None:
        """Register a subscription, before its consumers are bound."""
        self._bindings[subscription] = binding

    async def bind(self, binding: Binding, specs: Iterable[ConsumerSpec]) -> None:
        """Bind a handler's consumers, and change those that serve it otherwise than it needs."""
        await binding.bind(specs)
        if self._pins is not None:
            self._pins.look([binding])

    async def consumers_of(
        self,
        handler: Handler,
        transport: Transport,
        provisioner: Provisioner,
        registry: SchemaRegistry,
        signals: Signals,
    ) -> list[ConsumerSpec]:
        """Choose the consumers a handler is to read, waiting for a server that does not answer.

        A stream that was created during the wait is read from its first event.
        Raises ConfigError for one that another handler of this process reads.
        """
        settings, taken = self._settings, self.consumers
        self._late = self._late or LateStreams(self, provisioner, registry, settings, transport)
        who, planned, one_by_one = self._publisher.name, self._late.planned_for, asyncio.Lock()
        self._narrowing = self._narrowing or Narrowing(
            who, self._process, provisioner, transport, planned, one_by_one
        )
        self._pins = self._pins or Pins(who, self._process, provisioner, transport, one_by_one)
        before: set[str] | None = None  # streams that existed when the wait for another began

        async def plan() -> Sequence[StreamConsumers]:
            nonlocal before
            try:
                version = transport.server_version
                return await plan_consumers(
                    handler, provisioner, registry, settings, version, taken
                )
            except StreamMissing as error:
                before = before or {config.name for config in provisioner.standing}
                homes = {registry.get_stream(type) or "" for type in handler.literal_types} - {""}
                expected = f" (expected in stream {', '.join(sorted(homes))})" if homes else ""
                lines = misspelt_types(handler, registry)
                doubts = f"; {'; '.join(lines)} ({handler.where})" if lines else ""
                raise StreamMissing(f"{handler.function}: {error}{expected}{doubts}") from None

        wanted = await patiently(plan, settings)
        self._late.planned()
        self._refuse_taken(handler, wanted)
        late = await patiently(
            lambda: late_streams(wanted, transport.operators, provisioner.created), settings
        )
        if before is not None:
            late |= {one.stream for one in wanted} - before
        wanted = from_their_first(wanted, late)
        return await patiently(
            lambda: specs_to_read(handler, wanted, transport, provisioner, signals), settings
        )

    def _refuse_taken(self, handler: Handler, wanted: Iterable[StreamConsumers]) -> None:
        """Refuse a consumer that another handler of this process reads: they would share events."""
        names = {(spec.stream, spec.name) for one in wanted for spec in one.specs}
        for other in self.bindings:
            for bound in other.bound.values():
                if (bound.spec.stream, bound.spec.name) in names:
                    raise ConfigError(
                        f"{handler.function}: consumer {bound.spec.name!r} on {bound.spec.stream}"
                        f" already feeds {other.subscription.handler.function}, and two handlers"
                        " of a process cannot share one; give one of them another durable="
                    )

    async def refresh(self, *, busy_only: bool) -> None:
        """Read the orders to handlers now and then, and what became of the consumers."""
        if not busy_only:
            await self.steered.look()
        await self._refresh(busy_only=busy_only)
        if self._late is not None and self._narrowing is not None and not busy_only:
            await self._late.look()
            self._narrowing.look(self.bindings)
        if self._pins is not None and not busy_only:
            self._pins.look(self.bindings)

    async def _look_at_once(self) -> None:
        await asyncio.gather(self._refresh(busy_only=False), self._look_for_returns())

    async def _refresh(self, *, busy_only: bool) -> None:
        """Read the consumers from the server, all at once: the requests go out together."""
        due = [one.refresh() for one in self.bindings if one.is_busy or not busy_only]
        due += [one.refresh_leases() for one in self._ending_bindings if not busy_only]
        for result in await asyncio.gather(*due, return_exceptions=True):
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

    async def failed(self) -> Exception:
        """Wait until the transport gave up, or a subscription cannot go on; return why."""
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._transport.failed()),
            *(asyncio.shield(binding.failure) for binding in self.bindings),
        ]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            error: Exception = next(iter(done)).result()
            return error
        finally:
            waiting[0].cancel()

    async def fail(self, cause: Exception) -> None:
        """Nothing can be read any more."""
        for subscription, binding in list(self._bindings.items()):
            binding.fail(cause)
            await self.drain(subscription, 0.0)

    # --- endings ---------------------------------------------------------------------------

    async def end(self, ending: Coroutine[Any, Any, None]) -> None:
        """Await what ends them all; inside a handler it only begins."""
        inside = caller_among(self._bindings, self._publisher) is not None
        await self._ending.begin_or_await(ending, inside)

    async def unsubscribe(self, subscription: Subscription, grace: float | None) -> None:
        """End one; a handler that ends its own subscription does not wait for itself."""
        is_own = caller_among(self._bindings, self._publisher) is subscription
        await self._ending.begin_or_await(self.drain(subscription, grace), is_own)

    async def drain_all(self, grace: float | None) -> None:
        """End every one, and wait for those that are ending already."""
        for one in (self._narrowing, self._pins):
            if one is not None:
                await one.close()
        await asyncio.gather(*(self.drain(one, grace) for one in self))
        await self._ending.wait()

    async def drain(self, subscription: Subscription, grace: float | None = None) -> None:
        """End one, or wait until it has ended."""
        binding = self._bindings.pop(subscription, None)
        if binding is None:
            await self._ending.wait(subscription)
            return
        with self._ending.of(subscription):
            self._ending_bindings.append(binding)
            try:
                if self._late is not None:
                    await self._late.subjects.stop(subscription)
                await subscription.drain(self._settings.grace if grace is None else grace)
            finally:
                self._ending_bindings.remove(binding)
            if self._late is not None:
                await self._late.subjects.close(subscription)
            await binding.close()

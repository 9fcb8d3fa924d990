"""The bus: connect, publish, subscribe, close. The imperative face; an App is built on it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from ..assembly import HandlerSetup, build_subscription, settled_notes, settler_for
from ..binding import BUSY_REFRESH, REFRESH, Binding
from ..dispatch import Middleware
from ..due_retries import DueRetries
from ..errors import ConfigError, NotConnected, wrong_loop
from ..handler_consumers import doubts_about, is_shared
from ..handlers import Handler, declare, with_settings
from ..long_retries import LongRetries
from ..operations.dead_letters import DeadLetters
from ..options import HandlerOptions
from ..provision import Provisioner
from ..publisher import PublishMiddleware
from ..schedules.keeper import Schedules
from ..schemas import SchemaRegistry
from ..sent_back import Returns
from ..settings import Settings
from ..signalling_publisher import publisher_for
from ..signals import Listener, Signals
from ..subscription import Subscription
from ..subscription.gates import Gate
from ..tasks import KEEPER
from ..topology import OWN_STREAM
from ..transports.base import Transport
from .hearing import Hearing
from .latecomers import Latecomers
from .loop_lag import LoopLag
from .names import check_app_name
from .patience import patiently
from .publishing import BusPublishing
from .steerable import Steerable
from .subscriptions import Subscriptions

log = logging.getLogger("omni_worker.bus")

AnyReturns = TypeVar("AnyReturns", bound=Returns)


class EventBus(BusPublishing, Steerable):
    """Publishes and subscribes on one server, or on any other transport of the port.

    ``name`` is the app's: each event's ``metadata.source``, and the owner of its consumers. Use it
    as ``async with EventBus(…) as bus``, or call ``connect`` and ``close``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        transport: Transport | None = None,
        name: str = "omni-worker",
        registry: SchemaRegistry | None = None,
        settings: Settings | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        check_app_name(name)
        if url is not None and transport is not None:
            raise ConfigError("EventBus(url, transport=…): give one of them")
        self.settings = settings or Settings()
        if url is not None:
            self.settings = Settings(**self.settings.model_dump(exclude_unset=True) | {"urls": url})
        self.name = name
        self.id = secrets.token_hex(11)  # of this one among all that run this app
        self.registry = registry if registry is not None else SchemaRegistry()
        self.transport = transport if transport is not None else _jetstream(self.settings)
        self._hearing = Hearing(self.settings, listeners)
        self.signals = self._hearing.signals
        self.transport.watch(self._hearing.link_changed)
        self.publisher = publisher_for(self.transport, self.registry, name, self.signals)
        self.publisher.unaddressed = self.settings.unaddressed
        self.middlewares: list[Middleware] = []
        self.state: Any = None  # what the app's lifespan yields
        self.states: dict[Any, Any] = {}  # and that of each part of the app
        self.set_aside: Collection[Handler] = ()  # handlers that other processes run
        self.loop_lag = LoopLag()
        self.measures_runs = False  # of handlers that start after it is set
        self._provisioner = Provisioner(
            self.transport.operators,
            create=self.settings.provision == "on",
            replicas=self.settings.replicas,
        )
        self._latecomers = Latecomers(name, self.id, self.transport)
        self._provisioner.before_create = self._latecomers.wait
        self._subscriptions = Subscriptions(
            self.publisher, self.settings, self.transport, self.id, lambda: self._returns.look()
        )
        self._returns, self._due_retries = self._reading(Returns), self._reading(DueRetries)
        self._long_retries = LongRetries(
            name, self.transport, self._provisioner,
            least=self.settings.long_retry, create=self.settings.provision == "on",
        )  # fmt: skip
        self._long_retries.reader = self._due_retries
        self.is_to_read = False  # handlers will be started: give up as a worker does
        self.transport.gives_up = lambda: self.is_to_read or bool(self.subscriptions)
        self.schedules = Schedules(
            self.publisher,
            self.transport,
            self._provisioner,
            self.signals,
            create=self.settings.provision == "on",
        )
        self._keeper: asyncio.Task[None] | None = None
        self._connected = False
        self._loop: asyncio.AbstractEventLoop | None = None  # of the connection

    # --- life ------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Return True if the server can be reached right now."""
        return self._connected and self.transport.is_connected

    @property
    def subscriptions(self) -> list[Subscription]:
        """Subscriptions that have not been unsubscribed."""
        return list(self._subscriptions)

    async def connect(self) -> Self:
        """Connect and make the missing streams. Raises TransportError with the last cause.

        May be called again after ``close`` and after the transport gave up.
        """
        self._loop = asyncio.get_running_loop()
        self._hearing.find_tracing(self.publisher)
        await self.transport.open(self.name)
        if self.is_to_read:
            self._latecomers.ask()
        await patiently(self._provisioner.ensure_streams, self.settings)
        self.publisher.short_windows = self._provisioner.short_windows()
        self._connected = True
        self._subscriptions.steered.open()
        self.schedules.forwarder.open()
        if self._provisioner.stands(OWN_STREAM.name):
            await self.schedules.forwarder.look()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=KEEPER)
        return self

    async def close(self, grace: float | None = None) -> None:
        """Drain every subscription, then disconnect.

        Running handlers get ``grace`` seconds (default: the setting); what has not begun is handed
        back at once. Inside a handler it only begins: the bus closes when that handler has ended.
        """
        await self._subscriptions.end(self._close(grace))

    async def drain(self, grace: float | None = None) -> None:
        """End every subscription as ``close`` does, and stay connected."""
        await self._subscriptions.end(self._drain_all(grace))

    async def _close(self, grace: float | None) -> None:
        await self._drain_all(grace)
        await asyncio.gather(self._subscriptions.steered.close(), self._latecomers.close())
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self.schedules.forwarder.stop()
        if self.transport.is_connected:
            await self.transport.flush(2.0)
        await self.transport.close()
        self._connected = False

    async def _drain_all(self, grace: float | None) -> None:
        await asyncio.gather(self._returns.stop(), self._due_retries.stop())
        await self._subscriptions.drain_all(grace)
        await asyncio.gather(self._returns.close(), self._due_retries.close())

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def dead_letters(self) -> DeadLetters:
        """The server's dead letters: to list, to show, to send back, to discard."""
        return DeadLetters(
            self.transport,
            create=self.settings.provision == "on",
            replicas=self.settings.replicas,
            handlers=[*(one.handler for one in self.subscriptions), *self.set_aside],
        )

    def steering(self) -> tuple[Transport, str, list[Handler]]:
        """Return what an order needs: the transport, the app, the handlers known here."""
        self._check_connected()
        return self.transport, self.name, [one.handler for one in self.subscriptions]

    def publish_middleware(self, middleware: PublishMiddleware) -> PublishMiddleware:
        """Put ``async def (event, call_next)`` around every publish, in order of registration."""
        self.publisher.middlewares.append(middleware)
        return middleware

    # --- subscribing -----------------------------------------------------------------------

    async def subscribe(
        self,
        types: str | Sequence[str] = (),
        handler: Callable[..., Any] | None = None,
        *,
        subject: str | None = None,
        channel: str | Sequence[str] | None = None,
        instance: str | None = None,
        **options: Unpack[HandlerOptions],
    ) -> Subscription:
        """Run ``handler`` for these event types, or for a raw ``subject``, from now on.

        The options are those of ``@app.on`` (see ``omni_worker.options``). Raises ConfigError
        for a bad one, TopologyError for a stream or consumer that is in the way.
        """
        if handler is None:
            raise ConfigError("subscribe(types, handler): the handler is missing")
        record = declare(
            handler,
            app=self.name,
            types=(types,) if isinstance(types, str) else tuple(types),
            subject=subject,
            channel=channel,
            instance=instance,
            options=options,
            names=sys._getframe(1).f_locals,
        )
        return await self.run_handler(record)

    async def run_handler(
        self,
        handler: Handler,
        *,
        middlewares: Sequence[Middleware] | None = None,
        listeners: Iterable[Listener] | None = None,
        gates: Sequence[Gate] = (),
        state: Any = None,
    ) -> Subscription:
        """Run a checked declaration.

        ``middlewares`` and ``listeners`` replace the bus's own; what happens is logged either way.
        ``gates`` surround its runs alone, the first outermost; its contexts get ``state``.
        """
        self._check_connected()
        self._hearing.find_tracing(self.publisher)
        signals = self.signals if listeners is None else self._hearing.of_handler(listeners)
        if self.settings.provision == "off" and handler.options.durable is None:
            raise ConfigError(
                f"{handler.function} has no durable=, and provisioning is off"
                " (OMNI_WORKER_PROVISION): its consumer could not be made; give it durable=,"
                " and run `omni-worker plan --apply`"
            )
        handler = replace(handler, options=with_settings(handler.options, self.settings))
        specs = await self._subscriptions.consumers_of(
            handler, self.transport, self._provisioner, self.registry, signals
        )
        for line in doubts_about(handler, self.registry):
            log.warning("%s (%s)", line, handler.where)
        setup = self._setup(signals, state)
        subscription, threads = build_subscription(
            handler,
            setup,
            middlewares=self.middlewares if middlewares is None else middlewares,
            gates=gates,
            streams=len(specs),
            on_lost=self._subscriptions.on_lost,
            on_unsubscribe=self._subscriptions.unsubscribe,
        )
        binding = Binding(
            subscription,
            self.transport,
            self._provisioner,
            threads=threads,
            recreate=self.settings.provision == "on",
            keep=is_shared(handler) or self.settings.session is not None,
            signals=signals,
            settled=settled_notes(handler, setup),
        )
        self._subscriptions.add(subscription, binding)
        await self._subscriptions.steered.look()
        try:
            await patiently(lambda: self._subscriptions.bind(binding, specs), self.settings)
            # After its consumer: the first occurrence must find it.
            await patiently(lambda: self.schedules.crons.declare_for(handler), self.settings)
        except BaseException:
            await self._subscriptions.drain(subscription, 0.0)
            raise
        await self._read_returns()
        return subscription

    async def _read_returns(self) -> None:
        """Begin to read what comes back, if there may be something."""
        if self._provisioner.stands(OWN_STREAM.name):
            for returns in (self._returns, self._due_retries):
                if not returns.is_reading:
                    await returns.look()

    async def failed(self) -> Exception:
        """Wait until the transport gave up, or a subscription cannot go on; returns why."""
        return await self._subscriptions.failed()

    def _setup(self, signals: Signals | None = None, state: Any = None) -> HandlerSetup:
        return HandlerSetup(
            transport=self.transport,
            provisioner=self._provisioner,
            publisher=self.publisher,
            registry=self.registry,
            settings=self.settings,
            signals=self.signals if signals is None else signals,
            state=self.state if state is None else state,
            measured=self.measures_runs,
            long_retries=self._long_retries,
        )

    def _reading(self, kind: type[AnyReturns]) -> AnyReturns:
        return kind(
            self.name,
            self.transport,
            self._provisioner,
            subscriptions=lambda: list(self._subscriptions),
            set_aside=lambda: self.set_aside,
            settler=lambda handler: settler_for(handler, self._setup()),
            signals=self.signals,
        )

    async def _keep(self) -> None:
        """Look at the consumers now and then, until the transport gives up for good."""
        gave_up = asyncio.ensure_future(self.transport.failed())
        try:
            looked = 0.0
            while not gave_up.done():
                await self.loop_lag.wait(gave_up, BUSY_REFRESH)
                looked += BUSY_REFRESH
                if self.transport.is_connected:
                    await self._subscriptions.refresh(busy_only=looked < REFRESH)
                if looked >= REFRESH:
                    looked = 0.0
                    if self.transport.is_connected:
                        for one in (self._returns, self._due_retries, self.schedules):
                            await one.look()
        finally:
            gave_up.cancel()
        self._connected = False
        await self._subscriptions.fail(gave_up.result())
        await asyncio.gather(self._returns.close(), self._due_retries.close())
        await self.schedules.forwarder.stop()

    @property
    def warnings(self) -> list[str]:
        """Return, in words, which of the app's own readers others paused."""
        readers = (self.schedules.forwarder, self._returns, self._due_retries)
        return [one.pause.says for one in readers if one.pause.says is not None]

    def _check_connected(self) -> None:
        if self.transport.failure is not None:
            raise self.transport.failure
        if not self._connected:
            raise NotConnected("the bus is not connected: await bus.connect() first")
        if asyncio.get_running_loop() is not self._loop:
            raise wrong_loop()


def _jetstream(settings: Settings) -> Transport:
    from ..transports.jetstream import JetStreamTransport  # nats is only needed with a server

    return JetStreamTransport(settings)

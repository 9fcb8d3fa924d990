"""App: handlers declared with decorators, checked where they are written, run on any transport."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, Unpack

from .batches.declarations import BatchDeclarations
from .bus import EventBus
from .bus.names import check_app_name
from .bus.publishing import PublishingElsewhere
from .bus.steerable import Steerable
from .call_sites import Call, CallSite, shown_patterns
from .context import Context
from .crons import CronDeclarations
from .current import current_run
from .discovery import import_package
from .dispatch import Middleware
from .errors import ConfigError, NotConnected
from .extensions import (
    AnyExtension,
    Extension,
    check_extension,
    gates_of,
    listener_of,
    routes_of,
)
from .extensions import overrides as defines
from .handler_consumers import clash
from .handlers import Handler, declare
from .lifespan import alive
from .options import HandlerOptions
from .parts import (
    Declaration,
    chosen,
    extensions_of,
    included,
    lifespans_of,
    listeners_of,
    middlewares_of,
    overridden,
    parts_of,
    state_of,
)
from .publisher import PublishMiddleware
from .routes import Routes
from .schemas import SchemaRegistry
from .settings import Settings
from .signals import Listener, Signal
from .signatures import check_middleware
from .transports.base import Transport

Heard = TypeVar("Heard", bound=Callable[[Any], None])
Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]


class App(BatchDeclarations, CronDeclarations, PublishingElsewhere, Steerable):
    """The handlers of one worker, and what they share.

    ``name`` is each published event's source and owns the consumers on the server. ``lifespan``
    is an async context manager of the app; what it yields is ``ctx.state``. An App holds no
    connection: it can be run any number of times.
    """

    def __init__(
        self,
        name: str,
        *,
        registry: SchemaRegistry | None = None,
        settings: Settings | None = None,
        lifespan: Lifespan | None = None,
    ) -> None:
        check_app_name(name)
        if lifespan is not None and inspect.isasyncgenfunction(lifespan):
            raise ConfigError(f"lifespan {lifespan.__qualname__}: decorate it @asynccontextmanager")
        self.name = name
        self.registry = registry if registry is not None else SchemaRegistry()
        self.settings = settings
        self.lifespan = lifespan
        self.declarations: list[Declaration] = []
        self.middlewares: list[Middleware] = []
        self.publish_middlewares: list[PublishMiddleware] = []
        self.listeners: list[Listener] = []
        self.extensions: list[Extension] = []
        self.included: list[App] = []
        self._bus: EventBus | None = None
        self._including: dict[App, str] = {}  # whose handlers ours have become, and where

    @property
    def handlers(self) -> list[Handler]:
        """Every declared handler, included ones as well."""
        return [declaration.handler for declaration in self.declarations]

    def on(
        self,
        *types: str,
        subject: str | None = None,
        channel: str | Sequence[str] | None = None,
        instance: str | None = None,
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Call], Call]:
        """Run the decorated function for these event types; it stays a plain function.

        ``types`` may hold wildcards (``message.*``, ``custom.>``); ``subject`` is a raw pattern
        instead. ``durable`` names the consumer and must be given for what may not be lost while no
        worker runs; ``queue`` lets processes share without one; with neither every process sees
        every event. Every other option is explained in the table (``omni_worker.options``). Times
        are seconds; an option that is None takes the setting of its name.

        Raises ConfigError naming option, file and line.
        """
        site = CallSite(self, "@{}.on", shown_patterns(types, subject))
        site.refuse_bare(types, "no event type", '"message.received"')
        return site.decorator(
            lambda call: declare(
                call,
                app=self.name,
                types=types,
                subject=subject,
                channel=channel,
                instance=instance,
                options=options,
                names=site.names,
            ),
            self._add,
        )

    def middleware(self, middleware: Middleware) -> Middleware:
        """Put ``async def (ctx, event, call_next)`` around every handler, in this order."""
        check_middleware(middleware, "ctx", "event", "call_next")
        self.middlewares.append(middleware)
        return middleware

    def publish_middleware(self, middleware: PublishMiddleware) -> PublishMiddleware:
        """Put ``async def (event, call_next)`` around every publish, in this order."""
        check_middleware(middleware, "event", "call_next")
        self.publish_middlewares.append(middleware)
        return middleware

    def listen(self, function: Heard, *kinds: type[Signal]) -> Heard:
        """Call ``function(signal)`` for these kinds of signals, or for all of them.

        Usable as a decorator; the function stays as it is. It is called on the event loop and must
        be quick; an exception of it is logged and changes nothing. See ``omni_worker.signals``.
        """
        with CallSite(self, "{}.listen"):
            for one in kinds:
                if not (isinstance(one, type) and issubclass(one, Signal)):
                    raise ConfigError(f"{one!r} is no kind of signal")
            if not callable(function) or inspect.iscoroutinefunction(function):
                raise ConfigError(f"expected a plain def (signal), got {function}")
        self.listeners.append(Listener(function, kinds or (Signal,)))
        return function

    def use(self, extension: AnyExtension) -> AnyExtension:
        """Add an extension: an object whose class derives from ``Extension``; returns it.

        Extensions act in the order in which they, middlewares and listeners were added.
        """
        with CallSite(self, "{}.use"):
            check_extension(extension)
            if any(True for _ in self._buses()):
                raise ConfigError(f"app {self.name!r} is running already; call use() before that")
        self.extensions.append(extension)
        if defines(extension, "around"):
            self.middlewares.append(extension.around)
        if (listener := listener_of(extension)) is not None:
            self.listeners.append(listener)
        return extension

    def discover(self, package: str) -> list[str]:
        """Import every module of a package, for the handlers they declare; returns their names.

        What a module raises passes through. Raises ConfigError when there is no such package.
        """
        with CallSite(self, "{}.discover", f"({package!r})"):
            return import_package(package)

    def include(
        self, other: App, *, prefix: str = "", middlewares: Sequence[Middleware] = ()
    ) -> None:
        """Take over the handlers another app has by now, and everything added to that app.

        Its middlewares, listeners, extensions and lifespan act on its own handlers: there
        ``ctx.state`` is what that lifespan yields. They run under this app's name, and what they
        publish by the other one goes out by this. ``prefix`` begins the names of its durables and
        queues; ``middlewares`` are put around its handlers alone. Include it after its last
        handler: one declared later is a ConfigError there. Raises ConfigError when two of them
        want one consumer.
        """
        with CallSite(self, "{}.include", f"({other.name!r})") as site:
            if other is self:
                raise ConfigError("an app cannot include itself")
            if self._is_part_of(other):
                raise ConfigError(
                    "it includes this one already, so they would go round in a circle"
                )
            self._refuse_late()
            self.registry.include(other.registry)
            for declaration in included(self, other.declarations, prefix, middlewares):
                self._refuse_taken(declaration.handler)
                self.declarations.append(declaration)
            other._including[self] = site.where
            self.included.append(other)

    def steering(self) -> tuple[Transport, str, list[Handler]]:
        """Return what an order needs: the transport, the app, its handlers."""
        bus = self._running_bus()
        return bus.transport, bus.name, self.handlers

    @asynccontextmanager
    async def running(
        self,
        *,
        transport: Transport | None = None,
        settings: Settings | None = None,
        start: bool = True,
        only: Iterable[str] = (),
        without: Iterable[str] = (),
        lifespan: Lifespan | None = None,
        overrides: Mapping[Callable[..., Any], Any] | None = None,
    ) -> AsyncIterator[EventBus]:
        """Connect, enter the lifespan, start every handler; leaving drains in the other order.

        Extensions are entered before the lifespan and left after it; included apps' lifespans are
        entered after this app's. An exit that outlasts the grace is cancelled, and that is logged.
        ``only`` and ``without`` choose handlers by name; events sent back to the others wait for a
        process that runs them. With ``start=False`` none runs: for other work in the lifespan.
        ``lifespan`` stands in for each of them, ``overrides`` for dependencies: for tests.
        """
        if self._bus is not None:
            raise ConfigError(
                f"app {self.name!r} is running already; leave that `async with app.running()`"
                " first, or make a second App"
            )
        declarations = overridden(self.declarations, overrides)
        declarations, aside = chosen(declarations, only, without)
        bus = EventBus(
            transport=transport,
            name=self.name,
            registry=self.registry,
            settings=settings or self.settings,
            listeners=listeners_of(parts_of(self)),
        )
        bus.is_to_read = start and bool(declarations)
        extensions = self.all_extensions()
        for part in parts_of(self):
            bus.publisher.middlewares.extend(part.publish_middlewares)
        bus.publisher.stamps.extend(one.stamp for one in extensions if defines(one, "stamp"))
        bus.set_aside = aside
        try:
            await bus.connect()
            self._bus = bus
            async with alive(bus, lifespans_of(self, lifespan), extensions):
                bus.state = bus.states.get(self)
                for declaration in declarations if start else ():
                    await bus.run_handler(
                        declaration.handler,
                        middlewares=middlewares_of(declaration),
                        listeners=listeners_of(declaration.owners),
                        gates=gates_of(declaration.handler, extensions_of(declaration.owners)),
                        state=state_of(declaration, bus.states),
                    )
                yield bus
        finally:
            self._bus = None
            await bus.close()

    def run(self) -> None:
        """Run until SIGTERM, SIGHUP or SIGINT, as ``omni-worker run`` does; for ``python main.py``.

        Blocks, on a loop of its own; sets up logging if nothing has. Raises SystemExit with the
        code of a failure.
        """
        from .process.main import run_app  # above us: a program may import an App and not run it

        if code := run_app(self):
            raise SystemExit(code)

    def _run_inside(self) -> Context | None:
        """The run of a handler that the caller is part of, ours or an including app's."""
        context = current_run()
        if context is None or all(bus.publisher is not context.publisher for bus in self._buses()):
            return None
        return context

    def _by(self) -> Context | EventBus:
        """Publish by the run of a handler, or by the bus."""
        return self._run_inside() or self._running_bus()

    def _running_bus(self) -> EventBus:
        for bus in self._buses():
            return bus
        raise NotConnected(
            f"app {self.name!r} is not running, so it has no connection: publish in a handler, in"
            " the lifespan or in `async with app.running()`; without a loop, with SyncBus"
        )

    def _buses(self) -> Iterator[EventBus]:
        """Our own, and those of the apps that include us: a module publishes by its own app."""
        if self._bus is not None:
            yield self._bus
        for app in self._including:
            yield from app._buses()

    def _add(self, handler: Handler) -> None:
        """Add a declared handler. Raises ConfigError where it could not run."""
        self._refuse_late()
        self._refuse_taken(handler)
        self.declarations.append(Declaration(handler, (self,)))

    def _refuse_late(self) -> None:
        """A handler that would never run must not be declared in silence."""
        if self._bus is not None:
            raise ConfigError(
                f"app {self.name!r} is running: what is declared now is not started; declare it"
                " before app.run(), or start it with bus.subscribe(…)"
            )
        for app, where in self._including.items():
            raise ConfigError(
                f"app {app.name!r} has included app {self.name!r} already ({where}) and would not"
                " run it; include after the last declaration"
            )

    def _is_part_of(self, other: App) -> bool:
        return any(one is other or one._is_part_of(other) for one in self._including)

    def all_extensions(self) -> list[Extension]:
        """Every extension of this app and of those it includes, each once, ours first."""
        return extensions_of(parts_of(self))

    def routes(self) -> Routes:
        """Every route of the extensions. Raises ConfigError when two answer one path."""
        return routes_of(self.all_extensions())

    def _refuse_taken(self, handler: Handler) -> None:
        for other in self.handlers:
            if (why := clash(handler, other, self.registry)) is not None:
                raise ConfigError(why)

"""Extensions: what a library or a team adds to an app in one piece, by ``app.use(Extension())``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from .bus import EventBus
from .context import Context
from .dispatch import CallNext
from .errors import ConfigError
from .events import Event
from .handlers import Handler
from .publisher import Draft
from .routes import Route, Routes, RouteTable
from .signals import Listener, Signal
from .signatures import check_middleware
from .subscription.gates import Gate


class Extension:
    """Base class of extensions: every method is empty, and costs nothing until it is overridden.

    ``kinds`` are the classes of signals that ``signal`` is called with. The extension of an
    included app acts on the handlers of that app; ``stamp``, ``routes`` and ``running`` are the
    running app's, once, however many apps use the same extension.
    """

    kinds: tuple[type[Signal], ...] = (Signal,)

    def signal(self, fact: Signal) -> None:
        """Hear what happened, on the event loop: be quick. What is raised here is only logged."""

    def gates(self, handler: Handler) -> Sequence[Gate]:
        """Return the gates before each run of a handler; called once, as the handler starts."""
        return ()

    def stamp(self, draft: Draft, headers: dict[str, str]) -> None:
        """Add headers to a message that is about to be published.

        ``draft`` is a copy, complete and checked, its id included. What is raised here ends the
        publish. Dead letters are not stamped: nothing may stop them.
        """

    async def around(self, ctx: Context, event: Event[Any], call_next: CallNext) -> None:
        """Run around every handler, as a middleware does."""
        await call_next(ctx, event)

    def routes(self) -> Routes:
        """Return paths of the process's HTTP port, with the functions that answer them."""
        return {}

    def running(self, bus: EventBus) -> AbstractAsyncContextManager[Any]:
        """Return an async context around the app's life.

        Entered when the connection is open, before the lifespan; left after it, still connected.
        """
        return nullcontext()


AnyExtension = TypeVar("AnyExtension", bound=Extension)


def check_extension(extension: object) -> None:
    """Refuse what is no extension, and a method that could not be called as it is written."""
    if isinstance(extension, type):
        name = extension.__name__
        raise ConfigError(f"expected an extension, got the class {name}: write app.use({name}())")
    if not isinstance(extension, Extension):
        raise ConfigError(f"expected an Extension, got {type(extension).__name__}")
    kind = type(extension)
    for name in ("signal", "gates", "stamp", "routes", "running"):
        if inspect.iscoroutinefunction(getattr(kind, name)):
            raise ConfigError(f"{kind.__name__}.{name}: write def, not async def")
    if inspect.isasyncgenfunction(kind.running):
        raise ConfigError(f"{kind.__name__}.running: decorate it @asynccontextmanager")
    if overrides(extension, "around"):
        check_middleware(extension.around, "ctx", "event", "call_next")
    kinds = extension.kinds
    if not isinstance(kinds, tuple) or not all(
        isinstance(one, type) and issubclass(one, Signal) for one in kinds
    ):
        raise ConfigError(f"{kind.__name__}.kinds: expected a tuple of signal classes, got {kinds}")


def overrides(extension: Extension, method: str) -> bool:
    """Return True if an extension defines this method itself; if not, it is never called."""
    return getattr(type(extension), method) is not getattr(Extension, method)


def listener_of(extension: Extension) -> Listener | None:
    """The listener of an extension, if it hears signals."""
    if not overrides(extension, "signal"):
        return None
    return Listener(extension.signal, extension.kinds)


def routes_of(extensions: Iterable[Extension]) -> Routes:
    """Every route that extensions offer. Raises ConfigError when two answer one path."""
    routes: dict[str, Route] = {}
    table = RouteTable()
    for extension in extensions:
        offered = extension.routes()
        table.add(offered)
        routes.update(offered)
    return routes


def gates_of(handler: Handler, extensions: Iterable[Extension]) -> list[Gate]:
    """Return the gates that extensions put before a handler, the first outermost."""
    return [gate for one in extensions for gate in one.gates(handler)]

"""Parts: an app, the apps it includes, and what each of them adds around its handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .dispatch import Middleware
from .errors import ConfigError
from .extensions import Extension
from .handlers import Handler, find_handlers, prefixed
from .publisher import PublishMiddleware
from .signals import Listener
from .signatures import check_middleware, named


class Part(Protocol):
    """An app, seen for all that it adds to the runs of its handlers."""

    name: str
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None
    middlewares: list[Middleware]
    publish_middlewares: list[PublishMiddleware]
    listeners: list[Listener]
    extensions: list[Extension]

    @property
    def included(self) -> Sequence[Part]:
        """The parts of this part."""


@dataclass(eq=False)
class Inclusion:
    """Part for the middlewares of one `include`, around the handlers that it brings."""

    name: str
    middlewares: list[Middleware]
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None
    publish_middlewares: list[PublishMiddleware] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    extensions: list[Extension] = field(default_factory=list)
    included: Sequence[Part] = ()


@dataclass(frozen=True, slots=True)
class Declaration:
    """A handler, and the apps whose middlewares run around it, the outermost first."""

    handler: Handler
    owners: tuple[Part, ...]


def included(
    by: Part, declarations: Iterable[Declaration], prefix: str, middlewares: Sequence[Middleware]
) -> Iterator[Declaration]:
    """Yield declarations as those of the app that includes them. Raises ConfigError."""
    for middleware in middlewares:
        check_middleware(middleware, "ctx", "event", "call_next")
    around = (by, Inclusion(by.name, list(middlewares))) if middlewares else (by,)
    for one in declarations:
        handler = prefixed(replace(one.handler, app=by.name), prefix)
        yield Declaration(handler, (*around, *one.owners))


def chosen(
    declarations: Sequence[Declaration], only: Iterable[str], without: Iterable[str]
) -> tuple[list[Declaration], list[Handler]]:
    """Return what is to run, by names of handlers, and the handlers that are set aside.

    Raises ConfigError for an unknown name, and if no handler is left to run.
    """
    known = [one.handler for one in declarations]
    wanted = [one for name in only for one in find_handlers(known, name)] or known
    unwanted = [one for name in without for one in find_handlers(known, name)]
    run = [one for one in declarations if one.handler in wanted and one.handler not in unwanted]
    if known and not run:
        raise ConfigError("no handler is left to run: every one of them is excluded")
    kept = [one.handler for one in run]
    return run, [one for one in known if one not in kept]


def lifespans_of(
    app: Part, replaced: Callable[[Any], AbstractAsyncContextManager[Any]] | None
) -> list[tuple[Part, AbstractAsyncContextManager[Any]]]:
    """Return the lifespans of an app and those it includes, its own first; or what replaces all."""
    if replaced is not None:
        return [(app, replaced(app))]
    return [(one, one.lifespan(one)) for one in parts_of(app) if one.lifespan is not None]


def state_of(declaration: Declaration, states: Mapping[Part, Any]) -> Any:
    """Return what the lifespan of a handler's own app yields, or of the next one around it."""
    given = (states.get(owner) for owner in reversed(declaration.owners))
    return next((one for one in given if one is not None), None)


def parts_of(part: Part) -> list[Part]:
    """Return a part and every part below it, each once, even if included twice."""
    found = [part]
    for one in found:
        found.extend(below for below in one.included if below not in found)
    return found


def middlewares_of(declaration: Declaration) -> list[Middleware]:
    """Return the middlewares around a handler, the outermost first; an extension's once."""
    around: list[Middleware] = []
    for middleware in (one for owner in declaration.owners for one in owner.middlewares):
        repeats = isinstance(getattr(middleware, "__self__", None), Extension)
        if not repeats or middleware not in around:
            around.append(middleware)
    return around


def extensions_of(parts: Iterable[Part]) -> list[Extension]:
    """Return the extensions of parts, each once."""
    found = {id(one): one for part in parts for one in part.extensions}
    return list(found.values())


def listeners_of(parts: Iterable[Part]) -> list[Listener]:
    """Return the listeners of parts, in order."""
    return [one for part in parts for one in part.listeners]


def overridden(
    declarations: Iterable[Declaration], overrides: Mapping[Callable[..., Any], Any] | None
) -> list[Declaration]:
    """Return declarations with dependencies replaced. Raises ConfigError for an unknown one."""
    found = list(declarations)
    if not overrides:
        return found
    known = {
        one
        for declaration in found
        if declaration.handler.injected is not None
        for one in declaration.handler.injected.replaceable
    }
    for one in overrides:
        if one not in known:
            names = ", ".join(sorted(map(named, known))) or "nothing"
            raise ConfigError(
                f"overrides: no handler depends on {named(one)}; they depend on {names}"
            )
    return [
        replace(
            declaration,
            handler=replace(
                declaration.handler, injected=declaration.handler.injected.replaced(overrides)
            ),
        )
        if declaration.handler.injected is not None
        else declaration
        for declaration in found
    ]

"""Parts: an app, the apps it includes, and what each of them adds around its handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .dispatch import Middleware
from .errors import ConfigError
from .extensions import Extension
from .handlers import Handler
from .publisher import PublishMiddleware
from .signals import Listener
from .signatures import named


class Part(Protocol):
    """An app, seen for all that it adds to the runs of its handlers."""

    middlewares: list[Middleware]
    publish_middlewares: list[PublishMiddleware]
    listeners: list[Listener]
    extensions: list[Extension]

    @property
    def included(self) -> Sequence[Part]:
        """The parts of this part."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A handler, and the apps whose middlewares run around it, the outermost first."""

    handler: Handler
    owners: tuple[Part, ...]


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

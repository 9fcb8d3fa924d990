"""Needs: the parameters of a function, and what provides each; refused if nothing can."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from ..errors import ConfigError
from ..events import Event
from ..signatures import CONTEXT_NAMES, evaluated, function_of, named, unreadable
from .marks import Mark, RunContext

EVENT_NAMES = ("event",)


@dataclass(frozen=True, slots=True)
class Needs:
    """Parameters of one function: of dependencies, and those that take the event or the context."""

    dependencies: Mapping[str, Callable[..., Any]]
    events: Mapping[str, type[Event[Any]]]
    contexts: tuple[str, ...]


def marked(call: Callable[..., Any], names: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return the parameters that `Depends` marks, with what provides each."""
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        return {}  # refused elsewhere, with the words for a handler
    found = {}
    for index, parameter in enumerate(parameters):
        mark, hint = _mark_of(parameter, call, names)
        if mark is not None and (index == 0 or parameter.kind is parameter.POSITIONAL_ONLY):
            raise ConfigError(f"{named(call)}: the event comes first, then what Depends provides")
        if mark is not None:
            found[parameter.name] = _provider(mark, hint, parameter, call)
        elif index == 1:
            _refuse_unmarked(parameter, hint, call)
    return found


def _refuse_unmarked(parameter: inspect.Parameter, hint: Any, call: Callable[..., Any]) -> None:
    """Refuse a second parameter of another class: it would be given the context."""
    if parameter.default is not parameter.empty or hasattr(call, "__wrapped__"):
        return  # a decorator may pass on something other than the context
    kind = get_origin(hint) or hint
    if not isinstance(kind, type) or kind in (Any, object, UnionType):
        return
    if issubclass(kind, RunContext) or getattr(kind, "_is_protocol", False):
        return
    if hint is inspect.Parameter.empty:
        return
    shown = str(hint) if get_args(hint) else hint.__name__
    raise ConfigError(
        f"{named(call)}: its second parameter is given the context, not {shown};"
        f" write {parameter.name}: Annotated[{shown}, Depends(…)]"
    )


def needs_of(call: Callable[..., Any], names: Mapping[str, Any]) -> Needs:
    """Return who provides the parameters of a dependency. Raises ConfigError that names one."""
    dependencies, events, contexts = {}, {}, []
    for parameter in _parameters(call):
        mark, hint = _mark_of(parameter, call, names, needed=r"Depends|Event\[")
        if mark is not None:
            dependencies[parameter.name] = _provider(mark, hint, parameter, call)
        elif (event := _event_in(parameter, hint)) is not None:
            events[parameter.name] = event
        elif _is_context(parameter, hint):
            contexts.append(parameter.name)
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        elif parameter.default is parameter.empty:
            raise ConfigError(
                f"{named(call)}: nothing provides its parameter {parameter.name!r}: mark it"
                " Annotated[…, Depends(…)], give it a default, or take event: Event[Model] or"
                " ctx: Context"
            )
    return Needs(dependencies, events, tuple(contexts))


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        raise ConfigError(
            f"{named(call)}: its parameters cannot be read; wrap it in a function"
        ) from None
    for one in parameters:
        if one.kind is one.POSITIONAL_ONLY and one.default is one.empty:
            raise ConfigError(
                f"{named(call)}: its parameter {one.name!r} is positional-only, and values are"
                " given by name; take the / out of its parameters, or wrap it in a function"
            )
    return parameters


def _mark_of(
    parameter: inspect.Parameter,
    call: Callable[..., Any],
    names: Mapping[str, Any],
    *,
    needed: str = "Depends",
) -> tuple[Mark | None, Any]:
    """Return the mark of a parameter, if any, and its annotation without the mark.

    Raises ConfigError for an annotation that has a ``needed`` word and cannot be evaluated.
    """
    hint = parameter.annotation
    if isinstance(hint, str):
        try:
            hint = evaluated(hint, _written_in(call), names)
        except Exception as error:
            if re.search(needed, hint) or _as_mark(parameter.default) is not None:
                raise unreadable(call, hint, error, parameter=parameter.name) from None
            hint = inspect.Parameter.empty
    hint = getattr(hint, "__value__", hint)  # type Db = Annotated[…]
    if _as_mark(hint) is not None:
        name = parameter.name
        raise ConfigError(
            f"{named(call)}: the annotation of {name!r} is Depends(…) itself; write {name}:"
            " Annotated[Type, Depends(function)]"
        )
    if get_origin(hint) is not Annotated:
        return _as_mark(parameter.default), hint
    inner, *extras = get_args(hint)
    # The last one counts: an alias may be annotated again.
    found = next((mark for mark in map(_as_mark, reversed(extras)) if mark is not None), None)
    return found, inner


def _as_mark(value: object) -> Mark | None:
    """Return a mark, also for the one of FastAPI: functions may be shared with a web app."""
    if isinstance(value, Mark):
        return value
    if value is Mark or getattr(value, "__name__", "") == "Depends":
        return Mark(_depends_itself)
    if type(value).__name__ == "Depends" and hasattr(value, "dependency"):
        return Mark(value.dependency)
    return None


def _depends_itself() -> None:
    """Stand for a `Depends` that was not called."""


def _provider(
    mark: Mark, hint: Any, parameter: inspect.Parameter, call: Callable[..., Any]
) -> Callable[..., Any]:
    provider: Any = mark.dependency
    where = f"{named(call)}: its parameter {parameter.name!r}"
    if provider is _depends_itself:
        raise ConfigError(f"{where} has Depends without (…): write Depends(function)")
    if provider is None:
        provider = None if hint is inspect.Parameter.empty else hint
    if inspect.iscoroutine(provider):
        provider.close()
    if not callable(provider) or provider is Any:
        shown = "nothing" if provider is None else f"a {type(provider).__name__}"
        raise ConfigError(
            f"{where}: Depends is given {shown}; give it a function or a class, uncalled:"
            " Depends(function)"
        )
    found: Callable[..., Any] = provider
    return found


def _event_in(parameter: inspect.Parameter, hint: Any) -> type[Event[Any]] | None:
    if hint is inspect.Parameter.empty:
        return Event[Any] if parameter.name in EVENT_NAMES else None
    if get_origin(hint) in (Union, UnionType):  # several events, one of them is the handler's
        return Event[Any] if any(_event_in(parameter, one) for one in get_args(hint)) else None
    return hint if isinstance(hint, type) and issubclass(hint, Event) else None


def _is_context(parameter: inspect.Parameter, hint: Any) -> bool:
    if hint is inspect.Parameter.empty:
        return parameter.name in CONTEXT_NAMES
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, RunContext)


def _written_in(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose module holds the names of the annotations."""
    return call.__init__ if inspect.isclass(call) else function_of(call)


def walk(
    first: Mapping[str, Callable[..., Any]], needs: Callable[[Callable[..., Any]], Needs]
) -> Iterator[Callable[..., Any]]:
    """Yield every dependency below these, each once. Raises ConfigError for a circle."""
    done: set[Any] = set()
    path: list[Callable[..., Any]] = []

    def visit(call: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
        if call in path:
            circle = " → ".join(named(one) for one in [*path[path.index(call) :], call])
            raise ConfigError(f"dependencies go round in a circle: {circle}")
        if call in done:
            return
        path.append(call)
        for below in needs(call).dependencies.values():
            yield from visit(below)
        path.pop()
        done.add(call)
        yield call

    for call in first.values():
        yield from visit(call)

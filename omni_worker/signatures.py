"""Signatures: the parameters of a handler or a middleware, and the place in the source."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from .errors import ConfigError
from .events import Event

CONTEXT_NAMES = ("ctx", "context")
# Annotations that may name what only a type checker imports: their payload is not checked anyway.
UNCHECKED = re.compile(r"(\w+\.)*(Event(\[(\w+\.)?Any\])?|Any|object)")


def takes_context(call: Callable[..., Any], given: Collection[str] = ()) -> bool:
    """Return True for `(event, ctx)`, False for `(event)`. Raises ConfigError for all else.

    Parameters in ``given`` do not count: `Depends` provides them.
    """
    refuse_class(call)
    try:
        parameters = [
            one for one in inspect.signature(call).parameters.values() if one.name not in given
        ]
    except (TypeError, ValueError):
        raise ConfigError(f"{call!r} is not a function: expected (event) or (event, ctx)") from None
    refuse_generator(call)
    positional = [
        one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    required = [one for one in positional if one.default is one.empty]
    keyword_only = [
        one for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    ]
    if given and len(keyword_only) == 1 and keyword_only[0].name in CONTEXT_NAMES:
        keyword_only = []  # with dependencies, the context is handed over by its name
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    first = positional[0].name if positional else ""
    unbound, swapped = first in ("self", "cls"), first in CONTEXT_NAMES
    if keyword_only or len(required) > 2 or not (positional or takes_any) or unbound or swapped:
        raise ConfigError(
            f"{named(call)}{inspect.signature(call)}: a handler takes (event) or (event, ctx)"
            + ("; declare a method on its instance: app.on(…)(object.method)" if unbound else "")
            + ("; the event comes first" if swapped else "")
            + ("" if unbound or swapped else ", and more that is marked Annotated[…, Depends(…)]")
        )
    return len(required) == 2 or (len(positional) > 1 and positional[1].name in CONTEXT_NAMES)


def is_async(call: Callable[..., Any]) -> bool:
    """Return True if the function runs on the event loop; a plain `def` runs in a thread."""
    return inspect.iscoroutinefunction(function_of(call))


def event_model(
    call: Callable[..., Any], schema: type[BaseModel] | None, names: Mapping[str, Any]
) -> type[Event[Any]]:
    """Return the event type: from `schema=`, else the annotation `Event[Model]`, else any."""
    if schema is not None:
        return event_of(schema)
    parameters = list(inspect.signature(call).parameters.values())
    hint = parameters[0].annotation if parameters else inspect.Parameter.empty
    if hint is inspect.Parameter.empty:
        return Event[Any]
    hint = _evaluated(hint, function_of(call), names)
    _refuse_payload(hint, call)
    events = _events_in(hint)
    payloads: list[Any] = [event.model_fields["payload"].annotation for event in events]
    if not events or any(held is Any or isinstance(held, TypeVar) for held in payloads):
        return Event[Any]
    return events[0] if len(events) == 1 else event_of(functools.reduce(operator.or_, payloads))


def where_written(call: Callable[..., Any]) -> str:
    """Return `file:line` of a function, for people."""
    code = getattr(function_of(call), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "?"


def check_middleware(middleware: Callable[..., Any], *parameters: str) -> None:
    """Refuse a middleware that cannot be awaited around a handler or a publish."""
    expected = f"expected async def ({', '.join(parameters)})"
    if not inspect.iscoroutinefunction(function_of(middleware)):
        raise ConfigError(f"middleware {named(middleware)}: {expected}")
    try:
        inspect.signature(middleware).bind(*parameters)
    except TypeError as error:
        raise ConfigError(f"middleware {named(middleware)}: {error}; {expected}") from None


def refuse_class(call: Callable[..., Any]) -> None:
    """Refuse a class as a handler: an event would only make an object of it, and be handled."""
    while isinstance(call, functools.partial):
        call = call.func
    if inspect.isclass(call):
        name = named(call)
        raise ConfigError(
            f"{name} is a class, and an event would only make an object of it; declare the object,"
            f" if it can be called, or a method of it: app.on(…)({name}(…).method)"
        )


def refuse_generator(call: Callable[..., Any]) -> None:
    """Refuse a handler with a yield.

    Calling it runs none of its code: every event would be acknowledged and none handled.
    """
    target = function_of(call)
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise ConfigError(
            f"{named(call)} holds a yield: a generator would never run; take the yield out, publish"
            " with app.publish(…), and open what it needs in the lifespan"
        )


def function_of(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function under decorators, partials and callable objects."""
    while isinstance(call, functools.partial):
        call = call.func
    target = call if inspect.isroutine(call) else getattr(call, "__call__", call)  # noqa: B004
    function: Callable[..., Any] = inspect.unwrap(target)
    return function


def named(call: Callable[..., Any]) -> str:
    """Return the name that people use for a function."""
    while isinstance(call, functools.partial):
        call = call.func
    return str(getattr(call, "__qualname__", type(call).__name__))


def _evaluated(hint: object, function: Callable[..., Any], names: Mapping[str, Any]) -> object:
    """Evaluate an annotation that is text, with the names of the place it was written in.

    Only the annotation of the event: other names may exist only while type checking.
    """
    try:
        return evaluated(hint, function, names, extras=False)
    except Exception as error:
        if UNCHECKED.fullmatch(str(hint)):
            return None
        raise unreadable(function, hint, error, "its payload would go unchecked, so ") from None


def unreadable(
    function: Callable[..., Any], hint: object, error: Exception, why: str = "", parameter: str = ""
) -> ConfigError:
    """Return the error of an annotation that cannot be evaluated."""
    if isinstance(error, ConfigError):  # of Event[…], which says itself what was expected
        return ConfigError(f"{named(function)}: {error}")
    of = f" of {parameter!r}" if parameter else ""
    instead = ", or give schema=…" if why else ""
    return ConfigError(
        f"{named(function)}: the annotation {hint}{of} cannot be read here ({error}); {why}define"
        f" or import its names above it and outside of `if TYPE_CHECKING:`{instead}"
    )


def evaluated(
    hint: object, function: Callable[..., Any], names: Mapping[str, Any], *, extras: bool = True
) -> object:
    """Evaluate one annotation of a function, `Annotated` kept; raises whatever that raises."""
    holder: Any = SimpleNamespace(__annotations__={"hint": hint})
    hints: dict[str, object] = get_type_hints(
        holder, getattr(function, "__globals__", {}), dict(names), include_extras=extras
    )
    return getattr(hints["hint"], "__value__", hints["hint"])  # type Placed = Event[Order]


def _refuse_payload(hint: Any, call: Callable[..., Any]) -> None:
    """Refuse an annotation with the payload's model: the handler would fail on every event."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if any(_may_be_event(part) for part in parts) or hasattr(call, "__wrapped__"):
        return  # a decorator may pass on something other than the event
    shown = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    kind = get_origin(hint) or hint
    if not isinstance(kind, type):
        instead = "write Event[Model]"
    elif kind.__module__.startswith(f"{__package__}."):  # one of ours
        shown = kind.__name__
        instead = "use @app.on_batch" if shown == "Batch" else "the event comes first"
    else:
        instead = f"write Event[{shown}], and take event.payload"
    raise ConfigError(f"{named(call)}: a handler is given the event, not {shown}; {instead}")


def _may_be_event(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if not callable(kind) and not isinstance(kind, TypeVar):
        return False  # a number, a call of Depends: no type at all
    if not isinstance(kind, type) or kind is Any or getattr(kind, "_is_protocol", False):
        return True
    return issubclass(Event, kind) or issubclass(kind, Event)


def _events_in(hint: object) -> list[type[Event[Any]]]:
    """Return the event types of an annotation; for a union, each of them."""
    if isinstance(hint, type) and issubclass(hint, Event):
        return [hint]
    return [event for part in get_args(hint) for event in _events_in(part)]


def event_of(schema: Any) -> type[Event[Any]]:
    """Return the type of events whose payload is of this type."""
    model: type[Event[Any]] = Event[schema]
    return model


def shown_place(path: str, line: int) -> str:
    """Return `examples/echo.py:12`, relative if the file is below the working directory."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        relative = path
    return f"{path if relative.startswith('..') else relative}:{line}"

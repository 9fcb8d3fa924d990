"""Handlers: the record of one declaration, checked where it is written. Data only."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel

from .errors import ConfigError, InvalidSubject
from .events import Event
from .retry import RetryPolicy
from .schemas import check_name, is_model
from .settings import Settings
from .subjects import check_subject_pattern, check_type_pattern, filters_for, fold, is_wild
from .topology import StartFrom, queue_consumer_name, short_hash

MAX_PREFETCH = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a handler may ask for; None takes the setting of that name. Times are seconds."""

    queue: str | None = None
    durable: str | None = None
    start_from: StartFrom = "new"
    schema: type[BaseModel] | None = None
    validate: bool = False  # on receipt, with the registered schema
    concurrency: int | None = None
    prefetch: int | None = None  # None and no setting: adaptive
    timeout: float | None = None
    ack_wait: float | None = None
    max_retries: int | None = None
    retry_delay: float | None = None
    retry: RetryPolicy | None = None
    reject_on: tuple[type[BaseException], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One function, what it wants, and how it is run."""

    call: Callable[..., Any]
    app: str
    types: tuple[str, ...]  # patterns of types; empty with a raw subject: any type
    channels: tuple[str, ...]
    instance: str | None
    filters: tuple[str, ...]  # the subjects, folded and sorted
    model: type[Event[Any]]  # what a delivery is validated as
    options: Options
    function: str  # module and function, for people
    where: str  # file:line, for people
    wants_context: bool
    is_async: bool

    @property
    def name(self) -> str:
        """What ids, notes, letters and headers call it: stable over processes and versions."""
        if self.options.durable is not None:
            return self.options.durable
        if self.options.queue is not None:
            return queue_consumer_name(self.app, self.options.queue, self.filters)
        return f"{self.app}.{self.function}-{short_hash(self.filters)}"

    @property
    def literal_types(self) -> tuple[str, ...]:
        """The types it names without a wildcard."""
        return tuple(type for type in self.types if not is_wild(type))


def declare(
    call: Callable[..., Any],
    *,
    app: str,
    types: Sequence[str] = (),
    subject: str | None = None,
    channel: str | Iterable[str] | None = None,
    instance: str | None = None,
    options: Mapping[str, Any],
) -> Handler:
    """Check a declaration and make its record. Raises ConfigError naming the option."""
    checked = _check_options(options)
    try:
        filters = _filters(types, subject, channel, instance)
    except InvalidSubject as error:
        raise ConfigError(str(error)) from None
    wants_context = _takes_context(call)
    return Handler(
        call=call,
        app=app,
        types=tuple(types),
        channels=_channels(channel),
        instance=instance,
        filters=filters,
        model=_event_model(call, checked.schema),
        options=checked,
        function=f"{call.__module__}.{getattr(call, '__qualname__', type(call).__name__)}",
        where=_where(call),
        wants_context=wants_context,
        is_async=_is_async(call),
    )


def with_settings(options: Options, settings: Settings) -> Options:
    """The same options with every None filled from the settings that has one."""
    policy = options.retry or RetryPolicy(
        retries=settings.max_retries if options.max_retries is None else options.max_retries,
        delay=settings.retry_delay if options.retry_delay is None else options.retry_delay,
    )
    filled = {
        name: getattr(settings, name)
        for name in ("concurrency", "prefetch", "timeout", "ack_wait")
        if getattr(options, name) is None
    }
    return replace(options, retry=policy, max_retries=None, retry_delay=None, **filled)


def describe_filters(handler: Handler) -> str:
    """What a handler listens to, for people: types with channel, or the raw subjects."""
    return ", ".join(handler.filters)


def _filters(
    types: Sequence[str],
    subject: str | None,
    channel: str | Iterable[str] | None,
    instance: str | None,
) -> tuple[str, ...]:
    channels = _channels(channel)
    if subject is not None:
        if types or channels or instance:
            raise ConfigError("subject= replaces types, channel= and instance=; give one of them")
        return fold([check_subject_pattern(subject)])
    if not types:
        raise ConfigError("no event type: name at least one, or give subject=")
    for type in types:
        if not isinstance(type, str):
            raise ConfigError(f"event type {type!r}: expected a string; call @app.on(...) with one")
        check_type_pattern(type)
    return filters_for(types, channels, instance)


def _channels(channel: str | Iterable[str] | None) -> tuple[str, ...]:
    return (channel,) if isinstance(channel, str) else tuple(channel or ())


def _check_options(given: Mapping[str, Any]) -> Options:
    known = [field.name for field in fields(Options)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, "channel", "instance", "subject"], 1)
            hint = f"; did you mean {close[0]}=?" if close else f"; known: {', '.join(known)}"
            raise ConfigError(f"unknown option {name}={hint}")
    options = Options(**given)
    _check_names(options)
    _check_numbers(options)
    if options.schema is not None and not is_model(options.schema):
        raise ConfigError(f"schema={options.schema!r}: expected a pydantic model class")
    if options.retry is not None and not isinstance(options.retry, RetryPolicy):
        raise ConfigError(f"retry={options.retry!r}: expected a RetryPolicy")
    if options.retry is not None and (
        options.max_retries is not None or options.retry_delay is not None
    ):
        raise ConfigError("retry= beside max_retries= or retry_delay=: give one of them")
    _check_start(options.start_from)
    return replace(options, reject_on=_exceptions(options.reject_on))


def _check_names(options: Options) -> None:
    for option in ("durable", "queue"):
        name = getattr(options, option)
        if name is not None:
            if not isinstance(name, str):
                raise ConfigError(f"{option}={name!r}: expected a string")
            check_name(name, f"{option}={name!r}")


def _check_numbers(options: Options) -> None:
    bounds: dict[str, tuple[float, float]] = {
        "concurrency": (1, 100_000),
        "prefetch": (0, MAX_PREFETCH),
        "timeout": (0.001, 86_400),
        "ack_wait": (0.1, 86_400),
        "max_retries": (0, 1_000_000),
        "retry_delay": (0, 86_400),
    }
    for option, (low, high) in bounds.items():
        value = getattr(options, option)
        if value is None:
            continue
        whole = option in ("concurrency", "prefetch", "max_retries")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            expected = "a whole number" if whole else "seconds"
            raise ConfigError(f"{option}={value!r}: expected {expected}")
        if not low <= value <= high:
            raise ConfigError(f"{option}={value!r}: expected {low:g} to {high:g}")


def _check_start(start_from: object) -> None:
    if isinstance(start_from, datetime):
        if start_from.tzinfo is None:
            raise ConfigError(f"start_from={start_from!r}: expected a datetime with a time zone")
    elif start_from not in ("new", "first", "last"):
        raise ConfigError(
            f"start_from={start_from!r}: expected 'new', 'first', 'last' or an aware datetime"
        )


def _exceptions(given: object) -> tuple[type[BaseException], ...]:
    kinds = given if isinstance(given, tuple) else (given,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigError(f"reject_on={given!r}: expected exception classes")
    return kinds


def _takes_context(call: Callable[..., Any]) -> bool:
    """Whether it is `(event, ctx)` rather than `(event)`. Raises ConfigError for anything else."""
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        raise ConfigError(f"{call!r} is no function: expected (event) or (event, ctx)") from None
    positional = [
        one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    required = [one for one in positional if one.default is one.empty]
    keyword_only = [
        one for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    ]
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if keyword_only or len(required) > 2 or not (positional or takes_any):
        raise ConfigError(
            f"{getattr(call, '__qualname__', call)}{inspect.signature(call)}:"
            " a handler takes (event) or (event, ctx)"
        )
    return len(required) == 2 or (len(positional) > 1 and positional[1].name in ("ctx", "context"))


def _is_async(call: Callable[..., Any]) -> bool:
    target = call if inspect.isroutine(call) else getattr(call, "__call__", call)  # noqa: B004
    return inspect.iscoroutinefunction(inspect.unwrap(target)) or inspect.iscoroutinefunction(
        getattr(target, "func", None)
    )


def _event_model(call: Callable[..., Any], schema: type[BaseModel] | None) -> type[Event[Any]]:
    """`schema=`, else the model in the annotation `Event[Model]`, else any payload."""
    if schema is not None:
        return _event_of(schema)
    try:
        hints = get_type_hints(call)
    except Exception:  # a name that only exists while type checking
        return Event[Any]
    names = list(inspect.signature(call).parameters)
    hint = hints.get(names[0]) if names else None
    if isinstance(hint, type) and issubclass(hint, Event) and hint is not Event:
        held: Any = hint.model_fields["payload"].annotation
        if not isinstance(held, TypeVar) and held is not Any:
            return hint
    elif get_args(hint) and is_model(get_args(hint)[0]):
        return _event_of(get_args(hint)[0])
    return Event[Any]


def _event_of(schema: type[BaseModel]) -> type[Event[Any]]:
    model: type[Event[Any]] = Event[schema]  # type: ignore[valid-type]
    return model


def _where(call: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(call), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "?"

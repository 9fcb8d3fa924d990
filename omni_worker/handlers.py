"""Handlers: the record of one declaration, checked where it is written. Data only."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypedDict

from pydantic import BaseModel

from .errors import ConfigError, InvalidSubject
from .events import Event
from .retry import RetryPolicy
from .schemas import check_model, check_name
from .settings import Settings
from .signatures import event_model, function_of, is_async, named, takes_context, where_written
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
    exactly_once: bool = False  # one run per event among all processes; needs durable
    order_by: Callable[[Any], Hashable] | None = None  # of the event; one key runs in stream order
    breaker: int | None = None  # failures in a row that slow it to trials; 0 never


class HandlerOptions(TypedDict, total=False):
    """The same as keyword arguments of `@app.on` and `EventBus.subscribe`."""

    queue: str | None
    durable: str | None
    start_from: StartFrom
    schema: type[BaseModel] | None
    validate: bool
    concurrency: int | None
    prefetch: int | None
    timeout: float | None
    ack_wait: float | None
    max_retries: int | None
    retry_delay: float | None
    retry: RetryPolicy | None
    reject_on: type[BaseException] | tuple[type[BaseException], ...]
    exactly_once: bool
    order_by: Callable[[Any], Hashable] | None
    breaker: int | None


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
    names: Mapping[str, Any] | None = None,
) -> Handler:
    """Check a declaration and make its record. Raises ConfigError naming the option.

    ``names`` are those around the function, where its annotation may find its model.
    """
    checked = _check_options(options)
    channels = _channels(channel)
    try:
        filters = _filters(types, subject, channels, instance)
    except InvalidSubject as error:
        raise ConfigError(str(error)) from None
    if checked.queue is not None and checked.durable is None:
        name = queue_consumer_name(app, checked.queue, filters)
        check_name(name, f"queue={checked.queue!r} makes the consumer {name!r}")
    wants_context = takes_context(call)
    return Handler(
        call=call,
        app=app,
        types=tuple(types),
        channels=channels,
        instance=instance,
        filters=filters,
        model=event_model(call, checked.schema, names or {}),
        options=checked,
        function=f"{function_of(call).__module__}.{named(call)}",
        where=where_written(call),
        wants_context=wants_context,
        is_async=is_async(call),
    )


def with_settings(options: Options, settings: Settings) -> Options:
    """The same options with every None filled from the settings that has one."""
    delay = settings.retry_delay if options.retry_delay is None else options.retry_delay
    policy = options.retry or RetryPolicy(
        retries=settings.max_retries if options.max_retries is None else options.max_retries,
        delay=delay,
        cap=max(delay, RetryPolicy().cap),  # who asks for a minute does not mean half of one
    )
    filled = {
        name: getattr(settings, name)
        for name in ("concurrency", "prefetch", "timeout", "ack_wait", "breaker")
        if getattr(options, name) is None
    }
    return replace(options, retry=policy, max_retries=None, retry_delay=None, **filled)


def _filters(
    types: Sequence[str],
    subject: str | None,
    channels: tuple[str, ...],
    instance: str | None,
) -> tuple[str, ...]:
    if subject is not None:
        if types or channels or instance is not None:
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
    if channel is None:
        return ()
    if isinstance(channel, str):
        return (channel,)
    if not isinstance(channel, Iterable) or isinstance(channel, (bytes, Mapping)):
        raise ConfigError(f"channel={channel!r}: expected a string or a list of strings")
    channels = tuple(channel)
    if not channels:
        # A list somebody computed: taking it for "every channel" would be the opposite of it.
        raise ConfigError(f"channel={channel!r}: names no channel; leave it out for every one")
    return channels


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
    if options.schema is not None:
        check_model(options.schema, f"schema={options.schema!r}")
    if not isinstance(options.validate, bool):
        raise ConfigError(f"validate={options.validate!r}: expected True or False")
    if options.retry is not None and not isinstance(options.retry, RetryPolicy):
        raise ConfigError(f"retry={options.retry!r}: expected a RetryPolicy")
    if options.retry is not None and (
        options.max_retries is not None or options.retry_delay is not None
    ):
        raise ConfigError("retry= beside max_retries= or retry_delay=: give one of them")
    _check_start(options.start_from)
    if not isinstance(options.exactly_once, bool):
        raise ConfigError(f"exactly_once={options.exactly_once!r}: expected True or False")
    if options.exactly_once and options.durable is None:
        raise ConfigError("exactly_once=True needs durable=: processes must agree on a name")
    if options.order_by is not None and not callable(options.order_by):
        raise ConfigError(f"order_by={options.order_by!r}: expected a function of the event")
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
        "breaker": (0, 1_000_000),
    }
    for option, (low, high) in bounds.items():
        value = getattr(options, option)
        if value is None:
            continue
        whole = option in ("concurrency", "prefetch", "max_retries", "breaker")
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
            raise ConfigError(
                f"reject_on={given!r}: expected an exception class, or a tuple of them"
            )
    return kinds

"""Handlers: the record of one declaration, checked where it is written. Data only."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .adaptive import AUTO, Auto, auto
from .cron import Cron
from .errors import ConfigError, InvalidSubject
from .events import Event
from .injection import marked
from .options import OPTIONS, Options, check_options
from .retry import RetryPolicy
from .schemas import check_name
from .settings import Settings
from .signatures import event_model, function_of, is_async, named, takes_context, where_written
from .subjects import (
    check_subject_pattern,
    check_type,
    check_type_pattern,
    filters_for,
    fold,
    is_wild,
)
from .topology import queue_consumer_name, short_hash
from .validation import quiet

if TYPE_CHECKING:
    from .injection.injected import Injected


CRON_TYPE = "custom.cron."


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Size and time of a handler's batches, and the type of their events."""

    size: int  # events of a batch, at most
    wait: float  # seconds after the first event
    model: type[Event[Any]]
    by: Callable[[Any], Hashable] | None = None  # the key of an event: each key has its own
    quiet: float = 0.0  # seconds without a further event of the key

    @property
    def shown(self) -> str:
        """Describe it for people."""
        most = f"at most {self.size} event{'' if self.size == 1 else 's'}"
        if self.by is None:
            return f"{most}, {self.wait:g} s after the first"
        return f"by key, {most}, after {self.quiet:g} s of quiet or {self.wait:g} s in all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A declared function: the events it subscribes to, and its options."""

    call: Callable[..., Any]
    app: str
    types: tuple[str, ...]  # patterns of types; empty with a raw subject: any type
    channels: tuple[str, ...]
    instance: str | None
    filters: tuple[str, ...]  # the subjects, folded and sorted
    model: type[Event[Any]]  # a delivery is validated with it
    options: Options
    function: str  # module and function, for people
    where: str  # file:line, for people
    wants_context: bool
    is_async: bool
    injected: Injected | None = None  # what `Depends` gives it
    cron: Cron | None = None  # when its events are made, by the clock
    batch: Batching | None = None  # how many events it is given at once

    @property
    def name(self) -> str:
        """Name in ids, notes, dead letters and headers: stable across processes and versions."""
        if self.options.durable is not None:
            return self.options.durable
        if self.options.queue is not None:
            return queue_consumer_name(self.app, self.options.queue, self.filters)
        return f"{self.app}.{self.function}-{short_hash(self.filters)}"

    @property
    def short(self) -> str:
        """Name of the function: the one that people use."""
        return self.function.rpartition(".")[2]

    @property
    def shown(self) -> str:
        """Name for people: the function, followed by the durable if they differ."""
        return both_names(self.short, self.options.durable or self.short)

    @property
    def names(self) -> tuple[str, ...]:
        """All names a person may use for the handler: from logs, dead letters, metrics and code."""
        return (self.name, self.short, self.function, self.shown)

    @property
    def at_once(self) -> int:
        """Number of events that may run at once: those of all its batches, if it has batches."""
        given = self.options.concurrency or 1
        runs = given if isinstance(given, int) else auto(given).begin
        return runs * (self.batch.size if self.batch else 1)

    @property
    def adapts(self) -> Auto | None:
        """Bounds of a concurrency that adapts itself; None: it is a number."""
        given = self.options.concurrency
        return None if given is None or isinstance(given, int) else auto(given)

    @property
    def one_active(self) -> bool:
        """True if of several processes one is served at a time: it has the events of all keys."""
        has_keys = self.batch is not None and self.batch.by is not None
        return has_keys or self.options.order_by is not None

    @property
    def literal_types(self) -> tuple[str, ...]:
        """Types that the handler names without a wildcard."""
        return tuple(type for type in self.types if not is_wild(type))


def both_names(function: str, durable: str) -> str:
    """Name a handler for people: its function, with the durable where they differ."""
    return f"{function} ({durable})" if function not in ("", durable) else durable


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
    batch: Batching | None = None,
) -> Handler:
    """Check a declaration and return its record. Raises ConfigError naming the option.

    ``names`` are the local names around the function; its annotation may refer to them. The
    signature of a ``batch`` handler is checked by its caller.
    """
    checked = check_options(options)
    channels = _channels(channel)
    try:
        filters = _filters(types, subject, channels, instance)
    except InvalidSubject as error:
        raise ConfigError(str(error)) from None
    if checked.queue is not None and checked.durable is None:
        name = queue_consumer_name(app, checked.queue, filters)
        check_name(name, f"queue={checked.queue!r} makes the consumer {name!r}")
    given = {} if batch else marked(call, names or {})
    wants_context = not batch and takes_context(call, given)
    model = batch.model if batch else event_model(call, checked.schema, names or {})
    return Handler(
        call=call,
        app=app,
        types=tuple(types),
        channels=channels,
        instance=instance,
        filters=filters,
        model=model,
        options=checked,
        function=f"{function_of(call).__module__}.{named(call)}",
        where=where_written(call),
        wants_context=wants_context,
        is_async=is_async(call),
        injected=_injected(call, given, model, names or {}) if given else None,
        batch=batch,
    )


def _injected(
    call: Callable[..., Any],
    given: Mapping[str, Callable[..., Any]],
    model: type[Event[Any]],
    names: Mapping[str, Any],
) -> Injected:
    from .injection.injected import Injected  # its library is only needed with a `Depends`

    return Injected(call, given, model, names)


def complete(handler: Handler) -> None:
    """Find the types that a model names and that were defined after it, as in `Event["Later"]`.

    Raises ConfigError that names the handler if some are defined nowhere.
    """
    if not handler.model.__pydantic_complete__:
        names = getattr(function_of(handler.call), "__globals__", {})
        handler.model.model_rebuild(raise_errors=False, _types_namespace=names)
    try:
        quiet(handler.model)
    except ConfigError as error:
        raise ConfigError(f"{handler.shown}: {error} ({handler.where})") from None


def find_handler(handlers: Iterable[Handler], name: str) -> Handler:
    """Return the only handler of that name. Raises ConfigError that lists the existing names.

    A name is the durable, the consumer of a queue, the function, or module and function.
    """
    found = find_handlers(handlers, name)
    if len(found) > 1:
        several = ", ".join(f"{one.shown} at {one.where}" for one in found)
        raise ConfigError(
            f"{name} is the name of several handlers: {several};"
            " give the durable, or module and function"
        )
    return found[0]


def find_handlers(handlers: Iterable[Handler], name: str) -> list[Handler]:
    """Return all handlers of a name: a function may be declared twice. Raises ConfigError."""
    known = list(handlers)
    found = [one for one in known if name in one.names]
    if not found:
        raise ConfigError(no_handler(known, name))
    return found


def prefixed(handler: Handler, prefix: str) -> Handler:
    """Return a handler with a prefix before its durable and its queue. Raises ConfigError."""
    durable, queue = (
        name and f"{prefix}{name}" for name in (handler.options.durable, handler.options.queue)
    )
    for name in (durable, queue):
        if name is not None:
            check_name(name, f"prefix={prefix!r} makes the name {name!r}")
    handler = replace(handler, options=replace(handler.options, durable=durable, queue=queue))
    if handler.cron is None or durable is None:
        return handler
    type = cron_type(durable)  # its events have the durable's name
    return replace(handler, types=(type,), filters=_filters((type,), None, (), None))


def cron_type(durable: str) -> str:
    """Return the type of a cron's events. Raises ConfigError if the durable cannot be in one."""
    try:
        return check_type(f"{CRON_TYPE}{durable}")
    except InvalidSubject as error:
        raise ConfigError(f"durable={durable!r} names the type of its events: {error}") from None


def no_handler(handlers: Iterable[Handler], name: str) -> str:
    """Return the error text for an unknown handler name, with the name that is probably meant."""
    by_name = {called: one.shown for one in handlers for called in one.names}
    if not by_name:
        return f"no handler is called {name}; none is declared"
    close = difflib.get_close_matches(name, by_name, 1)
    meant = f"did you mean {by_name[close[0]]}? The" if close else "the"
    all = ", ".join(sorted({*by_name.values()}))
    return f"no handler is called {name}; {meant} handlers are {all}"


def with_settings(options: Options, settings: Settings) -> Options:
    """Return the options with each None replaced by the setting of the same name, if any."""
    filled = {
        name: getattr(settings, name)
        for name, option in OPTIONS.items()
        if option.setting and getattr(options, name) is None
    }
    if filled.get("concurrency") == AUTO:
        filled["concurrency"] = Auto()
    options = replace(options, **filled)
    assert options.max_retries is not None
    assert options.retry_delay is not None
    policy = options.retry or RetryPolicy(
        retries=options.max_retries,
        delay=options.retry_delay,
        # A retry_delay above the default cap raises the cap.
        cap=max(options.retry_delay, RetryPolicy().cap),
    )
    return replace(options, retry=policy, max_retries=None, retry_delay=None)


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
        # An empty list was probably computed: taking it for "every channel" would do the opposite.
        raise ConfigError(f"channel={channel!r}: names no channel; leave it out for every one")
    return channels

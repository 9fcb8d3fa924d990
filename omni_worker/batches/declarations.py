"""Declarations: `@app.on_batch`, a handler of many events at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar, Unpack, get_args, get_origin

from ..call_sites import Call, CallSite, shown_patterns
from ..errors import ConfigError
from ..events import Event
from ..handlers import Batching, Handler, declare
from ..injection import marked
from ..options import HandlerOptions, Number
from ..retry import DAY
from ..schemas import SchemaRegistry, check_model
from ..signatures import (
    evaluated,
    event_of,
    function_of,
    named,
    refuse_class,
    refuse_generator,
    unreadable,
)
from .batch import Batch

SIZE = Number(1, 10_000)
WAIT = Number(0, DAY, "s")
MOST = 100_000  # events at once, over all batches of a handler


class BatchDeclarations:
    """Declares handlers of batches."""

    name: str
    registry: SchemaRegistry

    def on_batch(
        self,
        *types: str,
        size: int | None = None,
        wait: float | None = None,
        by: Callable[[Event[Any]], Hashable] | None = None,
        quiet: float | None = None,
        subject: str | None = None,
        channel: str | Sequence[str] | None = None,
        instance: str | None = None,
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Call], Call]:
        """Run the decorated function, ``async def (batch: Batch[Model])``, for many events at once.

        A batch begins when it has ``size`` events (500), or ``wait`` seconds (1.0) after its first
        one. With ``by``, a function of the event that returns its key, each key has batches of its
        own: one begins when nothing of its key was stored for ``quiet`` seconds, ``wait`` (30)
        after its first event, or with ``size`` events (100). The other options are those of ``on``;
        ``concurrency`` is how many batches run at once: one, or ten with ``by``. Each event is
        settled by itself: see ``Batch``.

        Raises ConfigError naming option, file and line.
        """
        site = CallSite(self, "@{}.on_batch", shown_patterns(types, subject))
        site.refuse_bare(types, "no event type", '"custom.row"')
        if options.get("concurrency") is None:
            options["concurrency"] = 1 if by is None else 10

        def declared(call: Callable[..., Any]) -> Handler:
            model = _model(call, options.get("schema"), site.names)
            handler = declare(
                call,
                app=self.name,
                types=types,
                subject=subject,
                channel=channel,
                instance=instance,
                options=options,
                names=site.names,
                batch=_batching(size, wait, by, quiet, model),
            )
            _check(handler)
            return handler

        return site.decorator(declared, self._add)

    def _add(self, handler: Handler) -> None:
        raise NotImplementedError


def _batching(
    size: int | None,
    wait: float | None,
    by: Callable[[Event[Any]], Hashable] | None,
    quiet: float | None,
    model: type[Event[Any]],
) -> Batching:
    if by is None:
        if quiet is not None:
            raise ConfigError(f"quiet={quiet!r} without by=: give by=, a function of the event")
        size, wait = 500 if size is None else size, 1.0 if wait is None else wait
    else:
        if not callable(by):
            raise ConfigError(f"by={by!r}: expected a function of the event")
        if quiet is None:
            raise ConfigError("by= without quiet=: give the seconds a key has to be quiet")
        size, wait = 100 if size is None else size, max(30.0, quiet) if wait is None else wait
        WAIT(f"quiet={quiet!r}", quiet)
        if quiet > wait:
            raise ConfigError(f"quiet={quiet!r}: expected at most wait={wait!r}")
    SIZE(f"size={size!r}", size)
    WAIT(f"wait={wait!r}", wait)
    return Batching(size=size, wait=wait, model=model, by=by, quiet=quiet or 0.0)


def _check(handler: Handler) -> None:
    """Refuse options that a batch handler cannot keep."""
    if handler.options.order_by is not None:
        raise ConfigError(
            "order_by= runs one event of a key at a time, so that no batch would fill: use"
            " @app.on with order_by="
        )
    if handler.options.is_limited:
        raise ConfigError(
            "rate= and limit= count events, not batches, so that none would fill: use @app.on with"
            " them"
        )
    if handler.adapts is not None:
        raise ConfigError("concurrency= of batches: expected a whole number; only events adapt")
    if handler.at_once > MOST:
        raise ConfigError(
            f"size={handler.batch.size if handler.batch else 0} ×"
            f" concurrency={handler.options.concurrency}: expected {MOST} events at once, at most"
        )


def _check_signature(call: Callable[..., Any], names: Mapping[str, Any]) -> None:
    if given := marked(call, names):
        raise ConfigError(
            f"{named(call)}: a batch handler has no dependencies, and {next(iter(given))!r} is"
            " marked Depends: open it in the lifespan, and take it from batch.state"
        )
    refuse_class(call)
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        raise ConfigError(f"{call!r} is not a function: expected (batch)") from None
    refuse_generator(call)
    try:
        signature.bind(None)
    except TypeError:
        raise ConfigError(
            f"{named(call)}{signature}: a batch handler takes (batch); the context of an event is"
            " batch.context(event)"
        ) from None


def _model(call: Callable[..., Any], schema: Any, names: Mapping[str, Any]) -> type[Event[Any]]:
    """Return the type of the events: of `schema=`, else of the annotation `Batch[Model]`."""
    _check_signature(call, names)
    payload = schema
    if payload is not None:
        check_model(payload, f"schema={payload!r}")
    else:
        first = next(iter(inspect.signature(call).parameters.values()))
        hint: Any = first.annotation
        if hint is first.empty:
            return Event[Any]
        target = function_of(call)
        try:
            hint = evaluated(hint, target, names, extras=False)
        except Exception as error:
            raise unreadable(target, hint, error, "its payloads would go unchecked, so ") from None
        if (get_origin(hint) or hint) not in (Batch, Any, object):
            raise ConfigError(
                f"{named(call)}: a batch handler is given a Batch, not {_shown(hint)}; write"
                " batch: Batch[Model]"
            )
        payload = next(iter(get_args(hint)), Any)
        if isinstance(payload, TypeVar):
            payload = Any
    try:
        return event_of(payload)
    except ConfigError as error:
        raise ConfigError(f"{named(call)}: {error}") from None


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)

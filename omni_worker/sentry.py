"""Sentry: an extension that reports each event that is given up, once (`omni-worker[sentry]`)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from . import signals
from .context import Context
from .dispatch import CallNext
from .errors import ConfigError
from .events import Event
from .extensions import Extension
from .signals import Signal

try:
    import sentry_sdk
    from sentry_sdk.scope import Scope, use_isolation_scope
except ImportError as error:
    raise ConfigError("reports to Sentry need: pip install 'omni-worker[sentry]'") from error

KEPT = 1_000  # scopes of failed runs that wait for what becomes of their events

_Key = tuple[str, str, int]  # handler, stream, sequence


class SentryExtension(Extension):
    """Gives each run a Sentry scope, and captures the exception of an event's last attempt.

    An attempt that is retried is not reported: its dead letter is. What a handler does in its run
    (tags, breadcrumbs) is in the report. ``sentry_sdk.init`` is yours to call, before or after.
    """

    kinds = (signals.Retried, signals.DeadLettered)

    def __init__(self) -> None:
        self._scopes: OrderedDict[_Key, Scope] = OrderedDict()
        Scope.get_global_scope().add_event_processor(_without_our_letter_lines)

    async def around(self, ctx: Context, event: Event[Any], call_next: CallNext) -> None:
        """Run in a scope of its own, which is kept if the run fails."""
        with sentry_sdk.isolation_scope() as scope:
            # The scope of the worker's start would bring the breadcrumbs of all earlier events.
            scope.clear_breadcrumbs()
            scope.set_transaction_name(f"process {event.type}", source="task")
            _describe(scope, event, handler=ctx.handler, function=ctx.function)
            place = {"stream": ctx.stream, "sequence": ctx.sequence, "subject": ctx.subject}
            scope.set_context("omni_worker", {**_ids(event), **place, "attempt": ctx.attempt})
            try:
                await call_next(ctx, event)
            except BaseException:
                self._scopes[(ctx.handler, ctx.stream, ctx.sequence)] = scope
                if len(self._scopes) > KEPT:
                    self._scopes.popitem(last=False)
                raise

    def signal(self, fact: Signal) -> None:
        """Capture what was given up; forget the scope of a run that is tried again."""
        assert isinstance(fact, signals.Retried | signals.DeadLettered)
        key = (fact.handler.name, fact.stream, fact.sequence)
        scope = self._scopes.pop(key, None)
        if isinstance(fact, signals.DeadLettered):
            with use_isolation_scope(scope or _scope_without_a_run(fact)) as used:
                _capture(fact, used)


def _scope_without_a_run(letter: signals.DeadLettered) -> Scope:
    """Return a scope for an event that cannot be read, or whose process died."""
    scope = Scope.get_isolation_scope().fork()
    scope.clear_breadcrumbs()
    event, handler = letter.event, letter.handler
    _describe(scope, event, handler=handler.name, function=handler.short)
    place = {"stream": letter.stream, "sequence": letter.sequence, "subject": letter.subject}
    scope.set_context("omni_worker", {**_ids(event), **place, "attempt": letter.attempts})
    return scope


def _describe(scope: Scope, event: Event[Any] | None, *, handler: str, function: str) -> None:
    scope.set_tag("handler", handler)
    scope.set_tag("function", function)
    if event is not None:
        scope.set_tag("event_type", event.type)
        if event.channel is not None:
            scope.set_tag("channel", event.channel)
            scope.set_tag("instance", event.instance)


def _ids(event: Event[Any] | None) -> dict[str, Any]:
    if event is None:
        return {}
    return {"event": event.id, "correlation": event.metadata.correlation_id or event.id}


def _capture(letter: signals.DeadLettered, scope: Scope) -> None:
    look = f"omni-worker dead-letters show {letter.number}"
    scope.set_context("dead_letter", {
        "number": letter.number, "id": letter.letter, "attempts": letter.attempts,
        "of": letter.of, "look": look,
    })  # fmt: skip
    error = None if letter.failure is None else letter.failure.exception
    if error is not None:
        sentry_sdk.capture_exception(error)
        return
    # The exception was another process's, or the process died: without it, what it was called.
    scope.fingerprint = ["omni-worker", letter.handler.name, letter.error_type, letter.error]
    sentry_sdk.capture_message(f"dead letter: {letter.error}", level="error")


def _without_our_letter_lines(event: Any, hint: dict[str, Any]) -> Any:
    """Drop what Sentry makes of our log line of a dead letter: it is reported already."""
    record = hint.get("log_record")
    return None if getattr(record, "omni_signal", "") == "DeadLettered" else event

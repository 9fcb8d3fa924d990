"""Dispatch: one delivery becomes one outcome. A handler's fault never escapes from here.

It reads the event, decides whether it is this handler's, runs the function behind its middlewares
and turns every ending into a value. Answering the server is settle's business.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import ValidationError

from .context import Context
from .current import current_context
from .errors import InvalidEvent, InvalidPayload
from .events import Event, came_on, raw_metadata, set_slot
from .failures import members_of
from .finite import payload_is_finite
from .handlers import Handler, complete
from .outcomes import Failed, HandBack, Outcome, Reject, Rejected, Retry, Skip
from .schemas import Invalid, SchemaRegistry
from .subjects import matches, parse_subject, prefixes_of
from .threads import DaemonThreads
from .transports.base import Delivery
from .transports.returned import Identity, identity_of, stored_at_of
from .validation import explain, quiet
from .wire import (
    LARGE,
    SchemaMismatch,
    Unreadable,
    is_history,
    is_replay,
    may_hold_nan,
    read_envelope,
    to_event,
    was_replayed,
)

CallNext = Callable[[Context, Event[Any]], Awaitable[None]]
Middleware = Callable[[Context, Event[Any], CallNext], Awaitable[None]]

FOREIGN_DELAY = 10.0  # seconds until a delivery for another version of this consumer comes again
BODY_DELAY = 5.0  # seconds until a delivery without its body comes again
BODY_TRIES = 5  # deliveries without its body, until the lack is the event's own
LACKING_REMEMBERED = 10_000  # events whose deliveries without a body are counted
SIZE_HEADER = b"nats-msg-size:"  # of a delivery of headers only
TYPES_REMEMBERED = 1_024
LONGEST_REMEMBERED = 256  # characters of a type
_N, _I = b"NI"  # N and I begin NaN and Infinity: a body without them holds neither


class TimedOut(Exception):
    """The handler ran longer than its ``timeout``."""


class Dispatcher:
    """Run deliveries through one handler, or through ``innermost`` in place of its function."""

    def __init__(
        self,
        handler: Handler,
        *,
        registry: SchemaRegistry,
        middlewares: Sequence[Middleware] = (),
        threads: DaemonThreads | None = None,
        innermost: CallNext | None = None,
    ) -> None:
        self._handler = handler
        self._registry = registry
        self._model = handler.model
        complete(handler)
        self._validate = quiet(handler.model).validate_json
        self._reject_on: tuple[type[BaseException], ...] = (Reject, *handler.options.reject_on)
        self._is_finite = payload_is_finite(handler.model)
        self._wanted: dict[str, bool] = {}  # by type
        self._lacking: dict[Identity, int] = {}  # deliveries without the event's body
        self._prefixes: dict[str, tuple[str, ...]] = {}  # of subjects that are ours, by type
        self._validates = handler.options.validate
        self._live_only = handler.options.live_only
        self._is_choosy = self._validates or self._live_only
        # The handler behind its middlewares. The caller turns what it raises into an ``ending``.
        self.call = _chain(innermost or _innermost(handler, threads), middlewares)
        # The handler itself, if nothing is around it and it takes only its event.
        self.bare: Callable[[Event[Any]], Awaitable[None]] | None = None
        takes_more = handler.wants_context or handler.injected is not None
        if handler.is_async and not takes_more and not middlewares and innermost is None:
            self.bare = handler.call

    def read(self, delivery: Delivery) -> Event[Any] | Outcome:
        """Read the event of a delivery, or return the outcome if it is not for this handler."""
        # Flat, for it is done for every event.
        body, event, is_finite = delivery.body, None, self._is_finite
        has_no_nan = is_finite or not ((_N in body or _I in body) and may_hold_nan(body))
        if has_no_nan and len(body) <= LARGE:
            try:
                event = self._validate(body)
            except ValidationError:
                event = None
        # What the payload cannot hold, unknown keys of the envelope can.
        if event is None or (is_finite and event.__pydantic_extra__ and may_hold_nan(body)):
            return self._read_slowly(delivery)
        subject, type = delivery.subject, event.type
        prefixes = self._prefixes.get(type)
        if prefixes is None or not subject.startswith(prefixes):
            refused = self._refused(subject, type)
            if refused is not None:
                return refused
        set_slot(event, "_address", (subject, type))  # as ``came_on``, without the call
        return self._admitted(event, body) if self._is_choosy else event

    async def run(self, event: Event[Any], context: Context) -> Outcome:
        """Run the handler; every way it can end is an outcome."""
        current_context.set(context)
        try:
            await self.call(context, event)
        except BaseException as error:
            return self.ending(error)
        finally:
            current_context.set(None)
        return context.ended

    def ending(self, error: BaseException) -> Outcome:
        """Turn an exception into the outcome of its run; raise it again if the loop is gone."""
        if isinstance(error, self._reject_on):
            return Rejected(error)
        if isinstance(error, Retry):
            return Failed(error, error.after)
        if isinstance(error, ExceptionGroup):
            return self._ending_of(error)
        # SystemExit, KeyboardInterrupt and CancelledError a handler raises are failures like any
        # other. Not when the loop is gone: then the run's frame is only being torn down.
        if not isinstance(error, Exception) and asyncio._get_running_loop() is None:
            raise error
        return Failed(error)

    def _ending_of(self, group: ExceptionGroup[Exception]) -> Outcome:
        """Decide the outcome of a TaskGroup: the ending all its tasks asked for, else a failure.

        Next to another failure, which may be temporary, neither Reject nor Retry decides.
        """
        errors = list(members_of(group))
        if all(isinstance(error, self._reject_on) for error in errors):
            return Rejected(errors[0])
        retries = [error for error in errors if isinstance(error, Retry)]
        if len(retries) == len(errors):
            longest = max(retries, key=lambda error: error.after or 0.0)
            return Failed(longest, longest.after)
        return Failed(group)

    def _read_slowly(self, delivery: Delivery) -> Event[Any] | Outcome:
        """Read again what the fast pass refused: lenient, and with a reason."""
        subject = delivery.subject
        try:
            stored_at = stored_at_of(delivery) // 1_000_000
            envelope = read_envelope(delivery.body, stored_at=stored_at)
            # The type comes first: another type's payload need not fit our model.
            refused = self._refused(subject, envelope.type)
            if refused is not None:
                return refused
            if self._live_only and is_history(envelope.metadata):
                return Skip(envelope.type)
            try:
                event = to_event(self._model, envelope)
            except SchemaMismatch:
                # It ran when it was new; what was added or left out since is not worth a letter.
                if is_replay(envelope.metadata, envelope.payload):
                    return Skip(envelope.type)
                raise
            return self._admitted(came_on(event, subject), envelope.body)
        except InvalidEvent as error:
            if not any(matches(one, subject) for one in self._handler.filters):
                return _foreign(subject)
            if self._lacks_body(delivery):
                return HandBack(BODY_DELAY, "its consumer delivers headers only", bodiless=True)
            return Rejected(error, unreadable=True)

    def _lacks_body(self, delivery: Delivery) -> bool:
        """Return True for an event whose consumer others have set to deliver headers only.

        That is undone within seconds. A publisher's own header of this name delays an empty body.
        """
        if delivery.body or SIZE_HEADER not in (delivery.raw_headers or b"").lower():
            return False
        # Counted here: an event that failed was delivered often before, and with its body.
        lacking, identity = self._lacking, identity_of(delivery)
        tries = lacking.pop(identity, 0) + 1
        if tries >= BODY_TRIES:
            return False
        if len(lacking) >= LACKING_REMEMBERED:
            del lacking[next(iter(lacking))]
        lacking[identity] = tries
        return True

    def _refused(self, subject: str, type: str) -> Outcome | None:
        """Return the outcome of an event that is not ours, else None. The subject comes first."""
        if not any(matches(one, subject) for one in self._handler.filters):
            return _foreign(subject)
        try:
            parse_subject(subject, type)
        except InvalidEvent as error:
            return Rejected(Unreadable(str(error)), unreadable=True)
        if not self._wants(type):
            return Skip(type)
        if type not in self._prefixes and len(type) <= LONGEST_REMEMBERED:
            if len(self._prefixes) >= TYPES_REMEMBERED:
                self._prefixes.clear()
            self._prefixes[type] = prefixes_of(type, self._handler.filters)
        return None

    def _admitted(self, event: Event[Any], body: bytes) -> Event[Any] | Outcome:
        """Return the event if the options of the handler want it, else the outcome."""
        if self._live_only and is_history(raw_metadata(event)):
            return Skip(event.type)
        if self._validates:
            try:
                checked = self._registry.validate(event.type, event.payload)
            except BaseException as error:  # of a validator of its model, SystemExit too
                raised = error if isinstance(error, Exception) else RuntimeError(repr(error))
                checked = Invalid(explain(raised))
            if isinstance(checked, Invalid):
                if was_replayed(raw_metadata(event), body):
                    return Skip(event.type)
                mismatch = InvalidPayload(f"{event.type}: {checked.error}")
                return Rejected(mismatch, unreadable=True)
            event.payload = checked.value
        return event

    def _wants(self, type: str) -> bool:
        wanted = self._wanted.get(type)
        if wanted is None:
            types = self._handler.types
            wanted = not types or any(matches(one, type) for one in types)
            # Types are a publisher's text: a stream of new ones must not grow our memory.
            if len(self._wanted) >= TYPES_REMEMBERED:
                self._wanted.clear()
            if len(type) <= LONGEST_REMEMBERED:
                self._wanted[type] = wanted
        return wanted


def _foreign(subject: str) -> HandBack:
    reason = f"{subject} matches no filter of this version of the handler"
    return HandBack(FOREIGN_DELAY, reason, foreign=True)


def _innermost(handler: Handler, threads: DaemonThreads | None) -> CallNext:
    """Wrap the function as a coroutine of (ctx, event), in a thread if it is a plain def."""
    call, injected = handler.call, handler.injected
    if handler.is_async:
        if injected is not None:
            run = injected.run
            return lambda context, event: run(event, context)
        if handler.wants_context:
            return lambda context, event: call(event, context)
        return lambda context, event: call(event)
    assert threads is not None, "a plain def handler needs threads"
    pool = threads

    async def in_thread(context: Context, event: Event[Any]) -> None:
        if injected is not None:
            result = await pool.run(lambda: injected.run_in_thread(event, context))
        else:
            arguments = (event, context) if handler.wants_context else (event,)
            result = await pool.run(lambda: call(*arguments))
        if inspect.isawaitable(result):  # a callable that only hands out coroutines
            await result

    return in_thread


def _chain(innermost: CallNext, middlewares: Sequence[Middleware]) -> CallNext:
    call = innermost
    for middleware in reversed(middlewares):
        call = _around(middleware, call)
    return call


def _around(middleware: Middleware, call_next: CallNext) -> CallNext:
    def around(context: Context, event: Event[Any]) -> Awaitable[None]:
        return middleware(context, event, call_next)

    return around

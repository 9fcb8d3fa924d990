"""Context: the second argument of a handler, and the context that runs right now."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Generic, TypeVar

from typing_extensions import TypeVar as TypeVarWithDefault

from .errors import ConfigError, InvalidPayload, wrong_loop
from .events import Event, Published, names_of, raw_metadata
from .ids import derived_id, other_ids
from .injection import RunContext
from .outcomes import DONE, Failed, Outcome
from .publisher import DEFAULT_TIMEOUT, Draft, EventFields, Publisher, draft_of
from .publisher.outputs import is_stored
from .schedules.atomic import Cause
from .schedules.due import When
from .schedules.keeper import schedules_of
from .schedules.messages import Scheduled
from .schedules.outbox import Outbox
from .schedules.publishing import Publishing
from .subjects import build_subject
from .trace_context import BAGGAGE, trace_headers
from .transports.base import Delivery
from .transports.headers import parse_headers
from .transports.returned import identity_of, stored_at_of
from .wire import TRACEPARENT, encode_payload, read_traceparent, was_replayed

T = TypeVar("T")
State = TypeVarWithDefault("State", default=Any)

# UUIDv5 of incoming event, handler, subject, payload digest and ordinal among identical publishes.
_NAMESPACE = uuid.UUID("2b0d2f5a-7a0f-5e9b-8f5e-7f6a5d1c3e90").bytes
_TRACEPARENT, _BAGGAGE = TRACEPARENT.encode(), BAGGAGE.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """Facts that all runs of one handler share."""

    handler: str
    publisher: Publisher
    loop: asyncio.AbstractEventLoop
    function: str = ""  # its name, for people
    state: Any = None  # the value that the app's lifespan yields
    replay: bool = False
    on_taken: Callable[[Delivery, Published], None] | None = None  # another message has its id


class _Call:
    """A publish that a run asked for; dropped before it began, it makes the run fail.

    Its coroutine holds it alone: Python drops both together.
    """

    __slots__ = ("_context", "_name", "is_begun")

    def __init__(self, context: Context[Any], name: str) -> None:
        self._context = context
        self._name = name
        self.is_begun = False

    def __del__(self) -> None:
        if not self.is_begun:
            name = self._name
            error = ConfigError(
                f"{name}(…) was called and never awaited, so nothing was published: write"
                f" await ctx.{name}(…), in a plain def handler ctx.wait(ctx.{name}(…))"
            )
            self._context.ended = Failed(error)


class Context(RunContext, Publishing, Generic[State]):
    """A run of a handler: its event, the number of the attempt, and publishing as part of it.

    ``Context[Resources]`` says what the lifespan yields, so that ``ctx.state`` is checked.
    """

    __slots__ = (
        "_around",
        "_counts",
        "_delivery",
        "_local",
        "_log",
        "attempt",
        "ended",
        "event",
        "first_seen",
    )

    def __init__(
        self,
        event: Event[Any],
        delivery: Delivery,
        attempt: int,
        first_seen: float,
        around: RunSetup,
    ) -> None:
        self.event = event
        self.attempt = attempt  # 1 is the first
        self._delivery = delivery
        self.first_seen = first_seen  # epoch seconds
        self._around = around
        self.ended: Outcome = DONE  # how the run ends if its handler returns
        self._counts: dict[str, int] | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self._local: dict[str, Any] | None = None

    @property
    def state(self) -> State:
        """Value that the app's lifespan yields."""
        state: State = self._around.state
        return state

    @property
    def local(self) -> dict[str, Any]:
        """Values of this run alone: what a middleware hands to its handler and dependencies."""
        if self._local is None:
            self._local = {}
        return self._local

    @property
    def replay(self) -> bool:
        """True if a past event runs again, by ``omni-worker replay`` or by Omni's own replay."""
        return self._around.replay or was_replayed(raw_metadata(self.event), self._delivery.body)

    @property
    def handler(self) -> str:
        """Stable name of the handler, as dead letters and ids use it."""
        return self._around.handler

    @property
    def function(self) -> str:
        """Name of the handler's function, for people."""
        return self._around.function or self._around.handler

    @property
    def publisher(self) -> Publisher:
        """Publisher that this run publishes with."""
        return self._around.publisher

    @property
    def subject(self) -> str:
        """Subject the event arrived on."""
        return self._delivery.subject

    @property
    def stream(self) -> str:
        """Stream the event was read from."""
        return identity_of(self._delivery).stream

    @property
    def sequence(self) -> int:
        """Sequence of the event in that stream."""
        return identity_of(self._delivery).sequence

    @property
    def first_delivered(self) -> datetime:
        """Time of the first delivery of this event to this process, in UTC."""
        return datetime.fromtimestamp(self.first_seen, UTC)

    @property
    def headers(self) -> dict[str, list[str]]:
        """Headers of the message, name → values."""
        return parse_headers(self._delivery.raw_headers)

    def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> Coroutine[Any, Any, Sequence[Published]]:
        """Publish many caused events, pipelined, in order; raises as ``EventBus.publish_many``."""
        return self._publish_many(_Call(self, "publish_many"), drafts, timeout)

    def _publish(
        self, type: str, payload: Any, timeout: float, fields: EventFields
    ) -> Coroutine[Any, Any, Published]:
        return self._publish_one(_Call(self, "publish"), type, payload, timeout, fields)

    async def _publish_one(
        self, call: _Call, type: str, payload: Any, timeout: float, fields: EventFields
    ) -> Published:
        self._begin(call)
        draft = draft_of(type, payload, fields)
        same = self._cause(draft)
        published = await self._around.publisher.publish(draft, timeout=timeout)
        if published.duplicate and same is not None:
            return await self._until_stored(draft, published, same, timeout)
        return published

    async def _publish_many(
        self, call: _Call, drafts: Iterable[Draft], timeout: float
    ) -> Sequence[Published]:
        self._begin(call)
        publisher = self._around.publisher
        if not isinstance(drafts, Collection):  # what was read of it is gone: only sent, not kept
            caused = (draft for draft, _ in map(self._caused, drafts))
            return await publisher.publish_many(caused, timeout=timeout)
        sent = [self._caused(draft) for draft in drafts]
        done = [*await publisher.publish_many([draft for draft, _ in sent], timeout=timeout)]
        for index, (draft, same) in enumerate(sent):
            if same is not None and done[index].duplicate:
                done[index] = await self._until_stored(draft, done[index], same, timeout)
        return done

    async def _until_stored(
        self, draft: Draft, published: Published, same: str, timeout: float
    ) -> Published:
        """Take the next id as long as what has this one is another message than ours."""
        publisher, ids = self._around.publisher, other_ids(published.id)
        while published.duplicate and published.id == draft.id:
            if await is_stored(publisher, published, same):
                break
            if self._around.on_taken is not None:
                self._around.on_taken(self._delivery, published)
            draft.id = next(ids)
            published = await publisher.publish(draft, timeout=timeout)
        return published

    def cancel(self, scheduled: Scheduled | str) -> Coroutine[Any, Any, bool]:
        """Cancel a scheduled event; one that a newer event than this one scheduled stays."""
        cause = stored_at_of(self._delivery)
        return schedules_of(self.publisher).cancel(scheduled, cause=cause)

    def _schedule(
        self, type: str, payload: Any, timeout: float, fields: EventFields, when: When
    ) -> Coroutine[Any, Any, Scheduled]:
        return self._schedule_one(_Call(self, "publish"), type, payload, timeout, fields, when)

    async def _schedule_one(
        self, call: _Call, type: str, payload: Any, timeout: float, fields: EventFields, when: When
    ) -> Scheduled:
        self._begin(call)
        draft = draft_of(type, payload, fields)
        self._cause(draft)
        cause = stored_at_of(self._delivery)
        return await schedules_of(self.publisher).publish(draft, when, cause=cause, timeout=timeout)

    def _for_atomic(self) -> tuple[Publisher, Outbox, Cause]:
        self._check_loop()
        return self.publisher, schedules_of(self.publisher).outbox, self._cause

    def _begin(self, call: _Call) -> None:
        call.is_begun = True
        self._check_loop()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._around.loop:
            raise wrong_loop()

    def wait(self, awaitable: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result, in a plain `def` handler.

        ``ctx.wait(ctx.publish(…))``. Raises ConfigError on the loop itself: use await there.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(awaitable, self._around.loop).result()
        awaitable.close()
        raise ConfigError(
            "ctx.wait is for plain def handlers, which run in a thread: use await here"
        )

    @property
    def correlation_id(self) -> str:
        """Correlation id of the incoming event, or its id if it has none."""
        return self.event.metadata.correlation_id or self.event.id

    @property
    def trace_id(self) -> str:
        """Trace id of the incoming event, or its id if it has none."""
        return self.event.metadata.trace_id or self.event.id

    @property
    def traceparent(self) -> str | None:
        """W3C trace context of the incoming event; events published here carry it on."""
        raw = self._delivery.raw_headers
        if raw is None or _TRACEPARENT not in raw.lower():  # cheaper than parsing all headers
            return None
        return read_traceparent(self.headers)

    def _trace_headers(self) -> dict[str, str] | None:
        """Return the trace context of the incoming event, for the events it causes."""
        raw = self._delivery.raw_headers
        if raw is None:
            return None
        found = raw.lower()
        if _TRACEPARENT not in found and _BAGGAGE not in found:
            return None
        return trace_headers(self.headers)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger whose lines carry event, type, handler, attempt, correlation and trace."""
        if self._log is None:
            self._log = RunLog(logging.getLogger("omni_worker.handler"), event_fields(self))
        return self._log

    def _caused(self, draft: Draft) -> tuple[Draft, str | None]:
        """Return a caused copy of a draft, and what its id is derived from."""
        caused = replace(draft)
        return caused, self._cause(caused)

    def _cause(self, draft: Draft) -> str | None:
        """Make a draft an event of this run: inherit what is not given, and derive its id.

        Return subject and digest that the id is derived from, None for a given id.
        """
        metadata = raw_metadata(self.event)
        same = self._derive_id(draft) if draft.id is None else None
        draft.correlation_id = (
            draft.correlation_id or metadata.get("correlationId") or self.correlation_id
        )
        draft.trace_id = draft.trace_id or metadata.get("traceId") or self.trace_id
        if draft.traceparent is None:
            draft.trace_headers = self._trace_headers()
        inherited: dict[str, Any] = {"causationId": self.event.id}
        tenant, version = metadata.get("tenantId"), metadata.get("envelopeVersion")
        # Always both: one without the other is refused by the programs that read them.
        if tenant is not None and version is not None:
            inherited |= {"tenantId": tenant, "envelopeVersion": version}
        if not draft.metadata:
            draft.metadata = inherited
        else:
            with suppress(TypeError):  # publishing refuses what is no mapping, with an error text
                draft.metadata = inherited | {**draft.metadata}
        return same

    def _derive_id(self, draft: Draft) -> str:
        subject = build_subject(draft.type, draft.channel, draft.instance)
        try:
            draft.content = content = encode_payload(draft.type, draft.payload)
        except InvalidPayload:  # publishing refuses it later, with an error text
            content = b""
        same = f"{subject}\n{sha256(content).hexdigest()}"
        counts = self._counts = self._counts or {}
        counts[same] = nth = counts.get(same, 0) + 1
        name = f"{self.event.id}\n{self._around.handler}\n{same}\n{nth}"
        draft.id = derived_id(_NAMESPACE, name)
        return same


class RunLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the fields of a run to each line; a line's own ``extra`` is kept."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, Any]:
        """Merge the fields."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def event_fields(context: Context) -> dict[str, Any]:
    """Return the log fields that identify one run; never its payload.

    Their names begin with ``omni_``: a line of any library may have fields of its own.
    """
    names = names_of(context.event)
    return {
        **{f"omni_{name}": value for name, value in names.items()},
        "omni_handler": context.handler,
        "omni_function": context.function,
        "omni_attempt": context.attempt,
    }

"""Context: the second argument of a handler, and the context that runs right now."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Collection, Coroutine, Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar, Unpack

from .errors import ConfigError, InvalidPayload
from .events import Event, Published, names_of, raw_metadata
from .ids import derived_id
from .publisher import DEFAULT_TIMEOUT, Draft, EventFields, Publisher, draft_of
from .subjects import build_subject
from .transports.base import Delivery
from .transports.headers import parse_headers
from .wire import TRACEPARENT, encode_payload, read_traceparent, was_replayed

T = TypeVar("T")

# UUIDv5 of incoming event, handler, subject, payload digest and ordinal among identical publishes.
_NAMESPACE = uuid.UUID("2b0d2f5a-7a0f-5e9b-8f5e-7f6a5d1c3e90").bytes
_TRACEPARENT = TRACEPARENT.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """Facts that all runs of one handler share."""

    handler: str
    publisher: Publisher
    loop: asyncio.AbstractEventLoop
    state: Any = None  # the value that the app's lifespan yields
    replay: bool = False


class Context:
    """A run of a handler: its event, the number of the attempt, and publishing as part of it."""

    __slots__ = ("_around", "_counts", "_delivery", "_first_seen", "_log", "attempt", "event")

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
        self._first_seen = first_seen
        self._around = around
        self._counts: dict[str, int] | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def state(self) -> Any:
        """Value that the app's lifespan yields."""
        return self._around.state

    @property
    def replay(self) -> bool:
        """True if a past event runs again, by ``omni-worker replay`` or by Omni's own replay."""
        return self._around.replay or was_replayed(raw_metadata(self.event), self._delivery.body)

    @property
    def handler(self) -> str:
        """Stable name of the handler, as dead letters and ids use it."""
        return self._around.handler

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
        return self._delivery.source.stream

    @property
    def sequence(self) -> int:
        """Sequence of the event in that stream."""
        return self._delivery.sequence

    @property
    def first_delivered(self) -> datetime:
        """Time of the first delivery of this event to this process, in UTC."""
        return datetime.fromtimestamp(self._first_seen, UTC)

    @property
    def headers(self) -> dict[str, list[str]]:
        """Headers of the message, name → values."""
        return parse_headers(self._delivery.raw_headers)

    async def publish(
        self,
        type: str,
        payload: Any = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        **fields: Unpack[EventFields],
    ) -> Published:
        """Publish an event this one caused.

        Correlation, trace and tenant are inherited, and the incoming event is the ``causationId``;
        channel and instance never are. The id is derived from
        the incoming event: a second run of the handler publishes the same id, and the server keeps
        one copy. A given ``id`` wins. Raises as ``EventBus.publish`` does.
        """
        draft = draft_of(type, payload, fields)
        self._cause(draft)
        return await self._around.publisher.publish(draft, timeout=timeout)

    async def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> list[Published]:
        """Publish many caused events, pipelined, in order; raises as ``EventBus.publish_many``."""
        caused = map(self._caused, drafts)
        return await self._around.publisher.publish_many(
            list(caused) if isinstance(drafts, Collection) else caused, timeout=timeout
        )

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

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logger whose lines carry event, type, handler, attempt, correlation and trace."""
        if self._log is None:
            self._log = logging.LoggerAdapter(
                logging.getLogger("omni_worker.handler"), event_fields(self)
            )
        return self._log

    def _caused(self, draft: Draft) -> Draft:
        """Return a caused copy of a draft; the caller's draft is not changed."""
        caused = replace(draft)
        self._cause(caused)
        return caused

    def _cause(self, draft: Draft) -> None:
        """Make a draft an event of this run: inherit what is not given, and derive its id."""
        metadata = raw_metadata(self.event)
        if draft.id is None:
            draft.id = self._derived_id(draft)
        draft.correlation_id = (
            draft.correlation_id or metadata.get("correlationId") or self.correlation_id
        )
        draft.trace_id = draft.trace_id or metadata.get("traceId") or self.trace_id
        draft.traceparent = draft.traceparent or self.traceparent
        inherited: dict[str, Any] = {"causationId": self.event.id}
        tenant, version = metadata.get("tenantId"), metadata.get("envelopeVersion")
        # Always both: one without the other is refused by the programs that read them.
        if tenant is not None and version is not None:
            inherited |= {"tenantId": tenant, "envelopeVersion": version}
        if not draft.metadata:
            draft.metadata = inherited
            return
        with suppress(TypeError):  # publishing refuses what is no mapping, with an error text
            draft.metadata = inherited | {**draft.metadata}

    def _derived_id(self, draft: Draft) -> str:
        subject = build_subject(draft.type, draft.channel, draft.instance)
        try:
            draft.content = content = encode_payload(draft.type, draft.payload)
        except InvalidPayload:  # publishing refuses it later, with an error text
            content = b""
        same = f"{subject}\n{sha256(content).hexdigest()}"
        if self._counts is None:
            self._counts = {}
        self._counts[same] = nth = self._counts.get(same, 0) + 1
        return derived_id(_NAMESPACE, f"{self.event.id}\n{self._around.handler}\n{same}\n{nth}")


def event_fields(context: Context) -> dict[str, Any]:
    """Return the log fields that identify one run; never its payload."""
    return {
        **names_of(context.event),
        "handler": context.handler,
        "attempt": context.attempt,
    }


current_context: ContextVar[Context | None] = ContextVar("omni_worker_context", default=None)

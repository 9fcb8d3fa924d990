"""Context: what a handler holds besides its event, and which context runs right now."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Collection, Coroutine, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar, Unpack

from .errors import ConfigError, InvalidPayload
from .events import Event, Published, names_of
from .ids import derived_id
from .publisher import DEFAULT_TIMEOUT, Draft, EventFields, Publisher, draft_of
from .subjects import build_subject
from .transports.base import Delivery
from .transports.headers import parse_headers
from .wire import TRACEPARENT, encode_payload, read_traceparent

T = TypeVar("T")

# UUIDv5 of incoming event, handler, subject, payload digest and how-manieth of exactly these.
_NAMESPACE = uuid.UUID("2b0d2f5a-7a0f-5e9b-8f5e-7f6a5d1c3e90").bytes
_TRACEPARENT = TRACEPARENT.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What every run of one handler shares."""

    handler: str
    publisher: Publisher
    loop: asyncio.AbstractEventLoop
    state: Any = None  # what the app's lifespan yields
    replay: bool = False


class Context:
    """One run of a handler: its event, which attempt it is, and how to publish as part of it."""

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
        """What the app's lifespan yields."""
        return self._around.state

    @property
    def replay(self) -> bool:
        """Whether a past event is run again by ``omni-worker replay``."""
        return self._around.replay

    @property
    def handler(self) -> str:
        """The handler's stable name, as letters and ids use it."""
        return self._around.handler

    @property
    def publisher(self) -> Publisher:
        """Whose publishing this run is part of."""
        return self._around.publisher

    @property
    def subject(self) -> str:
        """The subject the event came on."""
        return self._delivery.subject

    @property
    def stream(self) -> str:
        """The stream it was read from."""
        return self._delivery.source.stream

    @property
    def sequence(self) -> int:
        """Its sequence there."""
        return self._delivery.sequence

    @property
    def first_delivered(self) -> datetime:
        """When this event was first handed to this process, in UTC."""
        return datetime.fromtimestamp(self._first_seen, UTC)

    @property
    def headers(self) -> dict[str, list[str]]:
        """The message's headers, name → values."""
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

        Correlation and trace are inherited; channel and instance never are. The id is derived, so
        that a second run of the handler publishes the same event and the server keeps one copy; a
        given ``id`` wins. Raises as ``EventBus.publish`` does.
        """
        draft = draft_of(type, payload, fields)
        self._cause(draft)
        return await self._around.publisher.publish(draft, timeout=timeout)

    async def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> list[Published]:
        """The same for many, pipelined and in this order; raises as ``EventBus.publish_many``."""
        caused = map(self._caused, drafts)
        return await self._around.publisher.publish_many(
            list(caused) if isinstance(drafts, Collection) else caused, timeout=timeout
        )

    def wait(self, awaitable: Coroutine[Any, Any, T]) -> T:
        """In a plain `def` handler: run a coroutine on the loop and wait for its result.

        ``ctx.wait(ctx.publish(…))``. Raises ConfigError on the loop itself: there, await it.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(awaitable, self._around.loop).result()
        awaitable.close()
        raise ConfigError("ctx.wait is for plain def handlers, which run in a thread: await it")

    @property
    def correlation_id(self) -> str:
        """The incoming event's, or its id."""
        return self.event.metadata.correlation_id or self.event.id

    @property
    def trace_id(self) -> str:
        """The incoming event's, or its id."""
        return self.event.metadata.trace_id or self.event.id

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context the event came with; what is published here carries it on."""
        raw = self._delivery.raw_headers
        if raw is None or _TRACEPARENT not in raw.lower():  # sooner than to parse them all
            return None
        return read_traceparent(self.headers)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry event, type, handler, attempt, correlation and trace."""
        if self._log is None:
            self._log = logging.LoggerAdapter(
                logging.getLogger("omni_worker.handler"), event_fields(self)
            )
        return self._log

    def _caused(self, draft: Draft) -> Draft:
        """A copy: the caller's stays as it is."""
        caused = replace(draft)
        self._cause(caused)
        return caused

    def _cause(self, draft: Draft) -> None:
        """Make it an event of this run: it inherits what is not given, and has an id of its own."""
        event, metadata = self.event, self.event.metadata
        if draft.id is None:
            draft.id = self._derived_id(draft)
        draft.correlation_id = draft.correlation_id or metadata.correlation_id or event.id
        draft.trace_id = draft.trace_id or metadata.trace_id or event.id
        draft.traceparent = draft.traceparent or self.traceparent

    def _derived_id(self, draft: Draft) -> str:
        subject = build_subject(draft.type, draft.channel, draft.instance)
        try:
            draft.content = content = encode_payload(draft.type, draft.payload)
        except InvalidPayload:  # refused when it is published, and then with a word
            content = b""
        same = f"{subject}\n{sha256(content).hexdigest()}"
        if self._counts is None:
            self._counts = {}
        self._counts[same] = nth = self._counts.get(same, 0) + 1
        return derived_id(_NAMESPACE, f"{self.event.id}\n{self._around.handler}\n{same}\n{nth}")


def event_fields(context: Context) -> dict[str, Any]:
    """What names one run in a log line; never its payload."""
    return {
        **names_of(context.event),
        "handler": context.handler,
        "attempt": context.attempt,
    }


current_context: ContextVar[Context | None] = ContextVar("omni_worker_context", default=None)

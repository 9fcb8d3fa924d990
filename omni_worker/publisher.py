"""Publisher: events out. Validate, enrich, address, confirm; every event leaves by this door."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from .errors import (
    ConfigError,
    InvalidEvent,
    InvalidPayload,
    OmniWorkerError,
    PublishError,
    TransportError,
)
from .events import DEAD_LETTER, Event, Metadata, Published, addressed
from .ids import random_id
from .schemas import Invalid, SchemaRegistry
from .subjects import Address, build_subject, matches
from .topology import DUPLICATE_WINDOW
from .transports.base import Message, Stored, Transport
from .wire import TRACEPARENT, encode_event, encode_payload, read_traceparent

log = logging.getLogger("omni_worker.publish")

DEFAULT_TIMEOUT = 30.0  # seconds
LETTER_TIMEOUT = 5.0  # seconds
MAX_ID = 256  # characters; it travels in a header
ONLY_TEXT = {str}
_NOT_SENT = TransportError("not published: one before it was not stored in time")
METADATA_KEYS = {field.alias for field in Metadata.model_fields.values()}

PublishNext = Callable[[Event[Any]], Awaitable[Published]]
PublishMiddleware = Callable[[Event[Any], PublishNext], Awaitable[Published]]


@dataclass(slots=True, kw_only=True)  # not frozen: that takes three times as long to make
class Draft:
    """An event to be published, as ``publish`` takes it, for ``publish_many``."""

    type: str
    payload: Any = None
    channel: str | None = None
    instance: str | None = None
    id: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    person_id: str | None = None
    platform_identity_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  # further keys, as on the wire
    traceparent: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # further keys of the envelope
    # The payload as JSON, where it had to be known before: see Context.
    content: bytes | None = field(default=None, init=False, repr=False, compare=False)


class EventFields(TypedDict, total=False):
    """What ``publish`` takes besides type and payload.

    ``metadata`` holds further keys, as on the wire; the named ones win.
    """

    channel: str | None
    instance: str | None
    id: str | None
    correlation_id: str | None
    trace_id: str | None
    person_id: str | None
    platform_identity_id: str | None
    metadata: Mapping[str, Any] | None


def draft_of(type: str, payload: Any, fields: EventFields) -> Draft:
    """The arguments of a ``publish`` as one value. Raises TypeError for one it does not take."""
    given: dict[str, Any] = {**fields, "metadata": fields.get("metadata") or {}}
    try:
        return Draft(type=type, payload=payload, **given)
    except TypeError:
        known = EventFields.__annotations__
        unknown = ", ".join(f"{name}=" for name in fields if name not in known)
        takes = ", ".join(f"{name}=" for name in known)
        raise TypeError(f"publish() takes no {unknown}; it takes {takes} and timeout=") from None


class PublishManyError(PublishError):
    """Some of many events were not confirmed; the others are stored.

    ``published`` has None where ``errors`` (index → error) has the reason.
    """

    def __init__(
        self, published: list[Published | None], errors: dict[int, Exception], event_id: str
    ) -> None:
        first = next(iter(errors.values()))
        noun = "event was" if len(published) == 1 else "events were"
        super().__init__(
            f"{len(errors)} of {len(published)} {noun} not confirmed; the first: {first}",
            event_id=event_id,
        )
        self.published = published
        self.errors = errors


class Publisher:
    """Publishes for one app over one transport. ``name`` is each event's ``metadata.source``."""

    def __init__(self, transport: Transport, registry: SchemaRegistry, name: str) -> None:
        self._transport = transport
        self._registry = registry
        self.name = name
        self.middlewares: list[PublishMiddleware] = []
        self.short_windows: Mapping[str, float] = {}
        self._said: set[str] = set()

    async def publish(self, draft: Draft, *, timeout: float = DEFAULT_TIMEOUT) -> Published:
        """Publish one event and await the server's confirmation.

        Tried again with the same id within ``timeout`` seconds, so it is stored once. Raises
        InvalidEvent for what is refused before anything is sent, PublishError when nobody knows
        whether it is stored, another TransportError when it certainly is not.
        """
        if timeout is not DEFAULT_TIMEOUT:
            check_timeout(timeout)
        if self.middlewares:
            return await self._through_middlewares(draft, timeout)
        id, message = self._prepare(draft)
        if self.short_windows:
            timeout = self._within_window(message.subject, timeout)
        stored = await self._transport.publish(message, timeout=timeout)
        return Published(id, stored.stream, stored.sequence, stored.duplicate)

    async def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> list[Published]:
        """Publish many, pipelined, in this order; every confirmation is awaited.

        A list is checked whole before the first is sent; from a generator each is checked when
        there is room for it, and one that is refused is the last that is read. Raises
        PublishManyError when some were not confirmed. With publish middlewares they go one by one,
        since a middleware may change any.
        """
        check_timeout(timeout)
        if self.middlewares:
            return await self._one_by_one(drafts, timeout)
        if not isinstance(drafts, Collection):
            return await self._stream(drafts, timeout)
        prepared = [self._prepare(draft) for draft in drafts]
        if prepared and self.short_windows:
            timeout = min(self._within_window(one.subject, timeout) for _, one in prepared)
        results = await self._transport.publish_many([one for _, one in prepared], timeout=timeout)
        return _all_or_error([id for id, _ in prepared], results)

    async def _stream(self, drafts: Iterable[Draft], timeout: float) -> list[Published]:
        """Each is checked while those before it are on their way."""
        if self.short_windows:
            timeout = min(timeout, 0.75 * min(self.short_windows.values()))
        ids: list[str] = []
        stopped_by: list[Exception] = []

        def prepared() -> Iterator[Message]:
            try:
                for draft in drafts:
                    id, message = self._prepare(draft)
                    ids.append(id)
                    yield message
            except Exception as error:  # of a draft that is refused, or of whoever makes them
                ids.append("")
                stopped_by.append(error)

        results = await self._transport.publish_many(prepared(), timeout=timeout)
        return _all_or_error(ids, [*results, *stopped_by])

    async def publish_letter(
        self, id: str, payload: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> Published:
        """A dead letter: the same door without the user's middlewares, which must not stop it."""
        _, message = self._prepare(
            Draft(type=DEAD_LETTER, payload=payload, id=id, metadata=metadata)
        )
        # Short: the event holds its slot meanwhile, and comes again for its letter anyway.
        stored = await self._transport.publish(message, timeout=LETTER_TIMEOUT)
        return Published(id, stored.stream, stored.sequence, stored.duplicate)

    def _prepare(self, draft: Draft) -> tuple[str, Message]:
        """Everything that can be refused is refused here."""
        type, payload = draft.type, draft.payload
        subject = build_subject(type, draft.channel, draft.instance)
        self._registry.check_known(type)
        checked = self._registry.validate(type, payload)
        if isinstance(checked, Invalid):
            raise InvalidPayload(f"{type}: the payload does not fit its schema: {checked.error}")
        id = check_id(draft.id) if draft.id is not None else random_id()
        body = encode_event(
            id=id,
            type=type,
            content=draft.content or encode_payload(type, payload),
            timestamp=time.time_ns() // 1_000_000,
            metadata=self._metadata(id, draft),
            extra=draft.extra,
        )
        if draft.traceparent is None:
            return id, Message(subject, body, id)
        if read_traceparent({TRACEPARENT: [draft.traceparent]}) is None:
            raise InvalidEvent(f"{type}: traceparent= is no W3C trace context")
        return id, Message(subject, body, id, {TRACEPARENT: draft.traceparent})

    def _metadata(self, id: str, draft: Draft) -> dict[str, Any]:
        given = draft.metadata
        try:
            metadata: dict[str, Any] = {**given} if given else {}
        except TypeError:
            kind = type(given).__name__
            raise InvalidEvent(f"{draft.type}: metadata=: expected a mapping, got {kind}") from None
        metadata["correlationId"] = draft.correlation_id or metadata.get("correlationId") or id
        metadata["traceId"] = draft.trace_id or metadata.get("traceId") or id
        metadata["source"] = metadata.get("source") or self.name
        if draft.instance is not None:
            metadata["instanceId"] = draft.instance
        if draft.channel is not None:
            metadata["channelType"] = draft.channel
        if draft.person_id is not None:
            metadata["personId"] = draft.person_id
        if draft.platform_identity_id is not None:
            metadata["platformIdentityId"] = draft.platform_identity_id
        if set(map(type, metadata.values())) != ONLY_TEXT:
            _check_metadata(draft.type, metadata)
        return metadata

    async def _one_by_one(self, drafts: Iterable[Draft], timeout: float) -> list[Published]:
        ids: list[str] = []
        results: list[Published | Exception] = []
        for draft in drafts:
            id = draft.id if draft.id is not None else random_id()
            ids.append(id)
            try:
                results.append(await self._through_middlewares(replace(draft, id=id), timeout))
            except OmniWorkerError as error:
                results.append(error)
        return _all_or_error(ids, results)

    async def _through_middlewares(self, draft: Draft, timeout: float) -> Published:
        """The event as an object through every middleware; what comes out at the end is sent."""
        event = self._as_event(draft)

        async def send(event: Event[Any]) -> Published:
            id, message = self._prepare(_as_draft(event, draft))
            stored = await self._transport.publish(
                message, timeout=self._within_window(message.subject, timeout)
            )
            return Published(id, stored.stream, stored.sequence, stored.duplicate)

        call: PublishNext = send
        for middleware in reversed(self.middlewares):
            call = _bind(middleware, call)
        return await call(event)

    def _as_event(self, draft: Draft) -> Event[Any]:
        build_subject(draft.type, draft.channel, draft.instance)
        id = check_id(draft.id) if draft.id is not None else random_id()
        event: Event[Any] = Event[Any](
            id=id,
            type=draft.type,
            payload=draft.payload,
            timestamp=time.time_ns() // 1_000_000,
            metadata=Metadata.model_validate(self._metadata(id, draft)),
            **{key: value for key, value in draft.extra.items() if key not in Event.model_fields},
        )
        return addressed(event, Address(draft.type, draft.channel, draft.instance))

    def _within_window(self, subject: str, timeout: float) -> float:
        """Retries after the stream forgot the id would store the event twice."""
        for pattern, window in self.short_windows.items():
            if matches(pattern, subject) and timeout > 0.75 * window:
                if pattern not in self._said:
                    self._said.add(pattern)
                    log.warning(
                        "publishing to %s is given up after %.1f s: its stream dedupes for %.1f s",
                        pattern, 0.75 * window, window,
                    )  # fmt: skip
                return 0.75 * window
        return timeout


def _check_metadata(event_type: str, metadata: Mapping[str, Any]) -> None:
    for key, value in metadata.items():
        if value is not None and not isinstance(value, str) and key in METADATA_KEYS:
            # Every reader, we as well, would refuse the whole event for it.
            kind = type(value).__name__
            raise InvalidEvent(f"{event_type}: metadata {key}: expected a string, got {kind}")


def check_timeout(timeout: float) -> None:
    """Refuse a publish timeout within which the server could forget the id."""
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < DUPLICATE_WINDOW:
        raise ConfigError(
            f"timeout={timeout!r}: expected seconds below {DUPLICATE_WINDOW}; after that the"
            " server may have forgotten the id, and a retry would store the event twice"
        )


def check_id(id: str) -> str:
    """Refuse an event id that cannot travel in a header."""
    if not isinstance(id, str):  # a UUID's text would look right in the words below
        raise InvalidEvent(f"event id of type {type(id).__name__}: expected a string")
    if not id or len(id) > MAX_ID or not id.isprintable():
        raise InvalidEvent(f"event id {id[:40]!r}: expected 1 to {MAX_ID} printable characters")
    if id != id.strip():
        raise InvalidEvent(f"event id {id!r}: the server would strip the spaces around it")
    return id


def _as_draft(event: Event[Any], draft: Draft) -> Draft:
    metadata = event.metadata.model_dump(by_alias=True, exclude_none=True)
    return Draft(
        type=event.type,
        payload=event.payload,
        channel=event.channel,
        instance=event.instance,
        id=event.id,
        metadata=metadata,
        traceparent=draft.traceparent,
        extra=event.model_extra or {},
    )


def _bind(middleware: PublishMiddleware, call: PublishNext) -> PublishNext:
    async def bound(event: Event[Any]) -> Published:
        published: Any = await middleware(event, call)
        if not isinstance(published, Published):
            name = getattr(middleware, "__qualname__", type(middleware).__name__)
            raise ConfigError(
                f"publish middleware {name} returned {type(published).__name__}:"
                " write return await call_next(event)"
            )
        return published

    return bound


def _all_or_error(
    ids: list[str], results: Sequence[Stored | Published | Exception]
) -> list[Published]:
    """Every confirmation. Raises PublishManyError; what has no result was not sent any more."""
    results = [*results, *[_NOT_SENT] * (len(ids) - len(results))]
    published: list[Published] = []
    errors: dict[int, Exception] = {}
    for index, (id, result) in enumerate(zip(ids, results, strict=True)):
        if isinstance(result, Exception):
            errors[index] = result
        else:
            published.append(Published(id, result.stream, result.sequence, result.duplicate))
    if errors:
        whole = iter(published)
        partly = [None if index in errors else next(whole) for index in range(len(ids))]
        index, first = next(iter(errors.items()))
        raise PublishManyError(partly, errors, ids[index]) from first
    return published

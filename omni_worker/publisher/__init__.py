"""Publisher: events out. Validate, enrich, address, confirm; every event leaves by this door."""

from __future__ import annotations

import logging
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, cast

from ..errors import EventTooLarge, InvalidEvent, InvalidPayload
from ..events import DEAD_LETTER, Event, Published
from ..ids import random_id
from ..schemas import Invalid, SchemaRegistry
from ..subjects import Unaddressed, build_subject, matches, subject_on_the_wire
from ..transports.base import Message, Operators, Stored, Transport
from ..transports.headers import message_headers
from ..wire import TRACEPARENT, encode_event, read_traceparent
from .confirmations import Confirmations, Ids, PublishManyError, errors_of
from .drafts import (
    Draft,
    EventFields,
    check_id,
    check_timeout,
    complete,
    complete_metadata,
    draft_of,
)
from .middlewares import (
    PublishMiddleware,
    PublishNext,
    chain,
    check_published,
)
from .passages import Passage, metadata_of, parts_of
from .pipeline import NOT_SENT, Pipeline
from .spans import PublishSpan, PublishSpans, publish_in_spans
from .stamps import Stamp, as_sent, stamp

__all__ = [
    "DEFAULT_TIMEOUT",
    "Draft",
    "EventFields",
    "PublishManyError",
    "PublishMiddleware",
    "PublishNext",
    "PublishSpan",
    "PublishSpans",
    "Publisher",
    "Stamp",
    "Via",
    "check_id",
    "check_timeout",
    "draft_of",
]

log = logging.getLogger("omni_worker.publish")

DEFAULT_TIMEOUT = 30.0  # seconds
LETTER_TIMEOUT = 5.0  # seconds

# Stores a message in place of the transport, within seconds.
Via = Callable[[Message, float], Awaitable[Stored]]


class Publisher:
    """Publishes for one app over one transport. ``name`` is each event's ``metadata.source``."""

    def __init__(self, transport: Transport, registry: SchemaRegistry, name: str) -> None:
        self._transport = transport
        self._registry = registry
        self.name = name
        self.middlewares: list[PublishMiddleware] = []
        self.stamps: list[Stamp] = []  # each adds headers to what is published
        self.spans: PublishSpans | None = None  # where a tracer is registered
        self.schedules: Any = None  # what publishes later; a room above sets it
        self.short_windows: Mapping[str, float] = {}
        self.unaddressed: Unaddressed = "bare"  # the setting
        self._said: set[str] = set()

    @property
    def operators(self) -> Operators:
        """The server's streams and messages, to look at what is stored."""
        return self._transport.operators

    async def publish(
        self, draft: Draft, *, timeout: float = DEFAULT_TIMEOUT, via: Via | None = None
    ) -> Published:
        """Publish one event and await the server's confirmation; ``via`` stores it elsewhere.

        Tried again with the same id within ``timeout`` seconds, so it is stored once. Raises
        InvalidEvent for what is refused before anything is sent, PublishError when it is
        unknown whether it is stored, another TransportError when it certainly is not.
        """
        if timeout is not DEFAULT_TIMEOUT:
            check_timeout(timeout)
        span = None if self.spans is None else self.spans.begin(draft)
        try:
            if self.middlewares:
                published = await self._through_middlewares(draft, timeout, via)
            else:
                id, message = self._prepare(draft)
                if self.short_windows:
                    timeout = self._within_window(message.subject, timeout)
                stored = await (
                    self._transport.publish(message, timeout=timeout)
                    if via is None
                    else via(message, timeout)
                )
                published = Published(id, stored.stream, stored.sequence, stored.duplicate)
        except BaseException as error:
            if span is not None:
                span.failed(error)
            raise
        if span is not None:
            span.ended(published)
        return published

    def compose(self, draft: Draft, keep: Via) -> Coroutine[Any, Any, Published]:
        """Hand the event's message to ``keep``; what becomes of it is told by ``note``."""
        return Publisher.publish(self, draft, via=keep)

    def note(self, draft: Draft, result: Published | Exception) -> None:
        """Note what became of an event that was composed."""

    async def publish_many(
        self, drafts: Iterable[Draft], *, timeout: float = DEFAULT_TIMEOUT
    ) -> Sequence[Published]:
        """Publish many, pipelined, in this order; every confirmation is awaited.

        A list is checked whole before the first is sent, and the error says which draft it is
        about, by its index; from a generator each is checked when
        there is room for it, and one that is refused is the last that is read. Raises
        PublishManyError when some were not confirmed. With publish middlewares each is checked
        when it is sent, since a middleware may change any: they start in this order and are sent
        in it, and one that waits holds up only what is sent after it.
        """
        check_timeout(timeout)
        if self.spans is None:
            return await self._publish_many(drafts, timeout)
        return await publish_in_spans(
            self.spans, drafts, partial(self._publish_many, timeout=timeout)
        )

    async def _publish_many(self, drafts: Iterable[Draft], timeout: float) -> Sequence[Published]:
        if self.middlewares:
            return await self._pipelined(drafts, timeout)
        if not isinstance(drafts, Collection):
            return await self._stream(drafts, timeout)
        prepared = self._prepare_all(drafts)
        if prepared and self.short_windows:
            timeout = min(self._within_window(one.subject, timeout) for _, one in prepared)
        ids = Ids()
        for id, _ in prepared:
            ids.add(id)
        results = await self._transport.publish_many([one for _, one in prepared], timeout=timeout)
        return _all_or_error(ids, results)

    def _prepare_all(self, drafts: Iterable[Draft]) -> list[tuple[str, Message]]:
        """Prepare a list. Raises what is wrong with the first bad draft, with its index."""
        prepared: list[tuple[str, Message]] = []
        most = self._transport.max_payload
        try:
            for draft in drafts:
                id, message = self._prepare(draft)
                if len(message.body) > most // 2:  # else its headers are not worth counting
                    _check_size(message, most)
                prepared.append((id, message))
        except InvalidEvent as error:
            error.args = (f"draft {len(prepared)}: {error}",)
            raise
        return prepared

    async def _stream(self, drafts: Iterable[Draft], timeout: float) -> Sequence[Published]:
        """Each is checked while those before it are on their way."""
        if self.short_windows:
            timeout = min(timeout, 0.75 * min(self.short_windows.values()))
        ids = Ids()
        stopped_by: list[Exception] = []

        def prepared() -> Iterator[Message]:
            prepare, add = self._prepare, ids.add
            try:
                for draft in drafts:
                    id, message = prepare(draft)
                    add(id)
                    yield message
            except Exception as error:  # a draft was refused, or the iterator of drafts failed
                ids.add("")
                stopped_by.append(error)

        results = await self._transport.publish_many(prepared(), timeout=timeout)
        return _all_or_error(ids, [*results, *stopped_by] if stopped_by else results)

    async def publish_letter(
        self,
        id: str,
        payload: Mapping[str, Any],
        metadata: Mapping[str, Any],
        trace_headers: Mapping[str, str] | None = None,
    ) -> Published:
        """Publish a dead letter: no middleware or stamp of the user's may stop it.

        It is sent in the trace of the failed run, or with the event's own ``trace_headers``.
        """
        draft = Draft(type=DEAD_LETTER, payload=payload, id=id, metadata=metadata)
        own = None if self.spans is None else self.spans.headers()
        draft.trace_headers = own or trace_headers
        _, message = self._prepare(draft, stamps=False)
        # Short: the event holds its slot until then, and is redelivered for its dead letter anyway.
        stored = await self._transport.publish(message, timeout=LETTER_TIMEOUT)
        return Published(id, stored.stream, stored.sequence, stored.duplicate)

    def _prepare(self, draft: Draft, *, stamps: bool = True) -> tuple[str, Message]:
        """Everything that can be refused is refused here."""
        subject = build_subject(draft.type, draft.channel, draft.instance)
        id = check_id(draft.id) if draft.id is not None else random_id()
        metadata = complete_metadata(draft, id, self.name)
        return id, self._message(draft, draft, id, subject, metadata, stamps=stamps)

    def _message(
        self,
        event: Draft | Event[Any],
        draft: Draft,
        id: str,
        subject: str,
        metadata: dict[str, Any],
        *,
        stamps: bool = True,
    ) -> Message:
        """Build the message for a draft, or for the event that middlewares made of it."""
        content: bytes | None = None
        extra: Mapping[str, Any] | None
        if isinstance(event, Draft):
            type, payload, extra, content = event.type, event.payload, event.extra, event.content
        else:
            type, payload, extra = parts_of(event)
        self._registry.check_known(type)
        checked = self._registry.validate(type, payload)
        if isinstance(checked, Invalid):
            raise InvalidPayload(f"{type}: the payload does not fit its schema: {checked.error}")
        body = encode_event(
            id=id,
            type=type,
            payload=payload,
            content=content,
            timestamp=draft.timestamp or time.time_ns() // 1_000_000,
            metadata=metadata,
            extra=extra,
        )
        headers: dict[str, str] = {}
        if draft.traceparent is not None:
            if read_traceparent({TRACEPARENT: [draft.traceparent]}) is None:
                raise InvalidEvent(f"{type}: traceparent= is no W3C trace context")
            headers[TRACEPARENT] = draft.traceparent
        if draft.trace_headers is not None:
            headers |= draft.trace_headers
        if self.stamps and stamps:
            stamp(self.stamps, as_sent(draft, event, id, metadata), headers)
        if subject == type:
            subject = subject_on_the_wire(type, subject, self.unaddressed)
        return Message(subject, body, id, headers)

    # --- through the middlewares -----------------------------------------------------------

    async def _pipelined(self, drafts: Iterable[Draft], timeout: float) -> Sequence[Published]:
        """Many through the middlewares, each of them while those before it are on their way."""
        if self.short_windows:
            timeout = min(timeout, 0.75 * min(self.short_windows.values()))
        pipeline = Pipeline(
            drafts,
            self._enter,
            chain(self.middlewares),
            self._compose,
            partial(check_published, self.middlewares[0]),
            self._transport,
            timeout,
        )
        await pipeline.run()
        ids, results = pipeline.ids, pipeline.results
        results += [NOT_SENT] * (len(ids) - len(results))
        partly = [None if isinstance(one, Exception) else one for one in results]
        errors = {index: one for index, one in enumerate(results) if isinstance(one, Exception)}
        return _confirmed(partly, errors, ids)

    async def _through_middlewares(
        self, draft: Draft, timeout: float, via: Via | None
    ) -> Published:
        """The event as an object through every middleware; what comes out at the end is sent."""

        async def call_next(event: Event[Any]) -> Published:
            message = self._compose(passage, event)
            within = self._within_window(message.subject, timeout)
            stored = await (
                self._transport.publish(message, timeout=within)
                if via is None
                else via(message, within)
            )
            return Published(message.id, stored.stream, stored.sequence, stored.duplicate)

        outermost, through = self.middlewares[0], chain(self.middlewares)
        passage = Passage(draft, draft.id if draft.id is not None else random_id())
        return check_published(outermost, await through(self._enter(passage), call_next))

    def _enter(self, passage: Passage) -> Event[Any]:
        """Make the event that the middlewares see."""
        draft, id = passage.draft, passage.id
        if draft.id is not None:
            check_id(id)
        subject = build_subject(draft.type, draft.channel, draft.instance)
        metadata = complete_metadata(draft, id, self.name)
        timestamp = draft.timestamp or time.time_ns() // 1_000_000
        return passage.enter(subject, metadata, timestamp)

    def _compose(self, passage: Passage, event: Event[Any]) -> Message:
        """Build the message for what the middlewares made of an event."""
        id, subject, metadata = passage.id, passage.subject, passage.metadata
        if not passage.is_unchanged(event):
            id = check_id(event.id)
            metadata = complete(metadata_of(event), event, id, self.name)
            subject = build_subject(event.type, event.channel, event.instance)
        return self._message(event, passage.draft, id, subject, metadata)

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


def _check_size(message: Message, most: int) -> None:
    size = len(message_headers(message.id, message.headers)) + len(message.body)
    if size > most:
        raise EventTooLarge(
            f"{message.subject}: {size} bytes with headers, the server takes {most};"
            " send a reference instead of the data"
        )


def _all_or_error(ids: Ids, results: Sequence[Stored | Exception]) -> Sequence[Published]:
    """Every confirmation. Raises PublishManyError; what has no result was not sent any more."""
    if len(results) < len(ids):
        results = [*results, *[NOT_SENT] * (len(ids) - len(results))]
    errors = errors_of(results)
    if not errors:
        return Confirmations(ids, results)
    partly = [
        None if isinstance(result, Exception) else Published(ids[index], *result)
        for index, result in enumerate(results)
    ]
    return _confirmed(partly, errors, ids)


def _confirmed(
    partly: list[Published | None], errors: dict[int, Exception], ids: Sequence[str] | Ids
) -> Sequence[Published]:
    if not errors:
        return cast(list[Published], partly)
    index, first = next(iter(errors.items()))
    raise PublishManyError(partly, errors, ids[index]) from first

"""Letter storage: the dead letter of an event is stored, whatever else was stored with its id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from .errors import ApiError, EventTooLarge, OmniWorkerError, PermissionDenied, TopologyError
from .events import Published
from .ids import other_ids
from .letters.notes import keep_letter
from .letters.read import Pointer, body_of_same_letter
from .letters.written import Failure, compose, letter_digest, letter_id, with_body, with_reference
from .publisher import Publisher
from .topology import OWN_STREAM
from .trace_context import trace_headers
from .transports.base import Operators, StoredMessage
from .transports.infos import StreamConfig
from .transports.key_value import KeyValue
from .wire import read_envelope

TOO_LARGE = 10054  # the server: a stream takes no message of this size
SHORT_ERROR = 200  # characters of an error, where little fits


class RawCopies(Protocol):
    """Storage of bodies that are too large for a dead letter."""

    async def keep(self, original: StoredMessage, *, may_be_gone: bool = False) -> tuple[str, int]:
        """Return stream and sequence of a message that holds the original's bytes."""


class LetterStorage:
    """Stores dead letters over one publisher."""

    def __init__(
        self,
        publisher: Publisher,
        operators: Operators,
        copies: RawCopies,
        notes: Callable[[], Awaitable[KeyValue]],
        streams: Callable[[], Sequence[StreamConfig]],
    ) -> None:
        self._publisher = publisher
        self._operators = operators
        self._copies = copies
        self._notes = notes
        self._streams = streams

    async def store(
        self,
        original: StoredMessage,
        failure: Failure,
        *,
        handler: str,
        consumer: str,
        now: int,
        on_taken: Callable[[Published], None],
        may_be_gone: bool = False,
    ) -> Published:
        """Store the letter of an event that was given up; return its id and where it is stored.

        ``on_taken`` is called for each of its ids that another message has. ``now``: epoch
        milliseconds. ``may_be_gone``: the event was settled in its stream, for a long retry.
        """
        await self._check_kept()
        payload, metadata = compose(original, failure, handler=handler, consumer=consumer, now=now)
        first = letter_id(original, handler)
        whole = with_body(payload, original.body)
        try:
            return await self._publish(_ids(first), whole, metadata, original, on_taken)
        except (EventTooLarge, ApiError) as error:
            _raise_unless_too_large(error)
        payload = with_reference(
            payload, *await self._copies.keep(original, may_be_gone=may_be_gone)
        )
        try:
            return await self._publish(_ids(first), payload, metadata, original, on_taken)
        except (EventTooLarge, ApiError) as error:
            _raise_unless_too_large(error)
        payload |= {"traceback": "", "headers": {}, "error": failure.error[:SHORT_ERROR]}
        return await self._publish(_ids(first), payload, metadata, original, on_taken)

    async def _check_kept(self) -> None:
        """Refuse to store a letter where it would be confirmed and not be kept."""
        for config in self._streams():
            if config.retention != "interest":
                continue
            info = await self._operators.stream_info(config.name)
            if info and info.config.retention == "interest" and not info.state.consumers:
                raise TopologyError(
                    f"stream {config.name} has retention interest and no consumer: it would confirm"
                    " a dead letter and not keep it; recreate it with retention limits"
                )

    async def _publish(
        self,
        ids: Iterator[str],
        payload: Mapping[str, Any],
        metadata: Mapping[str, Any],
        original: StoredMessage,
        on_taken: Callable[[Published], None],
    ) -> Published:
        # A program that may publish anything to the stream can store a message with the id that
        # we derive: the server then keeps that one, and answers as if ours were stored.
        for id in ids:
            published = await self._publisher.publish_letter(
                id, payload, metadata, trace_headers(original.headers)
            )
            digest: str | None = letter_digest(payload, self._publisher.name)
            if published.duplicate:
                digest = await self._digest_of_same(published, payload, original)
            if digest is not None:
                await self._note(id, digest)
                return published
            on_taken(published)
        raise AssertionError("the last id is random")

    async def _note(self, id: str, digest: str) -> None:
        """Note that the letter is ours, so that it is believed when it is sent back."""
        with suppress(OmniWorkerError):  # without the note, the original itself is looked at
            await keep_letter(await self._notes(), id, digest)

    async def _digest_of_same(
        self, published: Published, payload: Mapping[str, Any], original: StoredMessage
    ) -> str | None:
        """Return the stored letter's digest if it is this one, where we may look; else None."""
        try:
            message = await self._operators.message(published.stream, published.sequence)
            if message is None:
                return None
            body = body_of_same_letter(message, payload, source=self._publisher.name)
            if isinstance(body, Pointer):
                body = await self._body_at(body, original)
        except PermissionDenied:
            return None
        if body != original.body:
            return None
        stored = read_envelope(message.body, stored_at=0)
        return letter_digest(stored.payload, self._publisher.name)

    async def _body_at(self, pointer: Pointer, original: StoredMessage) -> bytes | None:
        if pointer == Pointer(stream=original.stream, sequence=original.sequence):
            return original.body
        if pointer.stream != OWN_STREAM.name:
            return None
        copy = await self._operators.message(pointer.stream, pointer.sequence)
        return None if copy is None else copy.body


def _ids(first: str) -> Iterator[str]:
    yield first
    yield from other_ids(first)


def _raise_unless_too_large(error: EventTooLarge | ApiError) -> None:
    if isinstance(error, ApiError) and error.err_code != TOO_LARGE:
        raise error

"""Letter storage: the dead letter of an event is stored, whatever else was stored with its id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from .errors import EventTooLarge, PermissionDenied
from .events import Published
from .ids import other_ids
from .letters.read import Pointer, body_of_same_letter
from .letters.written import Failure, compose, letter_id, with_body, with_reference
from .publisher import Publisher
from .topology import OWN_STREAM
from .transports.base import Operators, StoredMessage


class RawCopies(Protocol):
    """Storage of bodies that are too large for a dead letter."""

    async def keep(self, original: StoredMessage) -> tuple[str, int]:
        """Return stream and sequence of a message that holds the original's bytes."""


class LetterStorage:
    """Stores dead letters over one publisher."""

    def __init__(self, publisher: Publisher, operators: Operators, copies: RawCopies) -> None:
        self._publisher = publisher
        self._operators = operators
        self._copies = copies

    async def store(
        self,
        original: StoredMessage,
        failure: Failure,
        *,
        handler: str,
        consumer: str,
        now: int,
        on_taken: Callable[[Published], None],
    ) -> str:
        """Store the letter of an event that was given up; return its id.

        ``on_taken`` is called for each of its ids that another message has. ``now``: epoch
        milliseconds.
        """
        payload, metadata = compose(original, failure, handler=handler, consumer=consumer, now=now)
        ids = _ids(letter_id(original, handler))
        try:
            return await self._publish(
                ids, with_body(payload, original.body), metadata, original, on_taken
            )
        except EventTooLarge:
            payload = with_reference(payload, *await self._copies.keep(original))
            return await self._publish(ids, payload, metadata, original, on_taken)

    async def _publish(
        self,
        ids: Iterator[str],
        payload: Mapping[str, Any],
        metadata: Mapping[str, Any],
        original: StoredMessage,
        on_taken: Callable[[Published], None],
    ) -> str:
        # A program that may publish anything to the stream can store a message with the id that
        # we derive: the server then keeps that one, and answers as if ours were stored.
        for id in ids:
            published = await self._publisher.publish_letter(id, payload, metadata)
            if not published.duplicate or await self._is_same(published, payload, original):
                return id
            on_taken(published)
        raise AssertionError("the last id is random")

    async def _is_same(
        self, published: Published, payload: Mapping[str, Any], original: StoredMessage
    ) -> bool:
        """Tell if what is stored is this letter; where we may not look, it is not believed."""
        try:
            message = await self._operators.message(published.stream, published.sequence)
            if message is None:
                return False
            body = body_of_same_letter(message, payload, source=self._publisher.name)
            if isinstance(body, Pointer):
                if body == Pointer(stream=original.stream, sequence=original.sequence):
                    return True
                if body.stream != OWN_STREAM.name:
                    return False
                copy = await self._operators.message(body.stream, body.sequence)
                body = None if copy is None else copy.body
        except PermissionDenied:
            return False
        return body == original.body


def _ids(first: str) -> Iterator[str]:
    yield first
    yield from other_ids(first)

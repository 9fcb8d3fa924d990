"""Batch: the argument of a batch handler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic

from typing_extensions import TypeVar

from ..context import Context
from ..errors import ConfigError
from ..events import Event
from ..outcomes import Reject, Retry
from ..transports.base import Delivery

T = TypeVar("T", default=Any)


class Batch(Generic[T]):
    """Events that are handled together, in the order in which they were stored.

    When the handler returns, every event is handled, but for those given to ``retry`` or
    ``reject``. When it raises, those are settled as asked, and every other one has failed.
    """

    __slots__ = ("_contexts", "_marks", "events", "key", "state")

    def __init__(self, members: Sequence[tuple[Event[T], Context]], key: Any = None) -> None:
        self.events: list[Event[T]] = [event for event, _ in members]
        self.key = key  # of all its events, with ``by=``
        self.state: Any = members[0][1].state  # the value that the app's lifespan yields
        self._contexts = {id(event): context for event, context in members}
        self._marks: dict[int, Retry | Reject] = {}

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event[T]]:
        return iter(self.events)

    def __repr__(self) -> str:
        return f"<Batch of {len(self.events)} events>"

    @property
    def payloads(self) -> list[T]:
        """The payloads of the events, in their order."""
        return [event.payload for event in self.events]

    def retry(self, event: Event[T], *, after: float | None = None) -> None:
        """Get this event again later, as ``raise Retry(after=…)``: it spends an attempt.

        ``after`` is seconds, in place of the delay of the retry policy. Carried out when the
        handler has ended, and the last mark of an event counts. Raises ConfigError for an event
        of another batch.
        """
        self._mark(event, Retry(after=after))

    def reject(self, event: Event[T], reason: str = "") -> None:
        """Make this event a dead letter, as ``raise Reject(reason)``.

        Carried out when the handler has ended. Raises ConfigError for an event of another batch.
        """
        self._mark(event, Reject(reason))

    def context(self, event: Event[T]) -> Context:
        """Return the context of one event: attempt, logger, and publishing as its consequence.

        What it publishes has the event's correlation, and ids that a second run repeats.
        """
        try:
            return self._contexts[id(event)]
        except KeyError:
            raise ConfigError(
                "this event is not of this batch: give one of batch.events, not a copy"
            ) from None

    def _mark(self, event: Event[T], how: Retry | Reject) -> None:
        self.context(event)  # of this batch?
        self._marks[id(event)] = how


def mark_of(batch: Batch[Any], event: Event[Any]) -> Retry | Reject | None:
    """Return what the handler asked for this event, if anything."""
    return batch._marks.get(id(event))


def runs_of(batch: Batch[Any]) -> list[tuple[Delivery, Event[Any]]]:
    """Return the runs of a batch's events: the delivery and the event of each."""
    return [(context._delivery, context.event) for context in batch._contexts.values()]

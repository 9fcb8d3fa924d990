"""Groups: events that wait together, and when they have waited long enough."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ..context import Context
from ..events import Event
from ..outcomes import HandBack

# What is old, as after a restart, comes in quick succession: seconds a group waits for the next.
SETTLING = 0.1
SETTLED = 1.0  # seconds after which it waits no longer for such a next one


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception as it came from the handler: it is raised again in the run of each event."""

    error: BaseException
    traceback: TracebackType | None = None


class Member:
    """An event of a batch; ``ended`` is its ending, None if it is handled."""

    __slots__ = (
        "context", "ended", "ended_before", "event", "group", "is_new", "published_before",
    )  # fmt: skip

    def __init__(
        self, context: Context, event: Event[Any], ended: asyncio.Future[Raised | HandBack | None]
    ) -> None:
        self.context = context
        # Before the batch, by middlewares:
        self.published_before = dict(context._counts or {})
        self.ended_before = context.ended
        self.event = event
        self.ended = ended
        self.is_new = context.attempt == 1  # the handler has not been called with it
        self.group: Group

    @property
    def identity(self) -> tuple[str, int, int]:
        """Stream, sequence and stored time: they name an event for ever."""
        delivery = self.context._delivery
        return delivery.source.stream, delivery.sequence, delivery.stored_at

    @property
    def stored_at(self) -> int:
        """When the server stored the event, in epoch nanoseconds."""
        return self.context._delivery.stored_at

    def begin(self) -> None:
        """Run, perhaps again: what is published now has the ids that it had before."""
        self.context._counts = dict(self.published_before)
        self.context.ended = self.ended_before
        self.is_new = False

    def end(self, ending: Raised | HandBack | None) -> None:
        """End the event's run; a run that was cancelled has ended already."""
        if not self.ended.done():
            self.ended.set_result(ending)


@dataclass(eq=False, slots=True)
class Group:
    """Events that will run together; ``lane`` is what they have in common."""

    lane: Hashable
    opened: float = 0.0  # loop time of its first event, and of its latest
    arrived: float = 0.0
    members: list[Member] = field(default_factory=list)
    first: int = 0  # when the oldest event was stored, and the newest; epoch nanoseconds
    last: int = 0
    is_due: bool = False
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None

    def add(self, member: Member) -> None:
        """Take one more event."""
        self.members.append(member)
        member.group = self

    def note_times(self, stored_at: int, now: float) -> None:
        """Note when an event of the group was stored, and that it came now, by the loop's time."""
        self.first = min(self.first or stored_at, stored_at)
        self.last = max(self.last, stored_at)
        self.opened = self.opened or now
        self.arrived = now

    def stop_timer(self) -> None:
        """Wait for no time."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def quiet_in(group: Group, *, quiet: float, wait: float, clock: int, now: float) -> float:
    """Return the seconds until a group has been quiet, or has waited as long as it may.

    ``clock`` is the time of the server in epoch nanoseconds, ``now`` that of the loop.
    """
    left = min(group.last - clock + quiet * 1e9, group.first - clock + wait * 1e9) / 1e9
    return max(left, min(group.arrived + SETTLING, group.opened + SETTLED) - now)


def end_all(members: Iterable[Member], ending: Raised | HandBack) -> None:
    """End the runs of many events alike."""
    for member in members:
        member.end(ending)


def as_stored(member: Member) -> tuple[int, int]:
    """Return what puts events into the order in which they were stored."""
    delivery = member.context._delivery
    return delivery.stored_at, delivery.sequence

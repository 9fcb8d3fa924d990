"""Records: what a test may ask about afterwards. Every run and how it ended, every event stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..dispatch import TimedOut
from ..errors import ConfigError, InvalidEvent
from ..events import DEAD_LETTER, Event, addressed
from ..handlers import Handler, no_handler
from ..outcomes import Failed, Outcome, Retry
from ..subjects import matches, parse_subject
from ..transports.memory.stream import Record
from ..wire import read_envelope, to_event

Named = Callable[..., Any] | str  # a handler: its function, its durable or its function's name


@dataclass(slots=True, kw_only=True)
class Run:
    """Run of a handler. ``outcome`` is None while it runs, and when its process died."""

    handler: Handler
    event: Event[Any]
    attempt: int
    outcome: Outcome | None = None


@dataclass(slots=True)
class Records:
    """Everything that happened since the kit was entered, restarts and crashes included."""

    app: str
    runs: list[Run] = field(default_factory=list)
    stored: list[Event[Any]] = field(default_factory=list)  # by the app
    unread: list[Record] = field(
        default_factory=list
    )  # from any publisher; parsed when a test asks
    errors: list[BaseException] = field(default_factory=list)  # of handlers, not yet raised
    moves: int = 0  # grows with every run and every stored event

    def begun(self, run: Run) -> None:
        """A handler is about to run."""
        self.runs.append(run)
        self.moves += 1

    def ended(self, run: Run, outcome: Outcome) -> None:
        """Record how a run ended."""
        run.outcome = outcome
        self.moves += 1
        if isinstance(outcome, Failed) and not isinstance(outcome.error, Retry):
            self.errors.append(_shown(run, outcome.error))

    def on_stored(self, stream: str, record: Record) -> None:
        """Record a stored event, from any publisher."""
        self.moves += 1
        self.unread.append(record)

    def published(
        self, pattern: str | None, channel: str | None, instance: str | None
    ) -> list[Event[Any]]:
        """Return the events the app published, dead letters only if asked for."""
        unread, self.unread = self.unread, []
        events = [event for record in unread if (event := read(record)) is not None]
        self.stored += [event for event in events if event.metadata.source == self.app]
        return [
            event
            for event in self.stored
            if (event.type != DEAD_LETTER if pattern is None else matches(pattern, event.type))
            and channel in (None, event.channel)
            and instance in (None, event.instance)
        ]

    def runs_of(self, handlers: Iterable[Handler], event: str | None) -> list[Run]:
        """The runs of these handlers, of one event or of all."""
        wanted = [identity(handler) for handler in handlers]
        return [
            run
            for run in self.runs
            if event in (None, run.event.id) and identity(run.handler) in wanted
        ]


def find(handlers: list[Handler], wanted: Named) -> list[Handler]:
    """The declarations of a function, or those of a name. Raises ConfigError when there is none."""
    found = [one for one in handlers if _is_meant(one, wanted)]
    if not found:
        shown = wanted if isinstance(wanted, str) else getattr(wanted, "__qualname__", wanted)
        raise ConfigError(no_handler(handlers, str(shown)))
    return found


def read(record: Record) -> Event[Any] | None:
    """The event in a stored message, None where it is none."""
    try:
        envelope = read_envelope(record.body, stored_at=record.stored_at // 1_000_000)
        event = to_event(Event[Any], envelope)
        return addressed(event, parse_subject(record.subject, event.type))
    except InvalidEvent:
        return None


def identity(handler: Handler) -> tuple[Any, ...]:
    """Return a key that a declaration shares with its running copy, whose options are filled in."""
    return handler.name, handler.filters, handler.call


def _is_meant(handler: Handler, wanted: Named) -> bool:
    if isinstance(wanted, str):
        return wanted in handler.names
    return handler.call is wanted or handler.call == wanted


def _shown(run: Run, error: BaseException) -> BaseException:
    if isinstance(error, TimedOut):
        return TimeoutError(f"{run.handler.shown}, attempt {run.attempt}: {error}")
    if isinstance(error, asyncio.CancelledError):  # raised as it is it would cancel the test
        return RuntimeError(f"{run.handler.shown} cancelled itself in attempt {run.attempt}")
    return error

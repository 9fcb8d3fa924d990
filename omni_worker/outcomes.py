"""Outcomes: how one run of a handler can end, as values. `settle` decides what follows.

``Retry`` and ``Reject`` are what a handler *raises*; everything else here is what dispatch
*returns*. They are plain exceptions because a frozen dataclass cannot carry a traceback.
"""

from __future__ import annotations

from dataclasses import dataclass


class Retry(Exception):
    """Raise to get this event again later: ``raise Retry(after=30)``.

    It spends one attempt like any failure; ``after`` (seconds) replaces only the delay. The breaker
    does not count it: nothing is broken. A subclass with ``is_failure = True`` is counted.
    """

    is_failure = False

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        if after is not None and not 0 <= after < float("inf"):
            raise ValueError(f"Retry(after={after!r}): expected seconds, zero or more")
        super().__init__(message or "the handler asked for a retry")
        self.after = after


class Reject(Exception):
    """Raise to dead-letter this event at once: ``raise Reject("no such chat")``."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the handler rejected the event")


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned: the event is handled.

    ``confirm``: the server's word on the ack is wanted. ``before``: handled by an earlier run.
    """

    confirm: bool = False
    before: bool = False


@dataclass(frozen=True, slots=True)
class Skip:
    """The subject matched, the handler does not want the event: acknowledged, counted, never run.

    It is of another type, of a synchronised history, or a replay that does not fit its model.
    """

    event_type: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler failed in a way that may pass: the retry policy decides."""

    error: BaseException
    after: float | None = None  # seconds, where the handler named them


@dataclass(frozen=True, slots=True)
class Rejected:
    """The event can never be handled: a dead letter now. ``unreadable``: not a valid event."""

    error: BaseException
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class HandBack:
    """Not for this process, or not now: back to the server, no attempt spent."""

    delay: float = 0.0  # seconds
    reason: str = ""
    foreign: bool = False  # for another version of the handler; dead-lettered after a limit
    bodiless: bool = False  # only another delivery of it may have what this one lacks


@dataclass(frozen=True, slots=True)
class Kept:
    """Not now, but here: the event stays with us, leased, and a gate offers it again."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """All attempts are spent: only the dead letter is still to be stored."""


Outcome = Done | Skip | Failed | Rejected | HandBack | Kept | GivenUp

DONE = Done()
KEPT = Kept()
GIVEN_UP = GivenUp()
CONFIRM = Done(confirm=True)
DONE_BEFORE = Done(confirm=True, before=True)

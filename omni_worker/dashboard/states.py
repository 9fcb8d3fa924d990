"""States: one word for how a handler is, and whether a person should look. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

from ..letters.read import DeadLetter
from ..operations.handler_status import HandlerStatus
from ..operations.processes import HandlerActivity
from ..steering.orders import pause_in_words
from .rates import KEPT
from .watch import Activity

RECENT = 300.0  # seconds: the span of the counts on the pages
NOW = 30.0  # seconds in which a failure is happening now
BEHIND = 60.0  # seconds an event may wait


class Care(IntEnum):
    """Degree to which a handler needs a person."""

    NONE = 0
    NOTE = 1
    WARN = 2
    FAIL = 3


@dataclass(frozen=True, slots=True)
class State:
    """A handler's state; ``why`` is a sentence for people."""

    word: str
    care: Care
    why: str = ""

    @property
    def tone(self) -> str:
        """Return the name of its colour."""
        return self.care.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerLine:
    """All the overview says about a handler."""

    status: HandlerStatus
    state: State
    activity: Activity
    letters: int | None  # open ones; None: not counted yet
    running: int
    retrying: int
    lag: float  # seconds
    delivered: float  # in the last five minutes, as all of these
    reported: float  # as handled, by the workers
    retried: float
    dead: float
    has_open_breaker: bool = False  # in one of its processes
    last: str  # the last error, empty if there was none lately

    @property
    def handled(self) -> float:
        """Return the runs that ended well, as the workers say, else all but the others."""
        if self.activity.is_reported:
            return self.reported
        return max(0.0, self.delivered - self.retried - self.dead)

    @property
    def failing(self) -> float:
        """Return which part of the runs that ended failed."""
        failed = self.retried + self.dead
        return failed / (failed + self.handled) if failed else 0.0


def line_of(
    status: HandlerStatus,
    activity: Activity,
    letters: int | None,
    now: datetime,
    *,
    running: Sequence[HandlerActivity] = (),
) -> HandlerLine:
    """Put together what is known about a handler, and judge it."""
    at = now.timestamp()
    problem = activity.problems[-1] if activity.problems else None
    age = at - problem.time.timestamp() if problem is not None else KEPT
    retrying = min(status.unacked, status.redelivered)
    lag = (now - status.oldest).total_seconds() if status.oldest else 0.0
    line = HandlerLine(
        status=status,
        state=State("", Care.NONE),
        activity=activity,
        letters=letters,
        running=max(0, status.unacked - retrying),
        has_open_breaker=any(one.breaker_open for one in running),
        retrying=retrying,
        lag=max(0.0, lag),
        delivered=activity.delivered.total(at, RECENT),
        reported=activity.handled.total(at, RECENT),
        retried=activity.retried.total(at, RECENT),
        dead=activity.dead.total(at, RECENT),
        last=error_of(problem) if problem is not None and age < RECENT else "",
    )
    return replace(line, state=_judge(line, age))


def _judge(line: HandlerLine, age: float) -> State:
    status = line.status
    if line.dead and line.letters != 0:  # retried or discarded ones are a person's word: mended
        return State("failing", Care.FAIL, "events become dead letters")
    if status.is_unasked and status.app is None:
        return State("not read", Care.NOTE, "another program's consumer, which nothing reads")
    if status.is_unasked:
        return State("no worker", Care.FAIL, "events wait and no worker reads them")
    if line.has_open_breaker:
        return State("on trial", Care.FAIL, "its breaker is open: one event is tried now and then")
    if status.is_paused:
        by = "on the server" if status.pause is None else pause_in_words(status.pause, status.name)
        return State("paused", Care.WARN, f"{by.removeprefix('paused ')}: nothing is delivered")
    if line.retrying or (line.retried and age < NOW):
        return State("retrying", Care.WARN, "attempts fail and are repeated")
    if status.waiting and line.lag > BEHIND:
        return State("behind", Care.WARN, "events wait longer than a minute")
    if line.letters:
        return State("letters", Care.NOTE, "dead letters wait for a person")
    if line.delivered or status.unacked:
        return State("working", Care.NONE)
    return State("idle", Care.NONE)


def error_of(problem: object) -> str:
    """Write the error of a failure in one line, with its class where it is known."""
    error = str(getattr(problem, "error", ""))
    if isinstance(problem, DeadLetter) and problem.error_type:
        kind = problem.error_type.rpartition(".")[2]
        if not error.startswith(kind):
            return f"{kind}: {error}"
    return error


def in_order(lines: list[HandlerLine]) -> list[HandlerLine]:
    """Sort for the overview: what needs a person first, then by name."""
    return sorted(lines, key=lambda one: (-one.state.care, one.status.name, one.status.app or ""))


def headline(lines: list[HandlerLine]) -> tuple[str, Care]:
    """Say in a sentence how the handlers are."""
    failing = [one for one in lines if one.state.care is Care.FAIL]
    warned = [one for one in lines if one.state.care is Care.WARN]
    if not lines:
        return "No handler reads from this server yet", Care.NONE
    if failing:
        count = len(failing)
        return f"{count} handler{'s need' if count > 1 else ' needs'} you", Care.FAIL
    if warned:
        count = len(warned)
        return f"{count} handler{'s are' if count > 1 else ' is'} struggling", Care.WARN
    return "All handlers are well", Care.NONE

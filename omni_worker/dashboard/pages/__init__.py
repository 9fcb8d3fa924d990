"""Pages: each file makes the facts of one page; the table of them, and of the actions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..page import Ask, Page
from . import (
    bulk,
    event,
    events,
    handler,
    job,
    letter,
    letters,
    overview,
    replay,
    schedule,
    schedules,
    steer,
    streams,
    workers,
)
from .action import Form, Problem, Redirect

PAGES: tuple[Page, ...] = (
    overview.PAGE, handler.PAGE, events.PAGE, event.PAGE, letters.PAGE, letter.PAGE, bulk.PAGE,
    job.PAGE, workers.PAGE, replay.PAGE, steer.PAGE,
    streams.PAGE, schedules.PAGE, schedule.PAGE,
)  # fmt: skip

ACTIONS: dict[str, Callable[[Ask, Form], Awaitable[Redirect | Problem]]] = {
    "/letters/retry": letter.retry,
    "/letters/discard": letter.discard,
    "/letters/bulk": bulk.begin,
    "/replay": replay.begin,
    "/handler/steer": steer.give,
    "/schedules/steer": schedule.give,
}

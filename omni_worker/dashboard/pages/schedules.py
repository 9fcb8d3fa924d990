"""Schedules: crons, events that are published later, long retries and outboxes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ...operations.schedules import Place, ScheduledEvent, as_json, place_of
from ...operations.upcoming import (
    MOST_CRONS,
    Step,
    Wanted,
    long_retries,
    outboxes,
    upcoming,
    version_of,
)
from ..page import Ask, Facts, Page
from ..watch import Snapshot
from ..wording import lasting

LIMIT = 50
NOTICES = {
    "run": "It is due now; a process of its app publishes it.",
    "pause": "It is paused until it is resumed.",
    "resume": "It is resumed.",
    "cancel": "It is cancelled.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the page: an event or a cron, and the time until it is due, empty if not known."""

    event: ScheduledEvent
    until: str

    @property
    def target(self) -> dict[str, object]:
        """Return the values that name it in a question, and in an order."""
        return target_of(self.event)


def target_of(one: ScheduledEvent) -> dict[str, object]:
    """Return the values that name one of what is scheduled, as it is now."""
    return {
        "app": one.app,
        "name": one.name,
        "cron": "1" if one.cron else "",
        "sequence": one.message.sequence,
    }


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show what is due next; what is found while reading is shown on the way."""
    snapshot = ask.services.watch.snapshot
    given = {"app": ask.text("app"), "text": ask.text("text")}
    after = _place(ask.text("after"))
    retries, boxes = long_retries(snapshot.handlers), outboxes(snapshot.handlers)
    wanted = Wanted(**given, after=after)
    async with aclosing(upcoming(ask.services.transport, wanted, limit=LIMIT)) as steps:
        async for step in steps:
            yield {
                "step": step,
                "crons": [_row(ask, one) for one in step.crons],
                "most_crons": MOST_CRONS,
                "rows": [_row(ask, one) for one in step.events],
                "given": given,
                "is_filtered": any(given.values()),
                "is_later": after is not None,
                "later": _later(step),
                "retries": retries,
                "retries_count": sum(count for _, count in retries),
                "outboxes": boxes,
                "outbox_count": sum(one.waiting for one in boxes),
                "notice": NOTICES.get(ask.text("done"), ""),
                "json": _json(step, snapshot),
            }


def _row(ask: Ask, one: ScheduledEvent) -> Row:
    return Row(one, lasting((one.due - ask.now).total_seconds()) if one.due_at else "")


def _later(step: Step) -> str:
    """Return the place of the last event shown, if more follow."""
    if not step.has_more or not step.events:
        return ""
    return "{}.{}".format(*place_of(step.events[-1]))


def _place(text: str) -> Place | None:
    due, _, sequence = text.partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in (due, sequence)):
        return None
    return int(due), int(sequence)


def _json(step: Step, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "crons": [as_json(one) for one in step.crons],
        "events": [as_json(one) for one in step.events],
        "matching": step.matching if step.is_complete else None,
        "after": _later(step) or None,
        "longRetries": [
            {"app": one.app, "handler": one.name, "waiting": count}
            for one, count in long_retries(snapshot.handlers)
        ],
        "outboxes": [
            {"app": one.app, "waiting": one.waiting, "pulls": one.pulls}
            for one in outboxes(snapshot.handlers)
        ],
    }


def _version(snapshot: Snapshot) -> int:
    return version_of(snapshot.streams, snapshot.handlers)


PAGE = Page(path="/schedules", name="schedules", title="Schedules", facts=facts, version=_version)

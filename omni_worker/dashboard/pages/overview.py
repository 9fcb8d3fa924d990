"""Overview: every handler in one line, those that need a person first."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from ...operations.handler_status import HandlerStatus, as_json
from ...operations.processes import HandlerActivity
from ...transports.timestamps import iso
from ..charts import Chart, stacked
from ..page import Ask, Facts, Page, of_all
from ..rates import KEPT
from ..states import RECENT, HandlerLine, headline, in_order, line_of
from ..watch import Activity, Watch, total_open

MANY = 12  # handlers, from which on a filter is offered
BARS = 45  # of 20 seconds each
WIDTH, HEIGHT = 135, 26


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Judge every handler, and sum up."""
    watch = ask.services.watch
    span = watch.seconds(RECENT)
    every = in_order(handler_lines(watch, ask.now))
    asked = ask.text("q").lower()
    lines = [one for one in every if is_asked_for(one, asked)]
    title, care = headline(every)
    yield {
        "lines": lines,
        "q": ask.text("q"),
        "has_filter": bool(asked) or len(every) > MANY,
        "is_none": not every,
        "headline": title,
        "tone": care.name.lower(),
        "charts": [spark(one.activity, ask.now) for one in lines],
        "delivered": sum(one.delivered for one in lines) / span,
        "span": span,
        "failed": sum(one.retried + one.dead for one in lines),
        "waiting": sum(one.status.waiting for one in lines),
        "unacked": sum(one.status.unacked for one in lines),
        "open": total_open(watch.snapshot.letters),
        "lag": max((one.lag for one in lines), default=0.0),
        "json": _json(lines, watch, ask.now),
    }


def is_asked_for(line: HandlerLine, text: str) -> bool:
    """Tell if a handler's names, its state or its last error hold a text in lower case."""
    status = line.status
    names = (status.name, status.app or "", line.state.word, line.last, *status.streams)
    return any(text in name.lower() for name in names)


def handler_lines(watch: Watch, now: datetime) -> list[HandlerLine]:
    """Return a line for each handler that has a consumer, or did something lately."""
    snapshot = watch.snapshot
    found = {(one.app, one.name): one for one in snapshot.handlers if _is_shown(one)}
    counts = snapshot.letters or {}
    for app, name in [*counts, *watch.activity]:
        # Its consumers are gone, its letters are not.
        if name and (app, name) not in found and (counts.get((app, name)) or not found):
            found[app, name] = HandlerStatus(app=app, name=name)
    known = snapshot.letters is not None
    running: dict[tuple[str | None, str], list[HandlerActivity]] = {}
    for process in snapshot.processes or ():
        for each in process.handlers:
            running.setdefault((process.app, each.name), []).append(each)
    return [
        line_of(
            one, watch.of(whose), counts.get(whose, 0) if known else None, now,
            running=running.get(whose, ()),
        )
        for whose, one in found.items()
    ]  # fmt: skip


def spark(activity: Activity, now: datetime) -> Chart:
    """Draw fifteen minutes of one handler."""
    series = series_of(activity, now, BARS)
    return stacked(series, width=WIDTH, height=HEIGHT, least_top=2.0)


def series_of(activity: Activity, now: datetime, bars: int) -> list[tuple[str, list[float]]]:
    """Return what ended well, was repeated and was given up, in parts of fifteen minutes."""
    at = now.timestamp()
    retried = activity.retried.series(at, KEPT, bars)
    dead = activity.dead.series(at, KEPT, bars)
    fine = activity.handled.series(at, KEPT, bars)
    if not activity.is_reported:
        delivered = activity.delivered.series(at, KEPT, bars)
        fine = [
            max(0.0, all - again - given)
            for all, again, given in zip(delivered, retried, dead, strict=True)
        ]
    return [("fine", fine), ("again", retried), ("dead", dead)]


def _is_shown(one: HandlerStatus) -> bool:
    """Leave out what reads an app's retried letters, unless something is stuck there."""
    return not one.is_way_back or one.is_paused or bool(one.waiting or one.unacked)


def line_json(line: HandlerLine, now: datetime) -> dict[str, Any]:
    """Write a line for programs."""
    return as_json(line.status, now) | {
        "state": line.state.word,
        "openDeadLetters": line.letters,
        "lastFiveMinutes": {
            "delivered": round(line.delivered),
            "retried": round(line.retried),
            "dead": round(line.dead),
        },
        "lastError": line.last or None,
    }


def _json(lines: list[HandlerLine], watch: Watch, now: datetime) -> dict[str, Any]:
    snapshot = watch.snapshot
    return {
        "time": iso(now),
        "seen": iso(snapshot.at),
        "trouble": snapshot.trouble or None,
        "openDeadLetters": total_open(snapshot.letters),
        "handlers": [line_json(one, now) for one in lines],
    }


PAGE = Page(
    path="/", name="overview", title="Overview", facts=facts, version=of_all, is_shared=True
)

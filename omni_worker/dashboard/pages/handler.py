"""Handler: one handler's consumers, processes, last failures and dead letters."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ...letters.read import DeadLetter, LetterFilter
from ...operations.failures import Failure
from ...operations.failures import as_json as failure_json
from ...operations.handler_status import HandlerStatus
from ...operations.letter_json import as_json as letter_json
from ...operations.letter_search import search_letters
from ...operations.processes import HandlerActivity, WorkerProcess, process_json
from ...operations.status import ConsumerStatus
from ...operations.turns import Turn, with_processes
from ...operations.turns import as_json as turn_json
from ...steering.orders import scale_in_words
from ..charts import Chart, nice_top, stacked
from ..page import Ask, Facts, Page, of_all
from ..rates import KEPT
from ..states import HandlerLine, error_of
from ..watch import Problem, Snapshot
from .letters import row_of
from .overview import handler_lines, line_json, series_of

BARS = 90  # of ten seconds each
WIDTH, HEIGHT = 900, 150
LETTERS = 5
NOTICES = {
    "pause": "Paused: what has not begun is handed back.",
    "resume": "Resumed.",
    "scale": "Scaled: its processes follow.",
    "reset": "The scale is reset: its processes follow.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A failure in the list, with where it leads."""

    time: datetime
    error: str
    is_letter: bool
    attempt: int
    path: str
    values: dict[str, object]
    subject: str


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show one handler; its newest dead letters are read from the server."""
    watch = ask.services.watch
    app, name = ask.text("app") or None, ask.text("name")
    lines = _lines(ask, app, name)
    if not lines:
        await watch.counted()
        lines = _lines(ask, app, name)
    if not lines:
        yield {"line": None, "name": name, "status": 404, "json": {"error": "no such handler"}}
        return
    line = lines[0]
    running = processes_of(watch.snapshot.processes or (), line.status)
    turns = turns_of(line.status, watch.snapshot)
    chart, top = timeline(line, ask.now)
    letters = await _letters(ask, name) if line.letters else ()
    problems = [seen(one) for one in reversed(line.activity.problems)]
    yield {
        "line": line,
        "notice": NOTICES.get(ask.text("done"), ""),
        "is_steerable": is_steerable(line.status),
        "scaled": scaled_in_words(line.status),
        "span": watch.seconds(300.0),
        "chart": chart,
        "top": top,
        "processes": running,
        "turns": [(one.stream, turn) for one, turn in turns],
        "roles": roles_of([turn for _, turn in turns]),
        "is_asked": watch.snapshot.processes is not None,
        "options": options_of(line.status, running),
        "function": next((one.function for _, one in running if one.function), ""),
        "mean": _mean([one for _, one in running]),
        "problems": problems,
        "rows": [row_of(one) for one in letters],
        "since": ask.now - timedelta(seconds=KEPT),
        "json": line_json(line, ask.now) | {
            "processes": [process_json(one) for one, _ in running],
            "turns": [
                {"stream": one.stream, "consumer": one.name, **(turn_json(turn) or {})}
                for one, turn in turns
            ],
            "lastFailures": [
                failure_json(one) if isinstance(one, Failure) else letter_json(one)
                for one in reversed(line.activity.problems)
            ],
        },
    }  # fmt: skip


def is_steerable(status: HandlerStatus) -> bool:
    """Return True for a handler of ours that has a consumer on the server."""
    return bool(status.app and status.consumers) and not status.is_way_back


def scaled_in_words(status: HandlerStatus) -> str:
    """Say who scaled a handler, and why; empty if it is as declared."""
    return "" if status.scale is None else scale_in_words(status.scale, status.name)


def processes_of(
    processes: tuple[WorkerProcess, ...], status: HandlerStatus
) -> list[tuple[WorkerProcess, HandlerActivity]]:
    """Return the processes that run a handler, each with what it does there."""
    return [
        (process, one)
        for process in processes
        if process.app == status.app
        for one in process.handlers
        if one.name == status.name
    ]


def turns_of(status: HandlerStatus, snapshot: Snapshot) -> list[tuple[ConsumerStatus, Turn]]:
    """Return who is served at each consumer that serves one process at a time."""
    asked = snapshot.processes
    return [
        (
            one,
            one.turn if asked is None or snapshot.is_denied_processes
            else with_processes(one.turn, asked, one.app, one.stream, one.name),
        )
        for one in status.consumers
        if one.turn is not None
    ]  # fmt: skip


def roles_of(turns: list[Turn]) -> dict[str, str]:
    """Say of each process, by id, whether it is served anywhere or stands by."""
    waiting = {one.id: "stands by" for turn in turns if turn.is_taken for one in turn.standby}
    return waiting | {one.id: "active" for turn in turns for one in turn.active}


def timeline(line: HandlerLine, now: datetime) -> tuple[Chart, float]:
    """Draw fifteen minutes, and name the rate at the upper edge."""
    series = series_of(line.activity, now, BARS)
    most = max((sum(column) for column in zip(*(values for _, values in series), strict=True)),
               default=0.0)  # fmt: skip
    seconds = KEPT / BARS
    top = nice_top(max(most / seconds, 0.2) * 10) / 10
    chart = stacked(series, width=WIDTH, height=HEIGHT, gap=2, least_top=top * seconds)
    return chart, top


def options_of(
    status: HandlerStatus, running: list[tuple[WorkerProcess, HandlerActivity]]
) -> list[tuple[str, Any]]:
    """Return the options in force, as the server and the processes have them."""
    found: dict[str, Any] = {}
    for consumer in status.consumers:
        found.setdefault("ack_wait", f"{consumer.ack_wait:g} s" if consumer.ack_wait else None)
        found.setdefault("max_ack_pending", consumer.max_ack_pending)
    for _, one in running:
        adapts = f"auto, now {one.concurrency}"
        found.setdefault("concurrency", adapts if one.adapts else one.concurrency)
        found.setdefault("prefetch", "adaptive" if one.prefetch is None else one.prefetch)
        found.setdefault("queue", one.queue)
    return [(name, value) for name, value in found.items() if value not in (None, "")]


def seen(one: Problem) -> Seen:
    """Make the row of a failure."""
    if isinstance(one, DeadLetter):
        return Seen(
            time=one.time, error=error_of(one), is_letter=True, attempt=one.attempts,
            path="/letter", values={"number": one.sequence}, subject=one.subject or "",
        )  # fmt: skip
    return Seen(
        time=one.time, error=one.error, is_letter=False, attempt=one.attempt, path="/event",
        values={"id": f"{one.stream}:{one.sequence}"} if one.stream else {}, subject=one.subject,
    )  # fmt: skip


def _lines(ask: Ask, app: str | None, name: str) -> list[HandlerLine]:
    """Return the lines of a name; only the app's own where it is known."""
    lines = [one for one in handler_lines(ask.services.watch, ask.now) if one.status.name == name]
    return [one for one in lines if app is not None and one.status.app == app] or lines


async def _letters(ask: Ask, name: str) -> tuple[DeadLetter, ...]:
    found: tuple[DeadLetter, ...] = ()
    wanted = LetterFilter(handlers={name})
    async for step in search_letters(ask.services.transport, wanted, limit=LETTERS):
        found = step.letters
        if found:
            break
    return found


def _mean(activities: list[HandlerActivity]) -> float:
    runs = sum(one.runs for one in activities)
    return sum(one.busy_seconds for one in activities) / runs if runs else 0.0


PAGE = Page(
    path="/handler", name="handler", title="Handler", facts=facts, version=of_all,
    parent="overview",
)  # fmt: skip

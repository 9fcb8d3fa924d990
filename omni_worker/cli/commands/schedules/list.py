"""`omni-worker schedules list`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from ....listeners.text import short_id
from ....operations.schedules import ScheduledEvent, as_json, next_schedules
from ....settings import Settings
from ....transports.base import Transport
from ... import complain, say
from ...session import run_operation
from ...tables import grouped, json_text, lasting, table, wrapped
from ...values import app_name_option, json_option


@click.command("list")
@app_name_option("Only events of this app.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
    help="Show at most N.",
)  # fmt: skip
@json_option
def command(app: str | None, limit: int, json: bool) -> int:
    """List events that are not due yet and crons, the next one first.

    \b
    DUE      its time in this machine's zone, without the year if it is this one
    IN       how long it takes until then, or that it is paused
    NAME     its key or its id, or a cron's durable: what cancel and run-now take
    EVENT    its subject; of a cron, its times

    \b
    omni-worker schedules list
    omni-worker schedules list --app-name bot --json

    Exit codes: 0 also when there are none, 1 failed, 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        found, total = await next_schedules(transport, app, limit=limit)
        if json:
            say(json_text([as_json(one) for one in found], indent=2))
            if total > len(found):
                complain(_more(found, total))
        else:
            say(_lines(found, total, settings, app))
        return 0

    return run_operation(work)


def _lines(
    found: Sequence[ScheduledEvent], total: int, settings: Settings, app: str | None
) -> list[str]:
    if not found:
        whose = f" of {app}" if app else ""
        return wrapped(f"No event{whose} is scheduled on {settings.shown_urls}.")
    now = datetime.now(UTC)
    rows = [
        [
            _due(one.due.astimezone(), now.astimezone()),
            "paused" if one.pause else lasting(max(0.0, (one.due - now).total_seconds())),
            one.app,
            one.name if one.key or one.cron else short_id(one.id),
            _what(one),
        ]
        for one in found
    ]
    lines = table([f"DUE ({now.astimezone():%Z})", "IN", "APP", "NAME", "EVENT"], rows, right=(1,))
    if total > len(found):
        lines += ["", _more(found, total)]
    return lines


def _due(when: datetime, now: datetime) -> str:
    return f"{when:%m-%d %H:%M:%S}" if when.year == now.year else f"{when:%Y-%m-%d}"


def _more(found: Sequence[ScheduledEvent], total: int) -> str:
    return f"{grouped(total - len(found))} more: --limit {total}"


def _what(one: ScheduledEvent) -> str:
    what = [one.subject if one.cron is None else f"cron {one.cron.shown}"]
    if one.pause is not None:
        what.append(one.pause.shown)
    return "  ".join(what)

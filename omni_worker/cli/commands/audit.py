"""`omni-worker audit`: published = handled + dead letters + in hand + waiting, by handler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import click

from ...app import App
from ...handler_consumers import planned_consumers
from ...notes import attempts
from ...operations.audit import Line, as_json, audit
from ...settings import Settings
from ...transports.base import Transport
from .. import FAILED, say
from ..session import run_for_app
from ..tables import counted, grouped, json_text, moment, printable, table, wrapped
from ..values import Moment, json_option

HEAD = ["HANDLER", "STREAM", "PUBLISHED", "HANDLED", "LETTERS", "IN HAND", "WAITING", "UNKNOWN"]


@click.command("audit")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--since", type=Moment(), default="24h", show_default=True, metavar="WHEN",
              help="Account for events stored since: 2h, 7d, a date.")  # fmt: skip
@json_option
def command(target: str, since: datetime, json: bool) -> int:
    """Account for every event that the handlers of an app should have seen.

    \b
    PUBLISHED  stored, or published later, and matching the handler
    HANDLED    settled by a worker: handled, or skipped as of another type
    LETTERS    became a dead letter
    IN HAND    delivered and not settled: it runs, or waits for a retry
    WAITING    not delivered yet, or published later and not due yet
    UNKNOWN    settled on the server, and no worker noted it

    The first is the sum of the others, to the event. The server says how many events match and how
    many are settled; the workers note each event that they settle, if they run with
    OMNI_WORKER_AUDIT=on. The account begins when the first of them started so, and goes back seven
    days at most. A worker notes every ten seconds, and this command waits for that.

    A worker killed with -9 takes its last notes with it: up to ten seconds of what it handled stays
    unknown. Killed workers are named that may have been alive when the oldest unknown event was
    stored. Without one, another program acknowledged the events, or they were lost.

    \b
    omni-worker audit myapp:app
    omni-worker audit myapp:app --since 7d --json | jq '.[].unaccounted'

    Exit codes: 0 it balances, up to what a killed worker may explain; 1 it does not, there is no
    account, or no answer; 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings, app: App) -> int:
        standing = [info.config for info in await transport.operators.streams()]
        planned = [planned_consumers(one, app.registry, settings, standing) for one in app.handlers]
        lines = await audit(
            transport, planned, since=since, bucket=attempts.BUCKET, ttl=attempts.TTL
        )
        say(json_text([as_json(one) for one in lines], indent=2) if json else _text(lines, since))
        return 0 if all(one.is_balanced and not one.why_not for one in lines) else FAILED

    return run_for_app(target, work)


def _text(lines: Sequence[Line], since: datetime) -> Iterator[str]:
    rows = [
        (
            one.handler.short, one.stream,
            *map(grouped, (one.published, one.handled, one.letters, one.in_hand, one.waiting)),
            grouped(one.unaccounted),
        )
        for one in lines if not one.why_not
    ]  # fmt: skip
    if rows:
        yield from table(HEAD, rows, right=(2, 3, 4, 5, 6, 7))
    for one in lines:
        for said in _remarks(one):
            about = f"{one.handler.shown} on {one.stream}"
            yield from wrapped(printable(f"{about}: {said}"), rest="  ")
    yield from wrapped(_in_short(lines, since))


def _remarks(line: Line) -> Iterator[str]:
    """Say what the numbers of a line do not."""
    unknown = grouped(line.unaccounted)
    if line.why_not:
        yield line.why_not
    if line.later:
        yield f"of those waiting {grouped(line.later)} are published later"
    if line.begun is not None:
        yield (
            f"its account begins at {moment(line.begun)}, and"
            f" {_are(line.older, 'older event')} not in it"
        )
    if line.killed and line.unaccounted:
        yield f"up to {unknown} unknown: killed without a last note: {', '.join(line.killed)}"
    elif line.unaccounted:
        yield f"{unknown} unknown: settled on the server, and no worker noted it"


def _in_short(lines: Sequence[Line], since: datetime) -> str:
    """Say whether it balances; never more than the lines do."""
    if not lines:
        return "No handlers: declare one with @app.on(...)"
    lost = sum(one.unaccounted for one in lines if not one.is_balanced)
    killed = sum(one.unaccounted for one in lines if one.is_balanced)
    without = sum(bool(one.why_not) for one in lines)
    found = [
        *([f"{_are(lost, 'event')} not accounted for"] if lost else ()),
        *(
            [f"{_are(killed, 'event')} unknown, which last notes of killed workers may explain"]
            if killed
            else ()
        ),
        *([f"{_are(without, 'handler')} without an account"] if without else ()),
    ]
    if found:
        return "; ".join(found) + "."
    begin = ", from where each account begins" if any(one.begun for one in lines) else ""
    return f"Every event since {moment(since)} is accounted for{begin}."


def _are(number: int, what: str) -> str:
    return f"{counted(number, what)} {'is' if number == 1 else 'are'}"

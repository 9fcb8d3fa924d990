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
from ..tables import grouped, json_text, moment, printable, table, wrapped
from ..values import Moment, json_option

HEAD = ["HANDLER", "STREAM", "PUBLISHED", "HANDLED", "LETTERS", "IN HAND", "WAITING"]


@click.command("audit")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--since", type=Moment(), default="24h", show_default=True, metavar="WHEN",
              help="Account for events stored since: 2h, 7d, a date.")  # fmt: skip
@json_option
def command(target: str, since: datetime, json: bool) -> int:
    """Account for every event that the handlers of an app had to see.

    \b
    PUBLISHED  stored, or published later, and matching the handler
    HANDLED    settled by a worker: handled, or skipped as of another type
    LETTERS    became a dead letter
    IN HAND    delivered and not settled: it runs, or waits for a retry
    WAITING    not delivered yet, or published later and not due yet

    The first is the sum of the others, to the event. The server says how many events match and how
    many are settled; the workers note each event that they settle, if they run with
    OMNI_WORKER_AUDIT=on. The account begins when the first of them started so, and goes back seven
    days at most. A worker notes every ten seconds, and this command waits for that.

    Events that the server calls settled and no worker noted are unaccounted. A worker killed with
    -9 takes its last notes with it; then they may be its own: unaccounted <= N.

    \b
    omni-worker audit myapp:app
    omni-worker audit myapp:app --since 7d --json | jq '.[].unaccounted'

    Exit codes: 0 it balances, up to what a killed worker explains; 1 it does not, there is no
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
        )
        for one in lines if not one.why_not
    ]  # fmt: skip
    if rows:
        yield from table(HEAD, rows, right=(2, 3, 4, 5, 6))
    for one in lines:
        about = f"{one.handler.shown} on {one.stream}"
        if one.later:
            yield from wrapped(
                f"{about}: of those waiting {grouped(one.later)} are published later", rest="  "
            )
        if one.why_not:
            yield from wrapped(f"{about}: {one.why_not}", rest="  ")
        elif one.killed and one.unaccounted:
            killed = printable(", ".join(one.killed))
            yield from wrapped(
                f"{about}: unaccounted <= {grouped(one.unaccounted)}: killed without a last note:"
                f" {killed}", rest="  ",
            )  # fmt: skip
        elif one.unaccounted:
            yield from wrapped(
                f"{about}: {grouped(one.unaccounted)} unaccounted: settled on the server, and no"
                " worker noted it", rest="  ",
            )  # fmt: skip
    if not lines:
        yield "No handlers: declare one with @app.on(...)"
    elif rows and all(one.is_balanced and not one.why_not for one in lines):
        yield from wrapped(
            f"Every event since {moment(since)} is accounted for, or since the account began."
        )

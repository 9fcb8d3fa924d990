"""`omni-worker dead-letters list`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import click

from ....letters.read import DeadLetter
from ....operations.dead_letters import DeadLetters
from ....operations.handler_names import HandlerNames, handler_names
from ....operations.letter_json import as_json
from ....settings import Settings
from ....transports.base import Transport
from ... import say
from ...session import Progress, run_with_app
from ...tables import ago, grouped, json_text, table, wrapped
from ...values import json_lines_option
from .chosen import Filters, filter_options, handlers_of, letters_of, shown_handler

if TYPE_CHECKING:
    from ....app import App


@click.command("list")
@filter_options
@click.option("--all", is_flag=True, help="Retried and discarded ones, too.")
@click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, metavar="N",
    help="Only the last N; 0: all.",
)  # fmt: skip
@json_lines_option
def command(filters: Filters, limit: int, json: bool) -> int:
    """List the dead letters that are open, the newest last.

    TRIES is how many runs of the handler counted ("-": none); a run whose process died may not
    count. --handler takes its function or its durable; with --app also where no consumer of it
    exists. An unverified one may be forged: see retry. In JSON "verified" is null with --limit 0.

    \b
    omni-worker dead-letters list --handler r1 --since 2h
    omni-worker dead-letters list --handler greet --error Timeout
    omni-worker dead-letters list --json --limit 0 | jq .error

    Exit codes: 0 also when there are none, 1 failed, 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings, app: App | None) -> int:
        letters = DeadLetters(transport, handlers=handlers_of(app))
        progress = Progress("dead letters read:")
        shown: deque[DeadLetter] = deque(maxlen=limit or None)
        count = 0
        async for letter in letters_of(letters, filters, progress):
            count += 1
            if json and not limit:
                progress.clear()
                say(json_text(as_json(letter)))
            else:
                shown.append(letter)
        progress.clear()
        verified = await letters.with_doubts(shown)
        if json:
            for letter in verified:
                say(json_text(as_json(letter)))
        else:
            names = await handler_names(transport.operators, handlers_of(app))
            say(_listing(verified, count, filters, settings, names))
        return 0

    return run_with_app(filters.target, work)


def _listing(
    shown: list[DeadLetter], count: int, filters: Filters, settings: Settings, names: HandlerNames
) -> list[str]:
    everything = filters.all
    if not shown:
        kind = "" if filters == Filters(all=everything) else "such "
        kind += "" if everything else "open "
        more = "" if everything else "; --all shows those retried or discarded"
        if filters.handler is not None and filters.target is None:
            more += "; the function of a handler without a consumer is known with --app MODULE:APP"
        return wrapped(f"No {kind}dead letter on {settings.shown_urls}{more}.")
    head = ["#", "AGE", "TYPE", "HANDLER", "TRIES", "ERROR"]
    rows = [
        [one.sequence, ago(one.time), one.event_type or "-", shown_handler(one, names) or "-",
         one.attempts or "-", ("(unverified) " if one.doubt else "") + (one.line or "-")]
        for one in shown
    ]  # fmt: skip
    if everything:
        head.insert(2, "STATE")
        for row, one in zip(rows, shown, strict=True):
            row.insert(2, one.state)
    lines = table(head, rows, right=(0, 4 + everything), is_whole=True)
    if count > len(shown):
        lines += wrapped(
            f"The last {len(shown)} of {grouped(count)}; --limit 0 shows all,"
            " --handler, --type, --error and --since choose."
        )
    last = shown[-1].sequence
    return [*lines, "", f"Look into one:  omni-worker dead-letters show {last}"]

"""`omni-worker scale`: run more or fewer events of a handler at once, in every process."""

from __future__ import annotations

import click

from ...settings import Settings
from ...steering.controls import MOST, Carried, Controls, this_person
from ...steering.orders import ScaleOrder, scale_in_words
from ...transports.base import Transport
from .. import CALLED_WRONGLY, complain, say
from ..session import run_operation
from ..tables import wrapped
from ..values import app_name_option


@click.command("scale")
@click.argument("handler")
@click.argument("concurrency", type=click.IntRange(1, MOST), required=False)
@click.option("--reset", is_flag=True, help="As many as the handler declares, again.")
@click.option("--reason", default="", metavar="TEXT", help="Shown wherever the number is shown.")
@app_name_option("If several apps have a handler of this name.")
def command(
    handler: str, concurrency: int | None, reset: bool, reason: str, app: str | None
) -> int:
    """Run CONCURRENCY events of a handler at once in each process, until --reset.

    HANDLER is its durable or its function, as `omni-worker status` shows them. Running processes
    follow at once, and those started later as well, whatever concurrency= their version declares.
    With fewer, nothing that runs is stopped; what waits beyond them is handed back, no attempt
    spent.

    \b
    omni-worker scale r1 20
    omni-worker scale r1 2 --reason 'the bank is slow'
    omni-worker scale r1 --reset

    Exit codes: 0 scaled, or there was nothing to reset; 1 failed, 2 called wrongly.
    """
    if (concurrency is None) != reset:
        complain("scale HANDLER: give a number of events at once, or --reset")
        return CALLED_WRONGLY

    async def work(transport: Transport, settings: Settings) -> int:
        done = await Controls(transport, app, this_person).scale(handler, concurrency, reason)
        whose = f"{done.target.shown} of {done.target.app}"
        if isinstance(done.order, ScaleOrder):
            say(wrapped(f"{whose} is {scale_in_words(done.order, done.target.handler)}."))
        elif done.changed:
            say(wrapped(f"{whose} runs as many events at once as it declares."))
        else:
            say(wrapped(f"{whose} was not scaled."))
            return 0
        say(wrapped(_reached(done)))
        return 0

    return run_operation(work)


def _reached(done: Carried) -> str:
    if not done.heard:
        return "No process answered: one that runs notices within ten seconds."
    return f"Noticed by {done.heard} process{'es' if done.heard > 1 else ''}."

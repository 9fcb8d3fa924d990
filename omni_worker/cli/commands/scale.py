"""`omni-worker scale`: run more or fewer events of a handler at once, in every process."""

from __future__ import annotations

import click

from ...steering.controls import MOST, Carried
from ...steering.orders import ScaleOrder, scale_in_words
from .. import CALLED_WRONGLY, complain
from ..carried import carry_out
from ..values import app_name_option


@click.command("scale")
@click.argument("handler")
@click.argument("concurrency", type=click.IntRange(1, MOST), required=False)
@click.option("--reset", is_flag=True, help="As many as the handler declares, again.")
@click.option("--reason", default="", metavar="TEXT", help="Shown wherever the number is shown.")
@app_name_option("Its app, if several have a handler of this name.")
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

    return carry_out(
        app,
        lambda controls: controls.scale(handler, concurrency, reason),
        _did,
        is_heard=lambda done: done.order or done.changed,
    )


def _did(done: Carried) -> str:
    if isinstance(done.order, ScaleOrder):
        return f"is {scale_in_words(done.order, done.target.handler)}"
    return "runs as many events at once as it declares" if done.changed else "was not scaled"

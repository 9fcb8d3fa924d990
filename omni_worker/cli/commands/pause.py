"""`omni-worker pause`: deliver nothing to a handler, in any process."""

from __future__ import annotations

import click

from ...steering.controls import Carried
from ...steering.orders import PauseOrder, pause_in_words
from ..carried import carry_out
from ..values import Duration, app_name_option


@click.command("pause")
@click.argument("handler")
@click.option("--for", "seconds", type=Duration(), metavar="TIME", help="10m, 2h; then it resumes.")
@click.option("--reason", default="", metavar="TEXT", help="Shown wherever the pause is shown.")
@app_name_option("Its app, if several have a handler of this name.")
def command(handler: str, seconds: float | None, reason: str, app: str | None) -> int:
    """Deliver nothing to a handler, for a time or until `omni-worker resume`.

    HANDLER is its durable or its function, as `omni-worker status` shows them. The server pauses
    all its consumers, on every stream, whether workers run or not, and over restarts and deploys.
    Running handlers finish; what workers hold and have not begun is handed back, no attempt spent.
    Needs nats-server 2.11 or newer.

    \b
    omni-worker pause r1 --for 10m
    omni-worker pause r1 --reason 'the bank is down'

    Exit codes: 0 paused, 1 failed, 2 called wrongly.
    """

    return carry_out(
        app,
        lambda controls: controls.pause(handler, seconds, reason),
        _did,
        is_heard=lambda _: True,
    )


def _did(done: Carried) -> str:
    assert isinstance(done.order, PauseOrder)
    return f"is {pause_in_words(done.order, done.target.handler)}"

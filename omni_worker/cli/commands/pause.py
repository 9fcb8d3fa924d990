"""`omni-worker pause`: deliver nothing to a handler, in any process."""

from __future__ import annotations

import click

from ...settings import Settings
from ...steering.controls import Carried, Controls, this_person
from ...steering.orders import PauseOrder, pause_in_words
from ...transports.base import Transport
from .. import say
from ..session import run_operation
from ..tables import wrapped
from ..values import Duration, app_name_option


@click.command("pause")
@click.argument("handler")
@click.option("--for", "seconds", type=Duration(), metavar="TIME", help="10m, 2h; then it resumes.")
@click.option("--reason", default="", metavar="TEXT", help="Shown wherever the pause is shown.")
@app_name_option("If several apps have a handler of this name.")
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

    async def work(transport: Transport, settings: Settings) -> int:
        done = await Controls(transport, app, this_person).pause(handler, seconds, reason)
        assert isinstance(done.order, PauseOrder)
        target = done.target
        order = pause_in_words(done.order, target.handler)
        say(wrapped(f"{target.shown} of {target.app} is {order}."))
        say(wrapped(_reached(done)))
        return 0

    return run_operation(work)


def _reached(done: Carried) -> str:
    if not done.heard:
        return "No process answered: one that runs notices within ten seconds."
    return f"Noticed by {done.heard} process{'es' if done.heard > 1 else ''}."

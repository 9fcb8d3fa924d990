"""`omni-worker resume`: deliver again to a paused handler."""

from __future__ import annotations

import click

from ...settings import Settings
from ...steering.controls import Controls, this_person
from ...transports.base import Transport
from .. import say
from ..session import run_operation
from ..tables import wrapped
from ..values import app_name_option


@click.command("resume")
@click.argument("handler")
@app_name_option("If several apps have a handler of this name.")
def command(handler: str, app: str | None) -> int:
    """Deliver again to a handler, also if others paused it with another tool.

    \b
    omni-worker resume r1

    Exit codes: 0 resumed, or it was not paused; 1 failed, 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        done = await Controls(transport, app, this_person).resume(handler)
        whose = f"{done.target.shown} of {done.target.app}"
        if not done.changed:
            say(wrapped(f"{whose} was not paused."))
            return 0
        say(wrapped(f"{whose} is resumed."))
        return 0

    return run_operation(work)

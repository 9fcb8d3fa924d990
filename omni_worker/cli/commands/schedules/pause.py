"""`omni-worker schedules pause`."""

from __future__ import annotations

import click

from ....operations.schedules import find_schedule, pause_schedule
from ....settings import Settings
from ....steering.controls import this_person
from ....transports.base import Transport
from ... import say
from ...session import run_operation
from ...tables import wrapped
from ...values import app_name_option


@click.command("pause")
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Shown by omni-worker schedules list.")
@app_name_option("If several apps have scheduled this name.")
def command(name: str, reason: str, app: str | None) -> int:
    """Keep an event from being due, by its key or its id; a cron by its durable.

    It stays so, over restarts and deploys, until omni-worker schedules resume. The times of a
    paused cron pass without an event. What was due before waits for its handler as always; to
    stop that, use omni-worker pause.

    \b
    omni-worker schedules pause report --reason 'the bank is closed'

    Exit codes: 0 paused, 1 failed, or nothing is scheduled by this name; 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        event = await find_schedule(transport, name, app)
        await pause_schedule(transport, event, by=this_person(), reason=reason)
        shown, due = f"{event.name} of {event.app}", f"{event.due:%Y-%m-%d %H:%M:%S}"
        next_time = "it was to be due" if event.cron is None else "its next time was"
        again = f"omni-worker schedules resume {event.name}"
        say(wrapped(f"{shown} is paused; {next_time} at {due} UTC. To go on: {again}"))
        return 0

    return run_operation(work)

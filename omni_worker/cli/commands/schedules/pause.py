"""`omni-worker schedules pause`."""

from __future__ import annotations

import click

from ....operations.schedules import ScheduledEvent, pause_schedule
from ....steering.controls import this_person
from ....transports.base import Transport
from .found import of_app, on_schedule, shown


@click.command("pause")
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Shown by omni-worker schedules list.")
@of_app
def command(name: str, reason: str, app: str | None) -> int:
    """Keep an event from being due, by its key or its id; a cron by its durable.

    It stays so, over restarts and deploys, until omni-worker schedules resume. The times of a
    paused cron pass without an event. What was due before waits for its handler as always; to
    stop that, use omni-worker pause.

    \b
    omni-worker schedules pause report --reason 'the bank is closed'

    Exit codes: 0 paused, 1 failed, or nothing is scheduled by this name; 2 called wrongly.
    """

    async def act(transport: Transport, event: ScheduledEvent) -> str:
        await pause_schedule(transport, event, by=this_person(), reason=reason)
        whose, due = shown(event)
        is_cron = event.cron is not None
        next_time = "its next time was" if is_cron else "it was to be due"
        left_out = " Times until it is resumed are left out." if is_cron else ""
        again = f"omni-worker schedules resume {event.name}"
        return f"{whose} is paused; {next_time} at {due}.{left_out} To go on: {again}"

    return on_schedule(name, app, act)

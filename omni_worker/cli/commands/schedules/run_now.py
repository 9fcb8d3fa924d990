"""`omni-worker schedules run-now`."""

from __future__ import annotations

import click

from ....operations.schedules import find_schedule, run_schedule_now
from ....settings import Settings
from ....transports.base import Transport
from ... import say
from ...session import run_operation
from ...tables import wrapped
from ...values import app_name_option


@click.command("run-now")
@click.argument("name")
@app_name_option("If several apps have scheduled this name.")
def command(name: str, app: str | None) -> int:
    """Publish an event now that is not due yet, by its key or its id.

    Of a cron, by its durable, one event more is published; its times stay.

    A process of its app publishes it at once, or when one connects.

    \b
    omni-worker schedules run-now follow-up:chat-7

    Exit codes: 0 due now, 1 failed, or nothing is scheduled by this name; 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        event = await find_schedule(transport, name, app)
        await run_schedule_now(transport, event)
        shown, due = f"{event.name} of {event.app}", f"{event.due:%Y-%m-%d %H:%M:%S}"
        if event.cron is None:
            say(wrapped(f"{shown} is due now; it was due at {due} UTC."))
        else:
            say(wrapped(f"{shown} has one event more, due now; its next time is {due} UTC."))
        return 0

    return run_operation(work)

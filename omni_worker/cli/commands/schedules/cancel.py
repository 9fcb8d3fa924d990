"""`omni-worker schedules cancel`."""

from __future__ import annotations

import click

from ....operations.schedules import cancel_schedule, find_schedule
from ....settings import Settings
from ....transports.base import Transport
from ... import say
from ...session import run_operation
from ...tables import wrapped
from ...values import app_name_option


@click.command("cancel")
@click.argument("name")
@app_name_option("If several apps have scheduled this name.")
def command(name: str, app: str | None) -> int:
    """Cancel an event that is not due yet, by its key or its id; a cron by its durable.

    The event is not published. What its app schedules later by the same key is. A cron begins
    again when a process starts that declares it; to stop its handler, use omni-worker pause.

    \b
    omni-worker schedules cancel follow-up:chat-7

    Exit codes: 0 cancelled, 1 failed, or nothing is scheduled by this name; 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        event = await find_schedule(transport, name, app)
        await cancel_schedule(transport, event)
        shown, due = f"{event.name} of {event.app}", f"{event.due:%Y-%m-%d %H:%M:%S}"
        if event.cron is None:
            say(wrapped(f"{shown} is cancelled; it was due at {due} UTC."))
        else:
            say(wrapped(f"The cron {shown} is removed; its next time was {due} UTC."))
        return 0

    return run_operation(work)

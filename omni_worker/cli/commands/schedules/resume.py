"""`omni-worker schedules resume`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from ....operations.schedules import ScheduledEvent, find_schedule, resume_schedule
from ....settings import Settings
from ....transports.base import Transport
from ... import say
from ...session import run_operation
from ...tables import wrapped
from ...values import app_name_option


@click.command("resume")
@click.argument("name")
@app_name_option("If several apps have scheduled this name.")
def command(name: str, app: str | None) -> int:
    """End the pause of an event, by its key or its id, or of a cron, by its durable.

    An event whose time is over is due now. A cron goes on with its next time.

    \b
    omni-worker schedules resume report

    Exit codes: 0 it is not paused, 1 failed, or nothing is scheduled by this name; 2 called
    wrongly.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        event = await find_schedule(transport, name, app)
        if event.pause is not None:
            await resume_schedule(transport, event)
        say(wrapped(_said(event)))
        return 0

    return run_operation(work)


def _said(event: ScheduledEvent) -> str:
    shown, due = f"{event.name} of {event.app}", f"{event.due:%Y-%m-%d %H:%M:%S}"
    if event.pause is None:
        return f"{shown} is not paused; it is due at {due} UTC."
    if event.cron is None and event.due <= datetime.now(UTC):
        return f"{shown} is resumed and due now; it was to be due at {due} UTC."
    return f"{shown} is resumed; it is due at {due} UTC."

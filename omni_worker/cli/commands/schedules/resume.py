"""`omni-worker schedules resume`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from ....operations.schedules import ScheduledEvent, resume_schedule
from ....transports.base import Transport
from .found import of_app, on_schedule, shown


@click.command("resume")
@click.argument("name")
@of_app
def command(name: str, app: str | None) -> int:
    """End the pause of an event, by its key or its id, or of a cron, by its durable.

    An event whose time is over is due now. A cron goes on with its next time.

    \b
    omni-worker schedules resume report

    Exit codes: 0 it is not paused, 1 failed, or nothing is scheduled by this name; 2 called
    wrongly.
    """

    async def act(transport: Transport, event: ScheduledEvent) -> str:
        if event.pause is not None:
            await resume_schedule(transport, event)
        return _said(event)

    return on_schedule(name, app, act)


def _said(event: ScheduledEvent) -> str:
    whose, due = shown(event)
    if event.pause is None:
        return f"{whose} is not paused; it is due at {due}."
    if event.cron is None and event.due <= datetime.now(UTC):
        return f"{whose} is resumed and due now; it was to be due at {due}."
    return f"{whose} is resumed; it is due at {due}."

"""`omni-worker schedules cancel`."""

from __future__ import annotations

import click

from ....operations.schedules import ScheduledEvent, cancel_schedule
from ....transports.base import Transport
from .found import of_app, on_schedule, shown


@click.command("cancel")
@click.argument("name")
@of_app
def command(name: str, app: str | None) -> int:
    """Cancel an event that is not due yet, by its key or its id; a cron by its durable.

    The event is not published. What its app schedules later by the same key is. A cron begins
    again when a process starts that declares it; to stop its handler, use omni-worker pause.

    \b
    omni-worker schedules cancel follow-up:chat-7

    Exit codes: 0 cancelled, 1 failed, or nothing is scheduled by this name; 2 called wrongly.
    """

    async def act(transport: Transport, event: ScheduledEvent) -> str:
        await cancel_schedule(transport, event)
        whose, due = shown(event)
        if event.cron is None:
            return f"{whose} is cancelled; it was due at {due}."
        return f"The cron {whose} is removed; its next time was {due}."

    return on_schedule(name, app, act)

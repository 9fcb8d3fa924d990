"""`omni-worker schedules run-now`."""

from __future__ import annotations

import click

from ....operations.schedules import ScheduledEvent, run_schedule_now
from ....transports.base import Transport
from .found import of_app, on_schedule, shown


@click.command("run-now")
@click.argument("name")
@of_app
def command(name: str, app: str | None) -> int:
    """Publish an event now that is not due yet, by its key or its id.

    Of a cron, by its durable, one event more is published; its times stay.

    A process of its app publishes it at once, or when one connects.

    \b
    omni-worker schedules run-now follow-up:chat-7

    Exit codes: 0 due now, 1 failed, or nothing is scheduled by this name; 2 called wrongly.
    """

    async def act(transport: Transport, event: ScheduledEvent) -> str:
        await run_schedule_now(transport, event)
        whose, due = shown(event)
        if event.cron is None:
            return f"{whose} is due now; it was due at {due}."
        return f"{whose} has one event more, due now; its next time is {due}."

    return on_schedule(name, app, act)

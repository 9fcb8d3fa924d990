"""`omni-worker schedules`: a file for each of its commands."""

from __future__ import annotations

import click

from ...group import Commands

SECTIONS = {
    "Commands": {
        "list": "List events that are published later, and crons.",
        "cancel": "Cancel an event that is not due yet, or a cron.",
        "pause": "Keep an event, or a cron, from being due.",
        "resume": "End the pause of an event or a cron.",
        "run-now": "Publish an event now that is not due yet.",
    }
}


@click.group("schedules", cls=Commands, package=__name__, sections=SECTIONS)
def command() -> None:
    """List, cancel, pause or run early what was published with after= or at=.

    The server keeps them until they are due; a process of their app then publishes them.
    """

"""`omni-worker consumers`: a file for each of its commands."""

from __future__ import annotations

import click

from ...group import Commands

SECTIONS = {
    "Commands": {
        "list": "List consumers that stay, or those no handler reads.",
        "rm": "Remove consumers that no handler reads any longer.",
    }
}


@click.group("consumers", cls=Commands, package=__name__, sections=SECTIONS)
def command() -> None:
    """List and remove the consumers that stay on the server until they are deleted.

    A handler that was renamed or deleted leaves its consumer behind. The server goes on counting
    what waits for it, and a stream that keeps events for its consumers keeps them for this one.
    """

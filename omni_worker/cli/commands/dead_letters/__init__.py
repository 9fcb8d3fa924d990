"""`omni-worker dead-letters`: a file for each of its commands."""

from __future__ import annotations

import click

from ...group import Commands

SECTIONS = {
    "Commands": {
        "list": "List the dead letters that are open, the newest last.",
        "show": "Show one: why, where, and how the handler failed.",
        "retry": "Send events back to the handler they failed in.",
        "discard": "Discard dead letters: they are no longer listed.",
    }
}


@click.group("dead-letters", cls=Commands, package=__name__, sections=SECTIONS)
def command() -> None:
    """List, show, retry and discard dead letters.

    A dead letter is an event that was given up: its attempts were used up, its handler rejected
    it, or it could not be read. LETTER is the number that `list` shows, its id, or the id of its
    event: the first eight characters are enough.
    """

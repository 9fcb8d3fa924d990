"""`omni-worker schemas`: a file for each of its commands."""

from __future__ import annotations

import click

from ...group import Commands

SECTIONS = {
    "Commands": {
        "check": "Read stored events, or old schemas, with the models of now.",
        "dump": "Write the models as JSON schemas, to check against later.",
    }
}


@click.group("schemas", cls=Commands, package=__name__, sections=SECTIONS)
def command() -> None:
    """Find out before a deploy which events the models of an app would refuse.

    An event that a model refuses becomes a dead letter at once.
    """

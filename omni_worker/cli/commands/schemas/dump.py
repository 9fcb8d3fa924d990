"""`omni-worker schemas dump`: the models of an app, as JSON schemas."""

from __future__ import annotations

import click

from ....operations.schema_dump import dump
from ... import CALLED_WRONGLY, complain, say
from ...session import CalledWrongly, loaded
from ...tables import json_text


@click.command("dump")
@click.argument("target", metavar="MODULE[:APP]")
def command(target: str) -> int:
    """Write the models of an app as JSON schemas: each handler's, each registered type's.

    Keep the file with a release; `schemas check --against` compares a later one with it. No
    server is needed.

    \b
    omni-worker schemas dump myapp:app > schemas.json

    Exit codes: 0 written, 2 called wrongly.
    """
    try:
        app = loaded(target)
    except CalledWrongly as error:
        complain(str(error))
        return CALLED_WRONGLY
    say(json_text(dump(app.name, app.handlers, app.registry), indent=2))
    return 0

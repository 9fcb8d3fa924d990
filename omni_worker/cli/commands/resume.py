"""`omni-worker resume`: deliver again to a paused handler."""

from __future__ import annotations

import click

from ..carried import carry_out
from ..values import app_name_option


@click.command("resume")
@click.argument("handler")
@app_name_option("Its app, if several have a handler of this name.")
def command(handler: str, app: str | None) -> int:
    """Deliver again to a handler, also if others paused it with another tool.

    HANDLER is its durable or its function, as `omni-worker status` shows them.

    \b
    omni-worker resume r1

    Exit codes: 0 resumed, or it was not paused; 1 failed, 2 called wrongly.
    """

    return carry_out(
        app,
        lambda controls: controls.resume(handler),
        lambda done: "is resumed" if done.changed else "was not paused",
        is_heard=lambda _: False,  # the server delivers again at once
    )

"""`omni-worker dev`: its options; the parent and its processes are in `cli/dev`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...nats_server import USUAL_PORT
from .. import complain
from ..common_options import given
from ..dev import DevOptions, run_dev
from ..environment import unknown


@click.command("dev")
@click.argument("target", metavar="MODULE[:APP]")
@click.option(
    "--watch", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Watch this directory, not the current one; may be repeated.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="HANDLER",
    help="Run this handler, by durable or function; may be repeated.",
)  # fmt: skip
@click.option(
    "--except", "without", multiple=True, metavar="HANDLER",
    help="Run every handler but this one; may be repeated.",
)  # fmt: skip
@click.option("--payloads", is_flag=True, help="Show the events' payloads, too.")
@click.option(
    "--port", default=USUAL_PORT, show_default=True, metavar="PORT",
    help="Its server's, if free; 0 takes a free one.",
)  # fmt: skip
@click.option("--ephemeral", is_flag=True, help="Keep no data between runs.")
@click.option("--use-running", is_flag=True, help="Use the server that listens on the port.")
@click.option("--dashboard/--no-dashboard", default=True, help="Live pages, on port 8787 if free.")
@click.option(
    "--log-level", default="info", envvar="OMNI_WORKER_LOG_LEVEL", show_default=True,
    metavar="LEVEL", help="debug, info, warning …",
)  # fmt: skip
def command(**options: Any) -> int:
    """Run an app while you write it: with its own server, reloaded on every save.

    Each event is a line: its type, the handler that ran, and the result. On a save the running
    code hands back its unfinished events, and the new code continues. With NATS_URL set that
    server is used. Without --env-file the variables are those of .env, if there is one. Ctrl-C
    stops after the running handlers, a second one at once.
    """
    for line in unknown():
        complain(line)
    return run_dev(DevOptions(**options, given=given()))

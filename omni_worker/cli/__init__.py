"""The command line: the table of commands, and how they print. A command is imported when called.

`--help` answers from the table; the work is in `commands/`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import click

from ..listeners.text import visible
from ..masking import without_secrets
from ..process.exit_codes import CALLED_WRONGLY as CALLED_WRONGLY
from ..process.exit_codes import FAILED as FAILED
from ..process.exit_codes import INTERRUPTED as INTERRUPTED
from .group import Commands, take_interrupts

WIDTH = 80

SECTIONS = {
    "Write a worker": {
        "init": "Write a small project: a handler, its test, how it is run.",
        "dev": "Run an app while you write it; every save reloads it.",
        "server": "Run a nats-server with JetStream, for development.",
        "publish": "Publish one event and wait until it is stored.",
    },
    "Run it": {
        "run": "Run the handlers of an app until SIGTERM or Ctrl-C.",
        "check": "Check whether a worker is alive, or ready.",
    },
    "Inspect": {
        "show": "Show what an app declares; no server is needed.",
        "asyncapi": "Write the AsyncAPI document of an app.",
        "dashboard": "Serve live pages: handlers, events, dead letters.",
        "status": "Show what is waiting for every consumer.",
        "tail": "Show events as they are stored, or past ones.",
        "trace": "Show where an event is and what became of it.",
        "doctor": "Check that a server keeps the promises; advise.",
        "audit": "Account for every event of an app, to the event.",
    },
    "Steer": {
        "pause": "Deliver nothing to a handler, for a time or until resume.",
        "resume": "Deliver again to a paused handler.",
        "scale": "Run more or fewer events of a handler at once.",
        "schedules": "List, cancel or pause what is published later.",
    },
    "Repair": {
        "schemas": "Check stored events against an app's models.",
        "consumers": "List consumers; remove what no handler reads.",
        "plan": "Compare a server with what an app needs; --apply.",
        "dead-letters": "List, show, retry and discard dead letters.",
        "replay": "Run past events through one handler again.",
    },
    "Other": {
        "completion": "Write a completion script for your shell.",
        "version": "Show the versions of omni-worker and its parts.",
    },
}


@click.group(
    cls=Commands,
    package=f"{__name__}.commands",
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)
@click.pass_context
def main(context: click.Context) -> None:
    """Event workers on NATS JetStream.

    The server is that of --server or NATS_URL (default nats://localhost:4222). Every setting is an
    environment variable: NATS_* for the connection, OMNI_WORKER_* for the rest. MODULE:APP is
    where an App object lives: `myapp:app`, `shop.workers:app`, `bots/echo.py`.

    Exit codes: 0 done, 1 failed, 2 called wrongly, 130 interrupted; a command's own
    codes are in its --help.
    """
    if context.invoked_subcommand != "run":  # it hears signals itself, as soon as it can
        take_interrupts()


def say(lines: str | Iterable[str], *, err: bool = False) -> None:
    """Print an answer on standard output. Nothing in it moves a terminal's cursor."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    click.echo(visible(text), err=err)


def complain(message: str) -> None:
    """Print an error on standard error; a traceback below its first line stays as it is."""
    said, newline, rest = f"omni-worker: {visible(without_secrets(message))}".partition("\n")
    # Paths and names are not broken: they are there to be copied.
    lines = textwrap.wrap(
        said, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    click.echo("\n".join(lines) + newline + rest, err=True)

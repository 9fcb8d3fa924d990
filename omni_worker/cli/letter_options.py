"""`omni-worker dead-letters`: what it takes; the work is in `dead_letters`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from .group import Commands
from .values import Moment, json_option, yes_option

Command = TypeVar("Command", bound=Callable[..., Any])

SECTIONS = {"Commands": ("list", "show", "retry", "discard")}


def _filters(command: Command) -> Command:
    """The options that choose letters."""
    for option in reversed((
        click.option("--type", metavar="TYPE", help="Only events of this type."),
        click.option("--handler", metavar="NAME", help="Only of this handler, as `list` names it."),
        click.option("--error", metavar="TEXT", help="Only with this in the error or its class."),
        click.option("--since", type=Moment(), metavar="WHEN", help="Not older: 2h, 7d, a date."),
        click.option("--until", type=Moment(), metavar="WHEN", help="Not younger."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.group("dead-letters", cls=Commands, sections=SECTIONS)
def dead_letters() -> None:
    """List, show, retry and discard dead letters.

    A dead letter is an event that was given up: its attempts were used up, its handler rejected
    it, or it could not be read. LETTER is the number that `list` shows, or an id: eight or more of
    its characters will do.
    """


@dead_letters.command("list")
@_filters
@click.option("--all", "everything", is_flag=True, help="Retried and discarded ones, too.")
@click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, metavar="N",
    help="Only the last N; 0: all.",
)  # fmt: skip
@json_option
def list_(
    type: str | None, handler: str | None, error: str | None, since: datetime | None,
    until: datetime | None, everything: bool, limit: int, as_json: bool,
) -> None:  # fmt: skip
    """List the letters that are still open, the newest at the end.

    TRIES is how often the handler ran for it. With --json one object a line.

    \b
    omni-worker dead-letters list --handler r1 --since 2h
    omni-worker dead-letters list --json --limit 0 | jq .error

    Exit codes: 0 also when there are none, 1 could not, 2 called wrongly.
    """
    from .commands.dead_letters import list_command

    wanted = {"type": type, "handler": handler, "error": error, "since": since, "until": until}
    sys.exit(list_command({**wanted, "all": everything}, limit, as_json))


@dead_letters.command()
@click.argument("letter")
@click.option("--body", is_flag=True, help="Only the event's bytes, as they were.")
@json_option
def show(letter: str, body: bool, as_json: bool) -> None:
    """Show one letter: why, where, and how the handler failed.

    The event itself is shown only with --body: chats are private. A terminal gets it with escapes
    for what it would obey, a file or a pipe byte by byte.

    \b
    omni-worker dead-letters show 12
    omni-worker dead-letters show 12 --body | jq .payload

    Exit codes: 0 shown, 1 could not, or its bytes are gone; 2 no such letter, or called wrongly.
    """
    from .commands.dead_letters import show_command

    sys.exit(show_command(letter, body, as_json))


@dead_letters.command()
@click.argument("letters", nargs=-1, metavar="[LETTER]...")
@_filters
@click.option("--every", is_flag=True, help="Every open letter, without a filter.")
@click.option("--again", is_flag=True, help="Also those that were sent back already.")
@yes_option
@json_option
def retry(
    letters: tuple[str, ...], type: str | None, handler: str | None, error: str | None,
    since: datetime | None, until: datetime | None, every: bool, again: bool,
    yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Send events back to the handler they failed in, and to no other.

    They travel by the stream OMNI_WORKER, which is made when it is missing. A worker of the
    same app picks them up within ten seconds, or when it starts. What fails again becomes a new
    letter that names this one. It is safe to repeat: what was sent back is not sent once more,
    unless --again is given. With filters the letters are counted, and it asks.

    \b
    omni-worker dead-letters retry 12 15
    omni-worker dead-letters retry --handler r1 --since 2h

    Exit codes: 0 all are on their way, 1 some are not, 2 called wrongly.
    """
    from .commands.dead_letters import Chosen, retry_command

    wanted = {"type": type, "handler": handler, "error": error, "since": since, "until": until}
    sys.exit(retry_command(Chosen(letters, wanted, every), again, yes, as_json))


@dead_letters.command()
@click.argument("letters", nargs=-1, metavar="[LETTER]...")
@_filters
@click.option("--every", is_flag=True, help="Every open letter, without a filter.")
@yes_option
@json_option
def discard(
    letters: tuple[str, ...], type: str | None, handler: str | None, error: str | None,
    since: datetime | None, until: datetime | None, every: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Put letters aside: they are listed no more.

    Nothing is deleted. `list --all` still shows them, `retry` still takes them by number.

    \b
    omni-worker dead-letters discard 12
    omni-worker dead-letters discard --error 'no such chat' --until 3d

    Exit codes: 0 all are put aside, 1 some are not, 2 called wrongly.
    """
    from .commands.dead_letters import Chosen, discard_command

    wanted = {"type": type, "handler": handler, "error": error, "since": since, "until": until}
    sys.exit(discard_command(Chosen(letters, wanted, every), yes, as_json))

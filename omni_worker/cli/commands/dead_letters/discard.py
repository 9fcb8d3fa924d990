"""`omni-worker dead-letters discard`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ....letters.read import DeadLetter
from ....operations.dead_letters import DeadLetters
from ....settings import Settings
from ....transports.base import Transport
from ...session import run_with_app
from ...values import json_lines_option, yes_option
from .chosen import Chosen, Filters, filter_options, for_each, handlers_of

if TYPE_CHECKING:
    from ....app import App


@click.command("discard")
@click.argument("letters", nargs=-1, metavar="[LETTER]...")
@filter_options
@click.option("--every", is_flag=True, help="Every open dead letter, without a filter.")
@yes_option
@json_lines_option
def command(letters: tuple[str, ...], filters: Filters, every: bool, yes: bool, json: bool) -> int:
    """Discard dead letters: they are no longer listed.

    Nothing is deleted. `list --all` still shows them, `retry` still takes them by number.

    \b
    omni-worker dead-letters discard 12
    omni-worker dead-letters discard --error 'no such chat' --until 3d

    Exit codes: 0 all are discarded, 1 some are not, 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings, app: App | None) -> int:
        found = DeadLetters(
            transport, create=settings.provision == "on", handlers=handlers_of(app)
        )  # fmt: skip

        async def discard(letter: DeadLetter) -> tuple[DeadLetter, str]:
            return await found.discard(letter), "discarded"

        chosen = Chosen(letters, filters, every)
        return await for_each(found, chosen, discard, "Discard", yes=yes, json=json)

    return run_with_app(filters.target, work)

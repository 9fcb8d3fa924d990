"""`omni-worker dead-letters retry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ....letters.read import DeadLetter
from ....operations.dead_letters import DeadLetters
from ....operations.handler_names import handler_names
from ....settings import Settings
from ....topology import retry_consumer
from ....transports.base import Transport
from ... import say
from ...session import run_with_app
from ...tables import ago, wrapped
from ...values import json_lines_option, yes_option
from .chosen import Chosen, Filters, filter_options, for_each, handlers_of, shown_handler

if TYPE_CHECKING:
    from ....app import App


@click.command("retry")
@click.argument("letters", nargs=-1, metavar="[LETTER]...")
@filter_options
@click.option("--every", is_flag=True, help="Every open dead letter, without a filter.")
@click.option("--again", is_flag=True, help="Also those that were sent back already.")
@click.option("--unverified", is_flag=True, help="Also those the server does not confirm.")
@yes_option
@json_lines_option
def command(
    letters: tuple[str, ...],
    filters: Filters,
    every: bool,
    again: bool,
    unverified: bool,
    yes: bool,
    json: bool,
) -> int:
    """Send events back to the handler they failed in, and to no other.

    They travel by the stream OMNI_WORKER, which is created if it is missing. A worker of the
    same app picks them up at once, or when it starts. An event that fails again becomes a new dead
    letter that names this one. Repeating the command is safe: an event that was sent back is not
    sent again without --again. With filters, it counts the dead letters and asks.

    Every program that may publish can write a dead letter. One is believed if a worker noted it, or
    the event it names is stored as it says and was read by that app; others need --unverified.

    \b
    omni-worker dead-letters retry 12 15
    omni-worker dead-letters retry --handler r1 --since 2h

    Exit codes: 0 all were sent, 1 some were not, 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings, app: App | None) -> int:
        found = DeadLetters(
            transport, create=settings.provision == "on", replicas=settings.replicas,
            handlers=handlers_of(app),
        )  # fmt: skip
        names = await handler_names(transport.operators, handlers_of(app))
        senders: set[str] = set()
        heard: set[str] = set()  # those whose processes were told

        async def retry(letter: DeadLetter) -> tuple[DeadLetter, str]:
            retried = await found.retry(letter, again=again, unverified=unverified)
            if retried.before:
                when = ago(retried.letter.state_time)
                return retried.letter, f"was sent back {when} ago; --again sends it once more"
            senders.add(letter.app or "")
            if retried.heard:
                heard.add(letter.app or "")
            handler = shown_handler(letter, names)
            return retried.letter, f"on its way back to {handler} of {letter.app}"

        chosen = Chosen(letters, filters, every)
        code = await for_each(found, chosen, retry, "Send back", yes=yes, json=json)
        if not json:
            for name in sorted(senders - heard):
                await _say_who_reads(transport, name)
        return code

    return run_with_app(filters.target, work)


async def _say_who_reads(transport: Transport, app: str) -> None:
    spec = retry_consumer(app)
    info = await transport.operators.consumer_info(spec.stream, spec.name)
    if info is not None and not info.num_waiting:
        text = (
            f"A worker of {app!r} that runs takes them within ten seconds; without one they wait"
            " until one starts."
        )
        say(wrapped(text))

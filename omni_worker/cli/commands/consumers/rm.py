"""`omni-worker consumers rm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ....errors import OmniWorkerError
from ....operations.removal import Removal, as_json, choose, look_at_removals, remove
from ....settings import Settings
from ....topology import app_of
from ....transports.base import Transport
from ... import CALLED_WRONGLY, FAILED, complain, say
from ...session import confirmed, run_with_app
from ...tables import counted, json_text, printable, wrapped
from ...values import json_lines_option, yes_option
from .list import found_consumers

if TYPE_CHECKING:
    from ....app import App


@click.command("rm")
@click.argument("names", nargs=-1, metavar="[CONSUMER]...")
@click.option("--app", "target", metavar="MODULE[:APP]", help="Only its orphaned consumers.")
@click.option("--stream", metavar="NAME", help="Only on this stream.")
@click.option("--force", is_flag=True, help="Also one that is read, or an app's own.")
@yes_option
@json_lines_option
def command(
    names: tuple[str, ...],
    target: str | None,
    stream: str | None,
    force: bool,
    yes: bool,
    json: bool,
) -> int:
    """Remove consumers of omni-worker, after showing what would be lost and asking.

    `r1` is `r1-bare` as well, on every stream. With --app only consumers that no handler of this
    version reads are removed: all of them, or the named ones. One that a process reads is refused,
    and so is another program's, and what an app reads for itself (<app>-due, <app>-again and
    <app>-retry). The events stay in their stream, but no longer come to this handler: if it is
    declared again, it begins where its start_from says.

    \b
    omni-worker consumers rm r1
    omni-worker consumers rm --app myapp:app

    Exit codes: 0 all are removed, or there was none; 1 some are not; 2 called wrongly.
    """
    if not names and target is None:
        complain("name a consumer, or --app MODULE:APP for all of its orphaned ones")
        return CALLED_WRONGLY

    async def work(transport: Transport, settings: Settings, app: App | None) -> int:
        every = await found_consumers(transport, settings, app)
        infos = choose(every, names, stream)
        removals = await look_at_removals(transport, infos)
        if not removals:
            if not json:
                say(wrapped("There is no orphaned consumer."))
            return 0
        if not json:
            say([line for one in removals for line in _what_it_means(one)])
        is_whole = True
        free = [one for one in removals if force or one.refusal is None]
        question = f"Remove {counted(len(free), 'consumer')}?"
        if free and not await confirmed(question, yes=yes):
            say("Nothing was removed.", err=True)
            return FAILED
        for removal in removals:
            is_whole &= await _removed(transport, removal, is_forced=force, json=json)
        return 0 if is_whole else FAILED

    return run_with_app(target, work)


async def _removed(transport: Transport, removal: Removal, *, is_forced: bool, json: bool) -> bool:
    error = ""
    try:
        if not await remove(transport.operators, removal, is_forced=is_forced):
            error = f"{removal.where} was removed by others"
    except OmniWorkerError as failure:
        error = str(failure)
    if json:
        say(json_text(as_json(removal) | {"removed": not error, "error": error or None}))
    elif error:
        complain(error)
    else:
        say(wrapped(f"Removed {removal.where}."))
    return not error


def _what_it_means(removal: Removal) -> list[str]:
    info = removal.info
    lines = wrapped(printable(f"Consumer {info.name} on {info.stream} of {app_of(info.config)}:"))
    lost = []
    if info.num_pending:
        lost.append(f"{counted(info.num_pending, 'event')} not delivered yet")
    if info.num_ack_pending:
        lost.append(f"{counted(info.num_ack_pending, 'event')} not acknowledged yet")
    if lost and (own := removal.app_reader) is not None:
        says = f"{' and '.join(lost)} would be left out: it {own.does}"
    elif lost:
        says = f"{' and '.join(lost)} would not come to this handler any longer"
        says += (
            f", and {info.stream} deletes events that no other consumer waits for"
            if removal.is_deleting_events
            else f"; {info.stream} keeps them"
        )
    else:
        says = "no event waits for it"
    return [*lines, *wrapped(f"{says}.", first="  "), *_who_reads(removal)]


def _who_reads(removal: Removal) -> Sequence[str]:
    if removal.readers:
        return wrapped(f"read right now: {', '.join(removal.readers)}.", first="  ")
    if not removal.is_asked:
        return wrapped(
            "no pull waits; processes cannot be asked without the right to $SRV.STATS.", first="  "
        )
    return ()

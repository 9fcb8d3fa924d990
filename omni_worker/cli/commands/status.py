"""`omni-worker status`: what is waiting for each consumer, once or refreshed."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ... import limits
from ...errors import ApiError, PermissionDenied, TransportError
from ...handler_consumers import planned_consumers
from ...handlers import both_names
from ...listeners.text import visible
from ...notes import attempts, guards
from ...operations.doctor.buckets import bucket_troubles
from ...operations.doctor.finding import Finding
from ...operations.doctor.finding import as_json as finding_as_json
from ...operations.status import ConsumerStatus, as_json, by_handler, consumer_statuses, with_turns
from ...settings import Settings
from ...steering.orders import pause_in_words, scale_in_words
from ...topology import AppReader, reader_named
from ...transports.base import Transport
from .. import complain, say
from ..session import run_with_app
from ..tables import ago, grouped, json_text, table, wrapped
from ..values import json_option, verbose_option

if TYPE_CHECKING:
    from ...app import App

EVERY = 2.0  # seconds between two looks of --watch
HOME, TO_LINE_END, TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = HOME + "\x1b[2J"


@click.command("status")
@click.argument("target", metavar="[MODULE[:APP]]", required=False)
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until Ctrl-C.")
@verbose_option
@json_option
def command(target: str | None, watch: bool, verbose: bool, json: bool) -> int:
    """Show what is waiting for every consumer, or for those of an app.

    \b
    WAITING      stored and not delivered yet
    UNACKED      delivered and not acknowledged yet, or waiting for a retry
    REDELIVERED  of these, delivered more than once
    LAG          how long ago the oldest unacknowledged event was stored
    PULLS        open requests of workers for events; 0: no worker reads

    With an app, consumers that its handlers need and that do not exist yet are shown as missing.
    A handler's two consumers are one line: --verbose shows each, as --json does.
    Where one process is active and the others stand by, it is named below the table.
    Events that wait for a long retry are in none of these; how many is said below the table.
    A bucket of the workers that is full, sealed, may not be written, or is missing and cannot be
    created is named below the table.
    --watch continues when the server restarts; with --json it prints one object a line.

    \b
    omni-worker status --watch
    omni-worker status myapp:app --json | jq '.consumers[] | select(.waiting > 0)'

    Exit codes: 0 shown, 1 failed, 2 called wrongly, 130 Ctrl-C.
    """

    async def look(transport: Transport, settings: Settings, app: App | None) -> int:
        found, buckets = await _statuses(transport, settings, app)
        lines = _lines(found, buckets, settings, target, verbose)
        say(json_text(_json(found, buckets), indent=2) if json else lines)
        return 0

    async def keep_looking(transport: Transport, settings: Settings, app: App | None) -> int:
        screen = Screen()
        while True:
            try:
                found, buckets = await _statuses(transport, settings, app)
            except (ApiError, PermissionDenied):
                raise
            except TransportError as error:  # an outage: reported, and waited for
                if transport.failure is not None:
                    raise
                complain(str(error))
            else:
                if json:
                    say(json_text(_json(found, buckets)))
                else:
                    screen.show(_head(settings), _lines(found, buckets, settings, target, verbose))
            await asyncio.sleep(EVERY)

    work = keep_looking if watch else look
    return run_with_app(target, work, stays=watch)


class Screen:
    """On a terminal, each picture replaces the last; elsewhere they follow each other."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._begun = False

    def show(self, head: str, lines: Sequence[str]) -> None:
        """Print as many lines as there is room for, and count the rest."""
        if not self._is_terminal:
            say([head, *lines, ""])
            return
        room = shutil.get_terminal_size().lines - 4
        shown = [head, "", *lines[:room]]
        if len(lines) > room:
            shown.append(f"… {len(lines) - room} more lines: enlarge the window")
        if not self._begun:
            self._begun = True
            click.echo(CLEAR, nl=False)
        text = "".join(f"{visible(line)}{TO_LINE_END}\n" for line in shown)
        click.echo(HOME + text + TO_END, nl=False)


async def _statuses(
    transport: Transport, settings: Settings, app: App | None
) -> tuple[list[ConsumerStatus], list[Finding]]:
    operators, provisions = transport.operators, settings.provision == "on"
    streams = await operators.streams()
    if app is None:
        found = await with_turns(transport, await consumer_statuses(transport))
        return found, await bucket_troubles(operators, streams, provisions=provisions)
    standing = [info.config for info in streams]
    wanted = [planned_consumers(one, app.registry, settings, standing) for one in app.handlers]
    buckets = [attempts.BUCKET]
    if any(one.options.exactly_once for one in app.handlers):
        buckets.append(guards.BUCKET)
    if any(one.options.is_limited for one in app.handlers):
        buckets.append(limits.BUCKET)
    found = await with_turns(transport, await consumer_statuses(transport, wanted))
    troubles = await bucket_troubles(
        operators, streams, buckets, domain=settings.js_domain, provisions=provisions
    )
    return found, troubles


def _json(found: list[ConsumerStatus], buckets: list[Finding]) -> dict[str, Any]:
    return {**as_json(found, _now()), "buckets": [finding_as_json(one) for one in buckets]}


def _head(settings: Settings) -> str:
    return f"{datetime.now():%H:%M:%S}  {settings.shown_urls}  every {EVERY:g} s, Ctrl-C ends"


def _lines(
    every: list[ConsumerStatus], buckets: list[Finding], settings: Settings,
    target: str | None, verbose: bool,
) -> list[str]:  # fmt: skip
    found = every if verbose else by_handler(every)
    notes = [
        line for one in buckets for line in wrapped(f"Bucket {one.what}: {one.says}; {one.advice}.")
    ]
    if not found:
        what = f"{target} has no handlers" if target else "No consumers"
        none = wrapped(
            f"{what} on {settings.shown_urls}: a worker creates them when it starts,"
            " or omni-worker plan MODULE:APP --apply."
        )
        return [*none, "", *notes] if notes else none
    now = _now()
    rows = [[one.stream, both_names(one.function, one.name), *_counts(one, now)] for one in found]
    head = ["STREAM", "CONSUMER", "WAITING", "UNACKED", "REDELIVERED", "LAG", "PULLS"]
    lines = table(head, rows, right=(2, 3, 4, 5, 6))
    handlers = [one for one in found if _app_reader(one) is None]
    notes += [line for one in found for line in _standstill(one)]
    for names, text in (
        (
            [one.name for one in handlers if one.is_unasked and not one.unacked],
            "No worker reads {}: is one running?",
        ),
        (
            [one.name for one in found if one.is_unasked and one.unacked],
            "No worker asks for more of {}: it is at its limit, or gone.",
        ),
        (
            [one.name for one in found if one.is_unasked_for_retries],
            "No worker asks for more of {}: what is unacked runs in one at its limit,"
            " or waits until a worker reads it.",
        ),
        (
            [one.name for one in found if one.app is None and one.is_paused],
            "Paused on the server, so nothing is delivered: {}.",
        ),
        (
            [one.name for one in found if not one.exists],
            "{} does not exist yet: a worker creates it when it starts.",
        ),
    ):
        if names:
            notes += wrapped(text.format(_some(names)))
    retries = {(one.app, one.stream, one.name): one.long_retries for one in found}
    for (_, stream, name), count in retries.items():
        if count:
            what = "1 event waits" if count == 1 else f"{grouped(count)} events wait"
            notes += wrapped(f"{what} for a long retry of {name} on {stream}, in schedules.")
    for one in found:
        if one.turn is not None:
            notes += wrapped(f"{one.name} on {one.stream} is {one.turn.shown}.")
    pauses = {(one.app, one.name): one.pause for one in found if one.pause}
    for (_, name), pause in pauses.items():
        notes += wrapped(f"{name} is {pause_in_words(pause, name)}.")
    scales = {(one.app, one.name): one.scale for one in found if one.scale}
    for (_, name), scale in scales.items():
        notes += wrapped(f"{name} is {scale_in_words(scale, name)}.")
    return [*lines, "", *notes] if notes else lines


def _app_reader(one: ConsumerStatus) -> AppReader | None:
    return reader_named(one.stream, one.app, one.name)


def _standstill(one: ConsumerStatus) -> list[str]:
    """Say why a consumer of ours delivers nothing, where that is not said of all handlers."""
    reader = _app_reader(one)
    if one.app is not None and one.is_paused and one.pause is None:
        if reader is not None:
            return wrapped(f"{reader.paused}.")
        again = f"to resume: omni-worker resume {one.name}"
        return wrapped(f"{one.name} is paused by others, so nothing is delivered; {again}.")
    if reader is not None and one.is_unasked and not one.unacked:
        return wrapped(f"No process reads {one.name}, so {reader.stops}: is one running?")
    return []


def _counts(one: ConsumerStatus, now: datetime) -> list[object]:
    if not one.exists:
        return ["missing", "-", "-", "-", "-"]
    numbers = (one.waiting, one.unacked, one.redelivered)
    return [*map(grouped, numbers), ago(one.oldest, now), one.pulls]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _now() -> datetime:
    return datetime.now(UTC)

"""`omni-worker status`: what each consumer has before it, once or again and again."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from ...app import App
from ...errors import ApiError, PermissionDenied, TransportError
from ...handler_consumers import planned_consumers
from ...listeners.pretty import visible
from ...operations.status import ConsumerStatus, consumer_statuses
from ...settings import Settings
from ...transports.base import Transport
from .. import complain, say
from ..session import run_for_app, run_operation
from ..tables import ago, as_json, grouped, iso, table, wrapped

EVERY = 2.0  # seconds between two looks of --watch
HOME, TO_LINE_END, TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = HOME + "\x1b[2J"


def status_command(target: str | None, watch: bool, json: bool) -> int:
    """Returns the exit code."""

    async def look(transport: Transport, settings: Settings, app: App | None = None) -> int:
        found = await _statuses(transport, settings, app)
        say(as_json(_json(found), indent=2) if json else _lines(found, settings, target))
        return 0

    async def keep_looking(transport: Transport, settings: Settings, app: App | None = None) -> int:
        screen = Screen()
        while True:
            try:
                found = await _statuses(transport, settings, app)
            except (ApiError, PermissionDenied):
                raise
            except TransportError as error:  # an outage: it is said, and waited for
                if transport.failure is not None:
                    raise
                complain(str(error))
            else:
                if json:
                    say(as_json(_json(found)))
                else:
                    screen.show(_head(settings), _lines(found, settings, target))
            await asyncio.sleep(EVERY)

    work = keep_looking if watch else look
    if target is None:
        return run_operation(work, stays=watch)
    return run_for_app(target, work, stays=watch)


class Screen:
    """One picture in the place of the last, on a terminal; elsewhere one after the other."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._begun = False

    def show(self, head: str, lines: Sequence[str]) -> None:
        """As many lines as there is room for; the rest is counted."""
        if not self._is_terminal:
            say([head, *lines, ""])
            return
        room = shutil.get_terminal_size().lines - 4
        shown = [head, "", *lines[:room]]
        if len(lines) > room:
            shown.append(f"… {len(lines) - room} lines more: make the window higher")
        if not self._begun:
            self._begun = True
            click.echo(CLEAR, nl=False)
        text = "".join(f"{visible(line)}{TO_LINE_END}\n" for line in shown)
        click.echo(HOME + text + TO_END, nl=False)


async def _statuses(
    transport: Transport, settings: Settings, app: App | None
) -> list[ConsumerStatus]:
    if app is None:
        return await consumer_statuses(transport)
    standing = [info.config for info in await transport.operators.streams()]
    wanted = [planned_consumers(one, app.registry, settings, standing) for one in app.handlers]
    return await consumer_statuses(transport, wanted)


def _head(settings: Settings) -> str:
    return f"{datetime.now():%H:%M:%S}  {settings.shown_urls}  every {EVERY:g} s, Ctrl-C ends"


def _lines(found: list[ConsumerStatus], settings: Settings, target: str | None) -> list[str]:
    if not found:
        what = f"{target} has no handlers" if target else "No consumers"
        return wrapped(
            f"{what} on {settings.shown_urls}: a worker makes them when it starts, and"
            " omni-worker plan MODULE:APP --apply does."
        )
    now = datetime.now(UTC)
    rows = [
        [
            one.stream, one.name, grouped(one.waiting), grouped(one.unacked),
            grouped(one.redelivered), ago(one.oldest, now), one.pulls,
        ] if one.exists else [one.stream, one.name, "missing", "-", "-", "-", "-"]
        for one in found
    ]  # fmt: skip
    head = ["STREAM", "CONSUMER", "WAITING", "UNACKED", "AGAIN", "LAG", "PULLS"]
    lines = table(head, rows, right=(2, 3, 4, 5, 6))
    notes: list[str] = []
    for names, text in (
        (
            [one.name for one in found if one.is_unasked and not one.unacked],
            "Nobody reads {}: is its worker running?",
        ),
        (
            [one.name for one in found if one.is_unasked and one.unacked],
            "Nobody asks for more of {}: its worker holds all it can, or is gone.",
        ),
        (
            [one.name for one in found if one.is_paused],
            "Paused on the server, so nothing is delivered: {}.",
        ),
        (
            [one.name for one in found if not one.exists],
            "Nobody has made {} yet: a worker does when it starts.",
        ),
    ):
        if names:
            notes += wrapped(text.format(_some(names)))
    return [*lines, "", *notes] if notes else lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _json(found: list[ConsumerStatus]) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "time": iso(now),
        "consumers": [
            {
                "stream": one.stream,
                "consumer": one.name,
                "app": one.app,
                "exists": one.exists,
                "waiting": one.waiting,
                "unacked": one.unacked,
                "redelivered": one.redelivered,
                "oldest": iso(one.oldest),
                "lagSeconds": round((now - one.oldest).total_seconds(), 3) if one.oldest else 0,
                "pulls": one.pulls,
                "paused": one.is_paused,
            }
            for one in found
        ],
    }

"""`omni-worker consumers list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ....handler_consumers import planned_consumers
from ....operations.orphans import as_json, last_delivery, lasting_consumers, orphans
from ....settings import Settings
from ....topology import app_of, app_reader
from ....transports.base import Transport
from ....transports.infos import ConsumerInfo
from ... import say
from ...session import run_with_app
from ...tables import ago, grouped, json_text, table, wrapped
from ...values import json_option

if TYPE_CHECKING:
    from ....app import App


@click.command("list")
@click.argument("target", metavar="[MODULE[:APP]]", required=False)
@json_option
def command(target: str | None, json: bool) -> int:
    """List the consumers of omni-worker that stay on the server until they are deleted.

    With an app: only its orphaned ones, which no handler of this version reads. They may belong to
    another version, or to another module of the app.

    \b
    WAITING  stored and not delivered yet
    UNACKED  delivered and not acknowledged yet, or waiting for a retry
    LAST     how long ago it delivered an event
    PULLS    open requests of workers for events; 0: no worker reads

    \b
    omni-worker consumers list
    omni-worker consumers list myapp:app

    Exit codes: 0 also when there are none, 1 failed, 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings, app: App | None) -> int:
        found = await found_consumers(transport, settings, app)
        if json:
            say(json_text([as_json(one) for one in found], indent=2))
        else:
            say(_lines(found, settings, target, app))
        return 0

    return run_with_app(target, work)


async def found_consumers(
    transport: Transport, settings: Settings, app: App | None
) -> list[ConsumerInfo]:
    """Return every consumer of ours that stays, or an app's orphaned ones."""
    operators = transport.operators
    standing = [info.config for info in await operators.streams()]
    if app is None:
        return await lasting_consumers(operators, standing)
    wanted = [planned_consumers(one, app.registry, settings, standing) for one in app.handlers]
    return await orphans(operators, app.name, standing, wanted)


def _lines(
    found: Sequence[ConsumerInfo], settings: Settings, target: str | None, app: App | None
) -> list[str]:
    if not found:
        what = f"No orphaned consumer of {app.name}" if app else "No consumer of omni-worker"
        return wrapped(f"{what} on {settings.shown_urls}.")
    head = ["STREAM", "CONSUMER", "APP", "WAITING", "UNACKED", "LAST", "PULLS"]
    rows = [
        [one.stream, one.name, app_of(one.config) or "-", grouped(one.num_pending),
         grouped(one.num_ack_pending), ago(last_delivery(one)), one.num_waiting]
        for one in found
    ]  # fmt: skip
    hint = (
        f"Remove all of these:  omni-worker consumers rm --app {target}"
        if app
        else "Only orphaned ones:  omni-worker consumers list MODULE:APP"
    )
    own = [own for one in found if (own := app_reader(one)) is not None]
    notes = [line for one in own for line in wrapped(f"{one.sentence}.")]
    return [*table(head, rows, right=(3, 4, 5, 6)), "", *notes, hint]

"""`omni-worker schemas check`: stored events, or old schemas, against the models of an app."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from ....app import App
from ....errors import ConfigError
from ....handler_consumers import planned_consumers
from ....operations.json_schemas import name_of, payload_of
from ....operations.schema_dump import changes, dump
from ....operations.stored_payloads import Checked, as_json, check_stored, sorted_faults
from ....settings import Settings
from ....transports.base import Transport
from ... import CALLED_WRONGLY, complain, say
from ...session import CalledWrongly, Progress, loaded, run_for_app
from ...tables import counted, grouped, json_text, moment, printable, table, wrapped
from ...values import Moment, json_option

REFUSED = 3  # exit code
SHOWN = 5  # problems of a type


@click.command("check")
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--since", type=Moment(), default="7d", show_default=True, metavar="WHEN",
              help="Read events stored since: 2h, 7d, a date.")  # fmt: skip
@click.option("--against", type=click.Path(path_type=Path),
              metavar="FILE",
              help="Compare with a file of `schemas dump`; no server is read.")  # fmt: skip
@json_option
def command(target: str, since: datetime, against: Path | None, json: bool) -> int:
    """Read stored events with the models of an app, as its handlers would.

    Each handler reads the events of its filters, and does not run; no consumer is touched and
    nothing is written. A payload that does not fit its model would become a dead letter: it is
    counted under the path where it does not fit. With --against the models are compared with those
    of an older version, without a server: every place where they refuse what was accepted.

    \b
    omni-worker schemas check myapp:app --since 7d
    omni-worker schemas check myapp:app --against schemas.json

    Exit codes: 0 everything fits, 1 failed, 2 called wrongly, 3 something does not fit.
    """
    if against is not None:
        return _compare(target, against, json)

    async def work(transport: Transport, settings: Settings, app: App) -> int:
        standing = [info.config for info in await transport.operators.streams()]
        planned = [planned_consumers(one, app.registry, settings, standing) for one in app.handlers]
        progress = Progress("events read:")
        checked = await check_stored(
            transport, planned, app.registry, since=since, told=progress
        )  # fmt: skip
        progress.clear()
        if json:
            say(json_text(as_json(checked), indent=2))
        else:
            say(_lines(checked, since))
        return REFUSED if any(one.failed for one in checked) else 0

    return run_for_app(target, work, stays=True)


def _lines(checked: Sequence[Checked], since: datetime) -> Iterator[str]:
    rows = [
        (one.handler.shown, type, grouped(counts.fit), grouped(counts.fail))
        for one in checked
        for type, counts in sorted(one.types.items())
    ]
    if rows:
        yield from table(["HANDLER", "TYPE", "FIT", "FAIL"], rows, right=(2, 3))
    for one in checked:
        if not one.types:
            yield from wrapped(f"{one.handler.shown}: no event stored since {moment(since)}")
        elif payload_of(one.handler) is None and not one.handler.options.validate:
            yield from wrapped(f"{one.handler.shown} takes any payload: no model to check")
    for one in checked:
        for type, counts in sorted(one.types.items()):
            if not counts.fail:
                continue
            model = payload_of(one.handler)
            fits = f" do not fit {name_of(model)}" if model is not None else " do not fit"
            yield ""
            yield from wrapped(
                f"{one.handler.shown}, {printable(type)}: {grouped(counts.fail)} of"
                f" {counted(counts.fit + counts.fail, 'event')}{fits}"
            )
            faults = sorted_faults(counts)
            for fault in faults[:SHOWN]:
                yield from wrapped(
                    printable(f"{fault.where}: {fault.what}"), first="  ", rest="    "
                )
                first = f"{fault.stream} #{fault.sequence}, {moment(fault.stored_at)}"
                yield f"    {counted(fault.events, 'event')}, first {first}"
            if len(faults) > SHOWN:
                yield f"  and {counted(len(faults) - SHOWN, 'other problem')}; --json has all"


def _compare(target: str, against: Path, json: bool) -> int:
    try:
        app = loaded(target)
        now = dump(app.name, app.handlers, app.registry)
        found = changes(_read(against), now)
    except (CalledWrongly, ConfigError) as error:
        said = f"{against}: {error}" if isinstance(error, ConfigError) else str(error)
        complain(said)
        return CALLED_WRONGLY
    if json:
        rows = [{"name": name, "path": path, "change": what} for name, path, what in found]
        say(json_text({"changes": rows}, indent=2))
    elif not found:
        say(f"The models of {app.name} accept everything that those of {against} did.")
    else:
        for name in dict.fromkeys(name for name, _, _ in found):
            say(name)
            for _, path, what in (one for one in found if one[0] == name):
                say(wrapped(printable(f"{path}: {what}"), first="  ", rest="    "))
    return REFUSED if found else 0


def _read(path: Path) -> Any:
    try:
        return json_module.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError("it is not JSON") from None

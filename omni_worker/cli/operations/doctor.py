"""`omni-worker doctor`: every finding a line, and what to do under those that are not well."""

from __future__ import annotations

import asyncio
import json as jsons
import urllib.request
from collections.abc import Mapping
from typing import Any

import click

from ...operations.doctor import Finding, Level, examine
from ...settings import Settings
from ...transports.base import Transport
from .. import FAILED
from .running import CalledWrongly, run_operation
from .tables import as_json, printable, wrapped

PATIENCE = 3.0  # seconds for the monitoring port
SIGNS = {Level.OK: "ok  ", Level.NOTE: "note", Level.WARN: "warn", Level.FAIL: "FAIL"}


def doctor_command(monitor: str | None, json: bool) -> int:
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        if monitor is not None and not monitor.startswith(("http://", "https://")):
            raise CalledWrongly(f"--monitor {monitor}: expected http://HOST:PORT")
        found = await examine(transport, _reader(monitor) if monitor else None)
        if json:
            click.echo(as_json([_json(one) for one in found], indent=2))
        else:
            click.echo("\n".join(_lines(found, settings)))
        return FAILED if any(one.level is Level.FAIL for one in found) else 0

    return run_operation(work)


def _reader(url: str) -> Any:
    def get() -> Mapping[str, Any]:
        address = f"{url.rstrip('/')}/jsz?config=true"
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                found: Mapping[str, Any] = jsons.load(answer)
                return found
        except ValueError as error:
            raise OSError(f"no monitoring of a nats-server: {error}") from None

    return lambda: asyncio.to_thread(get)


def _lines(found: list[Finding], settings: Settings) -> list[str]:
    width = max(len(one.what) for one in found)
    lines = [settings.shown_urls, ""]
    for one in found:
        first = f"{SIGNS[one.level]}  {one.what:{width}}  "
        lines += wrapped(printable(one.says), first=first)
        if one.advice and one.level not in (Level.OK, Level.NOTE):
            lines += wrapped(f"→ {one.advice}", first=" " * len(first))
    counts = {level: sum(one.level is level for one in found) for level in Level}
    if counts[Level.FAIL] or counts[Level.WARN]:
        said = f"{counts[Level.FAIL]} failing, {counts[Level.WARN]} to look at."
    else:
        said = "All is well."
    return [*lines, "", said]


def _json(one: Finding) -> dict[str, Any]:
    return {
        "level": one.level,
        "what": one.what,
        "says": one.says,
        "advice": one.advice or None,
    }

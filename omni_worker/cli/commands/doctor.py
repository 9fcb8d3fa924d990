"""`omni-worker doctor`: a line for each finding, with advice under those that need it."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from json import load
from typing import Any
from urllib.parse import urlsplit

import click

from ...operations.doctor import Finding, Level, Monitor, as_json, examine
from ...settings import Settings
from ...transports.base import Transport
from .. import FAILED, say
from ..session import CalledWrongly, run_operation
from ..tables import json_text, printable, wrapped
from ..values import json_option

PATIENCE = 3.0  # seconds for the monitoring port
SIGNS = {Level.OK: "ok  ", Level.NOTE: "note", Level.WARN: "warn", Level.FAIL: "FAIL"}


@click.command("doctor")
@click.option("--monitor", metavar="URL", help="The server's monitoring, http://HOST:8222.")
@json_option
def command(monitor: str | None, json: bool) -> int:
    """Check whether a server can keep the promises, and say what to do.

    Its version and features, what the account uses of its limits, streams, the rights of this
    login, both clocks; consumers without a reader, paused, full, or with a max_deliver that
    strands events; events that will expire unread soon; and with --monitor how often the server
    flushes to disk. Nothing is changed.

    \b
    ok    as it should be
    note  not visible from here, or about others
    warn  something to look at
    FAIL  a promise cannot be kept

    \b
    omni-worker doctor --monitor http://localhost:8222

    Exit codes: 0 well, also with warnings; 1 something fails, or no answer; 2 called wrongly.
    """

    async def work(transport: Transport, settings: Settings) -> int:
        read = _reader(monitor) if monitor is not None else None
        found = await examine(
            transport, read, domain=settings.js_domain, unaddressed=settings.unaddressed,
            provisions=settings.provision == "on",
        )  # fmt: skip
        say(
            json_text([as_json(one) for one in found], indent=2)
            if json
            else _lines(found, settings)
        )
        return FAILED if any(one.level is Level.FAIL for one in found) else 0

    return run_operation(work)


def _reader(url: str) -> Monitor:
    """Make a reader of the server's /jsz. Raises CalledWrongly; no error repeats a login."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise CalledWrongly("--monitor: expected http://HOST:PORT") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CalledWrongly("--monitor: expected http://HOST:PORT")
    if parts.username is not None:
        raise CalledWrongly("--monitor: the monitoring port takes no login; leave it out")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{parts.scheme}://{host}{f':{port}' if port else ''}/jsz?config=true"

    def get() -> Mapping[str, Any]:
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                found = load(answer)
        except urllib.error.URLError as error:
            raise OSError(getattr(error.reason, "strerror", None) or error.reason) from None
        except (ValueError, http.client.HTTPException):
            raise OSError("the answer is not that of a nats-server's monitoring") from None
        if not isinstance(found, Mapping):
            raise OSError("the answer is not that of a nats-server's monitoring")
        return found

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

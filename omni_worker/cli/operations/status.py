"""`omni-worker status`: what each consumer has before it, once or again and again."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import click

from ...operations.status import ConsumerStatus, consumer_statuses
from ...operations.wanted import wanted_consumers
from ...settings import Settings
from ...transports.base import Transport
from .running import grouped, loaded, run_operation
from .tables import ago, as_json, iso, table, wrapped

EVERY = 2.0  # seconds between two looks of --watch
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def status_command(target: str | None, watch: bool, json: bool) -> int:
    """Returns the exit code."""

    async def work(transport: Transport, settings: Settings) -> int:
        app = loaded(target) if target else None
        while True:
            wanted = None
            if app is not None:
                standing = [info["config"] for info in await transport.operators.streams()]
                wanted = [
                    wanted_consumers(one, app.registry, app.settings or settings, standing)
                    for one in app.handlers
                ]
            found = await consumer_statuses(transport, wanted)
            if json:
                click.echo(as_json(_json(found), indent=None if watch else 2))
            else:
                shown = "\n".join(_lines(found, settings, target))
                click.echo((CLEAR if watch and sys.stdout.isatty() else "") + shown)
            if not watch:
                return 0
            await asyncio.sleep(EVERY)

    return run_operation(work)


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
    unread = [one for one in found if one.exists and not one.pulls and one.waiting]
    if unread:
        names = ", ".join(one.name for one in unread[:3]) + (" …" if len(unread) > 3 else "")
        lines += ["", *wrapped(f"Nobody reads {names}: is its worker running?")]
    return lines


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
            }
            for one in found
        ],
    }

"""Replay: a dry run of past events through one handler, and what it would have published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import asdict
from datetime import timedelta
from urllib.parse import urlencode

from ...transports.timestamps import iso
from ..page import Ask, Facts, Page
from ..wording import moment
from .action import Form, Problem, Redirect

EVERY = 0.4  # seconds


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show a dry run until it is over."""
    replay = ask.services.replays.get(ask.text("id"))
    if replay is None:
        yield {"replay": None, "status": 404, "json": {"error": "no such replay"}}
        return
    while True:
        is_over = replay.is_over
        # What a handler prints may be what an event holds.
        said = list(replay.said) if ask.services.access.payloads else []
        yield {
            "replay": replay,
            "would": replay.would.most_common(),
            "count": replay.would.total(),
            "said": said,
            "json": {
                "handler": replay.handler, "since": iso(replay.since), "until": iso(replay.until),
                "over": is_over, "wouldPublish": dict(replay.would),
                "wouldCancel": replay.cancels,
                "summary": asdict(replay.summary) if replay.summary else None,
                "code": replay.code, "said": said,
            },
        }  # fmt: skip
        if is_over:
            return
        await asyncio.sleep(EVERY)


async def begin(ask: Ask, form: Form) -> Redirect | Problem:
    """Begin a dry run."""
    replays, name = ask.services.replays, form.text("name")
    back = f"/handler?{urlencode({'name': name})}"
    since = moment(form.text("since"), ask.now)
    if not replays.target:
        text = "Start it with the app: omni-worker dashboard MODULE:APP --allow-actions."
        return Problem("This dashboard knows no app", text, back)
    if not name or since is None:
        return Problem("Nothing was run", "since: expected 15m, 2h, 7d or a date.", back, 400)
    if since > ask.now or ask.now - since > timedelta(days=3650):
        return Problem("Nothing was run", "since: expected a time in the past.", back, 400)
    if replays.is_running:
        return Problem("Another dry run is going on", "One at a time.", back)
    replay = replays.begin(name, since, ask.now, ask.user)
    return Redirect("/replay", {"id": replay.id})


PAGE = Page(path="/replay", name="replay", title="Dry run", facts=facts, parent="overview")

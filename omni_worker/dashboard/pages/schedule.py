"""Schedule: one cron or event is run now, paused, resumed or cancelled, after a question."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from ...errors import OmniWorkerError
from ...operations.schedules import (
    NoSuchSchedule,
    ScheduledEvent,
    as_json,
    cancel_schedule,
    pause_schedule,
    read_schedule,
    resume_schedule,
    run_schedule_now,
)
from ..page import Ask, Facts, Page
from .action import Form, Problem, Redirect
from .schedules import target_of
from .steer import person

log = logging.getLogger("omni_worker.dashboard")

VERBS = {"run": "Run now", "pause": "Pause", "resume": "Resume", "cancel": "Cancel"}
BACK = "/schedules"


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Say what an order would mean, and ask."""
    verb, sequence = ask.text("verb"), ask.number("sequence")
    try:
        found = await _find(
            ask, ask.text("app"), ask.text("name"), sequence or 0, is_cron=bool(ask.text("cron"))
        )
    except NoSuchSchedule as error:
        yield {"event": None, "verb": verb, "word": "", "why": f"{error}.", "status": 404,
               "json": {"error": str(error)}}  # fmt: skip
        return
    yield {
        "event": found,
        "verb": verb,
        "word": VERBS.get(verb, ""),
        "values": {"verb": verb, **target_of(found)},
        "json": {"verb": verb, **as_json(found)},
    }


async def give(ask: Ask, form: Form) -> Redirect | Problem:
    """Carry out an order that was confirmed."""
    verb, transport = form.text("verb"), ask.services.transport
    if verb not in VERBS:
        return Problem("Nothing was changed", "The form names nothing that can be done.", BACK, 400)
    try:
        found = await _find(
            ask, form.text("app"), form.text("name"), form.number("sequence") or 0,
            is_cron=bool(form.text("cron")),
        )  # fmt: skip
        match verb:
            case "run":
                await run_schedule_now(transport, found)
            case "pause":
                reason = form.text("reason")
                await pause_schedule(transport, found, by=person(ask), reason=reason)
            case "resume":
                await resume_schedule(transport, found)
            case _:
                await cancel_schedule(transport, found)
    except OmniWorkerError as error:
        return Problem("Nothing was changed", f"{error}.", BACK)
    # A key is free text: quoted, it is one line of a log.
    log.info("%s: schedule %r of %s: %s", ask.user, found.name, found.app, VERBS[verb].lower())
    return Redirect(BACK, {"done": verb})


async def _find(ask: Ask, app: str, name: str, sequence: int, *, is_cron: bool) -> ScheduledEvent:
    """Find what was shown; what replaced it since is another one."""
    transport = ask.services.transport
    return await read_schedule(transport, app, name, sequence, is_cron=is_cron)


PAGE = Page(
    path="/schedules/steer", name="schedule", title="Schedule", facts=facts, parent="schedules"
)

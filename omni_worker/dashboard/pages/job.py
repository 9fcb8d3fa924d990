"""Job: how far a retry or discard of many dead letters is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from ..page import Ask, Facts, Page

EVERY = 0.3  # seconds


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show a job until it is over."""
    job = ask.services.jobs.get(ask.text("id"))
    if job is None:
        yield {"job": None, "status": 404, "json": {"error": "no such job"}}
        return
    while True:
        yield {
            "job": job,
            "reasons": job.reasons.most_common(),
            "share": (job.done + job.refused) / job.total if job.total else 1.0,
            "json": {
                "verb": job.verb, "total": job.total, "done": job.done, "over": job.is_over,
                "notDone": dict(job.reasons), "trouble": job.trouble or None,
            },
        }  # fmt: skip
        if job.is_over:
            return
        await asyncio.sleep(EVERY)


PAGE = Page(path="/job", name="job", title="Job", facts=facts, parent="letters")

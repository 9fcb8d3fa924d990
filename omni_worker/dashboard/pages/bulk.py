"""Bulk: retry or discard many dead letters, after a question that says how many."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from ...letters.read import DeadLetter, LetterFilter, LetterState
from ...operations.letter_lookup import NoSuchLetter
from ...operations.letter_search import count_matching
from ...transports.timestamps import iso
from ..page import Ask, Facts, Page, Services
from ..wording import moment
from .action import Form, Problem, Redirect
from .letters import NAMES, given

STEP = 0.3  # seconds between two counts that are shown
MOST_NAMED = 500  # letters that are named one by one

VERBS = {"retry": "Retry", "discard": "Discard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The letters that are meant: named ones, or those that fit the filters."""

    numbers: tuple[str, ...]
    type: str
    handler: str
    error: str
    since: datetime | None
    until: datetime | None
    is_readable: bool


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Count the letters that are meant, and ask."""
    verb = ask.text("verb") if ask.text("verb") in VERBS else "retry"
    # New letters that come while a person reads the question are not meant.
    until = ask.text("until") or iso(ask.now) or ""
    values = {**given(ask), "until": until}
    numbers = tuple(ask.query.getlist("number"))[:MOST_NAMED]
    chosen = _chosen(numbers, values, ask.now)
    count, shown_at = 0, time.monotonic()
    base: Facts = {
        "verb": verb, "word": VERBS[verb], "values": values, "numbers": numbers,
        "is_readable": chosen.is_readable,
    }  # fmt: skip
    if chosen.is_readable:
        async for count, share in _counted(ask.services, chosen):
            if time.monotonic() - shown_at > STEP:
                shown_at = time.monotonic()
                counting: Facts = {"count": count, "share": share, "is_counted": False}
                yield base | counting | {"json": {"counted": False}}
    yield base | {
        "count": count, "is_counted": True,
        "json": {"verb": verb, "count": count, "until": until},
    }  # fmt: skip


async def begin(ask: Ask, form: Form) -> Redirect | Problem:
    """Begin what was confirmed."""
    verb, count = form.text("verb"), form.number("count")
    values = {name: form.text(name) for name in NAMES if form.text(name)}
    numbers = tuple(form.fields.get("number", ()))[:MOST_NAMED]
    chosen = _chosen(numbers, values, ask.now)
    if verb not in VERBS or not count or not chosen.is_readable:
        return Problem("Nothing was done", "The form names no dead letters.", "/letters", 400)
    if not numbers and chosen.until is None:
        return Problem("Nothing was done", "The form says no time.", "/letters", 400)
    services = ask.services
    letters = services.letters

    async def act(letter: DeadLetter) -> object:
        return await (letters.retry(letter) if verb == "retry" else letters.discard(letter))

    job = services.jobs.begin(verb, ask.user, count, _meant(services, chosen), act)
    return Redirect("/job", {"id": job.id})


def _chosen(numbers: tuple[str, ...], values: dict[str, str], now: datetime) -> Chosen:
    since, until = values.get("since", ""), values.get("until", "")
    read = {name: moment(text, now) if text else None for name, text in
            (("since", since), ("until", until))}  # fmt: skip
    return Chosen(
        numbers=numbers,
        type=values.get("type", ""),
        handler=values.get("handler", ""),
        error=values.get("error", ""),
        since=read["since"],
        until=read["until"],
        # A filter that cannot be read would mean more letters than the person thinks.
        is_readable=(read["since"] is not None or not since)
        and (read["until"] is not None or not until),
    )


async def _counted(services: Services, chosen: Chosen) -> AsyncIterator[tuple[int, float]]:
    """Count the letters that are meant, and say how far the count is."""
    if chosen.numbers:
        found = [one async for one in _meant(services, chosen)]
        yield len(found), 1.0
        return
    wanted = LetterFilter(
        type=chosen.type or None, handlers={chosen.handler} if chosen.handler else None,
        error=chosen.error or None, since=chosen.since, until=chosen.until,
    )  # fmt: skip
    async for step in count_matching(services.transport, wanted):
        yield step


async def _meant(services: Services, chosen: Chosen) -> AsyncIterator[DeadLetter]:
    letters = services.letters
    if chosen.numbers:
        for number in chosen.numbers:
            try:
                letter = await letters.get(number)
            except NoSuchLetter:
                continue
            if letter.state in (LetterState.OPEN, LetterState.RETRYING):
                yield letter
        return
    async for letter in letters.list(
        type=chosen.type or None, handler=chosen.handler or None, error=chosen.error or None,
        since=chosen.since, until=chosen.until,
    ):  # fmt: skip
        yield letter


PAGE = Page(
    path="/letters/bulk", name="bulk", title="Many dead letters", facts=facts,
    parent="letters",
)  # fmt: skip

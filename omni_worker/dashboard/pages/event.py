"""Event: one event from its cause to what it caused, as a tree in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from ...operations.trace import (
    ConsumerWord,
    EventPlace,
    Trace,
    consumer_words,
    named_place,
    trace_event,
)
from ...operations.trace_failures import failed_times
from ...operations.trace_json import as_json
from ...operations.trace_waiting import Word
from ...tasks import own
from ..page import Ask, Facts, Page, Services
from ..trees import Key, tree_of
from .letter import pretty

DAY = timedelta(days=1)
BEFORE = timedelta(hours=1)  # what caused an event may be older than it
STEP = 0.25  # seconds between two reports of progress
MOST_ASKED = 40  # events whose consumers are looked at
TONES = {Word.SETTLED: "none", Word.PERHAPS: "note", Word.NOT_YET: "note", Word.BEFORE: "none",
         Word.RETRY: "note"}  # fmt: skip


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show the place if it is known, then search through every stream."""
    services, text = ask.services, ask.text("id")
    place = await named_place(services.transport, ask.text("at") or text) if text else None
    id = text if place is None or place.id == text or not place.id else place.id
    since = ask.moment("since") or _since(place, ask.now)
    shows_body = bool(ask.text("body")) and services.access.payloads
    base: Facts = {
        "id": id, "place": place, "since": since, "shows_body": shows_body, "tones": TONES,
        "nodes": [], "trace": None, "done": 0, "total": 0, "body": "", "headers": [],
        "wrong": ask.text("since") if ask.text("since") and not ask.moment("since") else "",
    }  # fmt: skip
    if not text:
        yield base | {"trace": Trace(id=""), "json": {"error": "no id"}, "status": 404}
        return
    progress = _Progress()
    task = asyncio.create_task(
        trace_event(services.transport, id if place is None else _named(place, id), since=since,
                    progress=progress),
        name=own("dashboard trace"),
    )  # fmt: skip
    try:
        while not (await asyncio.wait({task}, timeout=STEP))[0]:
            yield base | {"done": progress.done, "total": progress.total, "json": {}}
        trace = task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
    if trace.scheduled:
        yield base | {"trace": trace, "json": as_json(trace)}
        return
    nodes = tree_of(trace, await _words(services, trace))
    shown = trace.places[0] if trace.places else None
    body, headers = await _content(services, shown) if shows_body and shown else ("", [])
    yield base | {
        "trace": trace, "place": shown, "nodes": nodes, "body": body, "headers": headers,
        "failed_times": failed_times,
        "status": 200 if nodes or trace.is_found else 404, "json": as_json(trace),
    }  # fmt: skip


class _Progress:
    done = 0
    total = 0

    def __call__(self, done: int, total: int) -> None:
        """Keep how far the search is."""
        self.done, self.total = done, total


def _named(place: EventPlace, id: str) -> str:
    """Search by the id if there is one: it finds copies, too."""
    return id if place.type else f"{place.stream} #{place.sequence}"


def _since(place: EventPlace | None, now: datetime) -> datetime:
    return now - DAY if place is None else min(now - BEFORE, place.time - BEFORE)


async def _words(services: Services, trace: Trace) -> dict[Key, Sequence[ConsumerWord]]:
    """Ask what became of each event at its consumers."""
    places = [*trace.places, *trace.related][:MOST_ASKED]
    found = await asyncio.gather(*(consumer_words(services.transport, one) for one in places))
    return {(one.stream, one.sequence): words for one, words in zip(places, found, strict=True)}


async def _content(services: Services, place: EventPlace) -> tuple[str, list[tuple[str, str]]]:
    message = await services.transport.operators.message(place.stream, place.sequence)
    if message is None:
        return "(it is no longer stored)", []
    headers = [(name, value) for name, values in message.headers.items() for value in values]
    return pretty(message.body), headers


PAGE = Page(path="/event", name="event", title="Event", facts=facts, parent="events")

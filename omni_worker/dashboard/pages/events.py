"""Events: the newest events first, live, by filters that are in the URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...errors import InvalidSubject, TopologyError
from ...letters.read import stored_time
from ...operations.newest import windows
from ...operations.tail import as_json, plain, read, streams_of
from ...subjects import filters_for, matches
from ...topology import holds_events
from ...transports.base import StoredMessage, Transport
from ..page import Ask, Facts, Page
from ..watch import Snapshot
from .letter import pretty

LIMIT = 60
SHOWN = 2_000  # characters of a payload in the list
NAMES = ("type", "channel", "instance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An event in the list."""

    time: datetime
    stream: str
    sequence: int
    type: str
    where: str  # channel and instance
    source: str
    id: str
    size: int
    unreadable: str
    payload: str


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Read the newest events of every stream that may hold such ones."""
    given = {name: ask.text(name) for name in NAMES}
    payloads = bool(ask.text("payloads")) and ask.services.access.payloads
    base: Facts = {
        "given": given, "payloads": payloads, "limit": LIMIT, "rows": [], "is_over": True,
        "is_filtered": any(given.values()), "wrong": "", "types": _known_types(ask),
        "json": {"events": []},
    }  # fmt: skip
    try:
        routes = await streams_of(ask.services.transport, filters_of(given))
    except (InvalidSubject, TopologyError) as error:
        yield base | {"wrong": str(error) if given != dict.fromkeys(NAMES, "") else ""}
        return
    async with aclosing(_newest(ask.services.transport, routes, given["type"])) as steps:
        async for messages, is_over in steps:
            yield base | {
                "rows": [row_of(one, payloads=payloads) for one in messages],
                "is_over": is_over,
                "json": {"events": [as_json(one, payloads=payloads) for one in messages]},
            }


def filters_of(given: dict[str, str]) -> tuple[str, ...]:
    """Return the subjects of the filters. Raises InvalidSubject."""
    type, channel, instance = (given[name] or None for name in NAMES)
    if type is None and (channel or instance):
        type = "*.*"
    if type is None:
        return (">",)
    return filters_for([type], [channel] if channel else [], instance)


async def _newest(
    transport: Transport, routes: dict[str, tuple[str, ...]], type: str
) -> AsyncGenerator[tuple[list[StoredMessage], bool], None]:
    """Yield the newest messages of all streams, more of them with each step."""
    found: dict[str, list[StoredMessage]] = {stream: [] for stream in routes}
    readers = {
        stream: windows(transport, stream, filters=filters) for stream, filters in routes.items()
    }
    try:
        while readers:
            steps = await asyncio.gather(*(anext(one, None) for one in readers.values()))
            for stream, window in zip(list(readers), steps, strict=True):
                if window is not None:
                    found[stream] += [one for one in window.messages if is_of(one, type)]
                if window is None or window.is_end or len(found[stream]) >= LIMIT:
                    await readers.pop(stream).aclose()
            merged = [message for messages in found.values() for message in messages]
            merged.sort(key=lambda one: (one.stored_at, one.stream, one.sequence), reverse=True)
            yield merged[:LIMIT], not readers
    finally:
        for reader in readers.values():
            await reader.aclose()


def is_of(message: StoredMessage, type: str) -> bool:
    """Tell if an event is of a type: subjects of `custom.a` match those of `custom.a.b`, too."""
    return not type or matches(type, str(read(message).get("type") or ""))


def row_of(message: StoredMessage, *, payloads: bool) -> Row:
    """Make the row of an event; its payload only if asked for."""
    event = read(message)
    type = str(event.get("type") or "")
    where = message.subject.removeprefix(type).lstrip(".") if type else message.subject
    return Row(
        time=stored_time(message),
        stream=message.stream,
        sequence=message.sequence,
        type=type,
        where=where.replace(".", "/", 1),
        source=_text(event.get("source")),
        id=_text(event.get("id")),
        size=len(message.body),
        unreadable=_text(event.get("unreadable")),
        payload=_payload(message, event) if payloads else "",
    )


def of_events(snapshot: Snapshot) -> int:
    """Return another number whenever an event was stored."""
    return sum(one.state.last_sequence for one in snapshot.streams if holds_events(one.config))


def _payload(message: StoredMessage, event: dict[str, Any]) -> str:
    if "payload" in event:
        text = json.dumps(plain(event["payload"]), ensure_ascii=False, indent=2)
    else:
        text = pretty(message.body)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n…"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _known_types(ask: Ask) -> Sequence[str]:
    """Suggest the types that handlers read."""
    filters = {
        filter.removesuffix(".>")
        for handler in ask.services.watch.snapshot.handlers
        for consumer in handler.consumers
        for filter in consumer.filters
        if filter.endswith(".>") and filter.count(".") <= 4
    }
    return sorted(filters)[:50]


PAGE = Page(path="/events", name="events", title="Events", facts=facts, version=of_events)

"""Streams: what the server stores, and for how long."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...operations.stream_status import StreamKind, as_json, kind_of, newest_time, oldest_time
from ...transports.infos import StreamInfo
from ..page import Ask, Facts, Page, of_all

SECTIONS = (
    (StreamKind.EVENTS, "Events"),
    (StreamKind.COPY, "Copies"),
    (StreamKind.OWN, "omni-worker's own"),
    (StreamKind.OTHER, "Other programs'"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A stream with the times of its first and last message."""

    info: StreamInfo
    oldest: datetime | None
    newest: datetime | None


async def facts(ask: Ask) -> AsyncGenerator[Facts, None]:
    """Show the streams of each kind."""
    streams = ask.services.watch.snapshot.streams
    sections: list[tuple[str, list[Row]]] = []
    for kind, title in SECTIONS:
        rows = [
            Row(one, oldest_time(one), newest_time(one)) for one in streams if kind_of(one) is kind
        ]
        if rows:
            sections.append((title, sorted(rows, key=lambda row: row.info.name)))
    found: Any = [as_json(one) for one in streams]
    yield {
        "sections": sections,
        "messages": sum(one.state.messages for one in streams if kind_of(one) is StreamKind.EVENTS),
        "bytes": sum(one.state.bytes for one in streams),
        "count": len(streams),
        "json": {"streams": found},
    }


PAGE = Page(path="/streams", name="streams", title="Streams", facts=facts, version=of_all,
            is_shared=True)  # fmt: skip

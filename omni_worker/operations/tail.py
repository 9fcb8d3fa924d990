"""Tail: recent events, and new ones as they are stored, of all streams that hold events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from ..errors import ApiError, InvalidEvent, TopologyError
from ..letters.read import stored_time
from ..topology import route
from ..transports.base import StoredMessage, Transport
from ..transports.timestamps import iso
from ..wire import read_envelope
from .newest import windows
from .scan import Scan

log = logging.getLogger("omni_worker.operations")

AHEAD = 256  # messages read and not yet consumed by the caller


async def past_and_live(
    transport: Transport,
    filters: Sequence[str],
    *,
    since: datetime | None,
    follow: bool,
    last: int | None = None,
) -> AsyncGenerator[StoredMessage, None]:
    """Yield events stored ``since`` a time, in order of time; with ``follow`` also new ones.

    ``last``: only so many of the past, the newest. Raises TopologyError if no stream holds such
    events.
    """
    routes = await streams_of(transport, filters)
    ends: dict[str, int | None] = dict.fromkeys(routes)
    if last is not None:
        for message in await _newest(transport, routes, last, since=since, ends=ends):
            yield message
    elif since is not None:
        scans: dict[str, Scan] = {}
        async for message in in_time(transport, routes, since=since, scans=scans):
            yield message
        ends |= {stream: scan.last for stream, scan in scans.items()}
    if follow:
        async for message in _live(transport, routes, ends):
            yield message


async def streams_of(transport: Transport, filters: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Map streams that hold these events to their filters. Raises TopologyError for none."""
    standing = [info.config for info in await transport.operators.streams()]
    routes = route(filters, standing)
    if not routes:
        raise TopologyError(
            f"no stream on the server stores {', '.join(filters)}: a worker or"
            " omni-worker plan MODULE:APP --apply creates the streams"
        )
    return routes


async def in_time(
    transport: Transport,
    routes: dict[str, tuple[str, ...]],
    *,
    since: datetime | None,
    scans: dict[str, Scan] | None = None,
) -> AsyncGenerator[StoredMessage, None]:
    """Yield messages of several streams, merged by stored time; one of each stream is held.

    ``scans`` is filled with the scan of each stream: the total, and where it ended.
    """
    async with AsyncExitStack() as stack:
        heads: dict[str, StoredMessage] = {}
        rest: dict[str, AsyncIterator[StoredMessage]] = {}
        for stream, filters in routes.items():
            scan = Scan(transport, stream, filters=filters, since=since)
            messages = aiter(await stack.enter_async_context(scan))
            if scans is not None:
                scans[stream] = scan
            if (first := await anext(messages, None)) is not None:
                heads[stream], rest[stream] = first, messages
        while heads:
            stream = min(heads, key=lambda one: heads[one].stored_at)
            yield heads[stream]
            following = await anext(rest[stream], None)
            if following is None:
                del heads[stream]
            else:
                heads[stream] = following


async def _newest(
    transport: Transport,
    routes: dict[str, tuple[str, ...]],
    count: int,
    *,
    since: datetime | None,
    ends: dict[str, int | None],
) -> list[StoredMessage]:
    """Return the newest messages, the oldest of them first, and fill in where each stream ended."""
    found: list[StoredMessage] = []
    for stream, filters in routes.items():
        own: list[StoredMessage] = []
        async with aclosing(windows(transport, stream, filters=filters, since=since)) as pages:
            async for page in pages:
                ends[stream] = ends[stream] or page.last
                own += page.messages
                if len(own) >= count:
                    break
        found += own[:count]
    return sorted(found, key=lambda one: one.stored_at)[-count:]


async def _live(
    transport: Transport, routes: dict[str, tuple[str, ...]], ends: dict[str, int | None]
) -> AsyncGenerator[StoredMessage, None]:
    queue: asyncio.Queue[StoredMessage | Exception] = asyncio.Queue(AHEAD)

    async def follow(stream: str) -> None:
        try:
            async with Scan(
                transport, stream, filters=routes[stream], follow=True, after=ends[stream]
            ) as messages:
                async for message in messages:
                    await queue.put(message)
        except ApiError as error:
            log.warning("stream %s cannot be followed: %s", stream, error)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(follow(stream)) for stream in routes]
    try:
        while True:
            message = await queue.get()
            if isinstance(message, Exception):
                raise message
            yield message
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def read(message: StoredMessage) -> dict[str, Any]:
    """Read the event's own keys; only ``unreadable``, with the reason, if it is not an event."""
    try:
        envelope = read_envelope(message.body, stored_at=message.stored_at // 1_000_000)
    except InvalidEvent as error:
        return {"unreadable": str(error)}
    return {
        "type": envelope.type,
        "id": envelope.id,
        "source": envelope.metadata.get("source"),
        "correlationId": envelope.metadata.get("correlationId"),
        "payload": envelope.payload,
    }


def as_json(message: StoredMessage, *, payloads: bool) -> dict[str, Any]:
    """Write an event for programs, with its payload only if asked for."""
    event = read(message)
    payload = event.pop("payload", None)
    return {
        "time": iso(stored_time(message)),
        "stream": message.stream,
        "sequence": message.sequence,
        "subject": message.subject,
        **event,
    } | ({"payload": plain(payload)} if payloads else {})


def plain(payload: Any) -> Any:
    """Reduce a payload to types that JSON has."""
    return from_json(to_json(payload))

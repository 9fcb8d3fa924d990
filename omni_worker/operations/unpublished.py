"""Unpublished: events that schedules keep, or that are due and not forwarded, by their subject."""

from __future__ import annotations

from collections import Counter, deque

from ..errors import PermissionDenied
from ..letters.written import SUBJECT_HEADER
from ..schedules.messages import due_consumer, schedule_subject
from ..topology import OWN_STREAM, app_reader
from ..transports.base import StoredMessage, Transport
from ..transports.infos import ConsumerInfo
from .scan import Scan
from .schedules import scheduled_event


async def unpublished(transport: Transport) -> Counter[str]:
    """Count what apps published later and no stream of events has yet; empty without the right.

    Crons are not counted: their events are made when they are due.
    """
    found: Counter[str] = Counter()
    if await transport.operators.stream_info(OWN_STREAM.name) is None:
        return found
    try:
        now, later = transport.clock(), (schedule_subject("*", "*"),)
        async with Scan(transport, OWN_STREAM.name, filters=later) as messages:
            async for message in messages:
                if (event := scheduled_event(message, now)) is not None:
                    found[event.subject] += 1
        for info in await transport.operators.consumers(OWN_STREAM.name):
            reader = app_reader(info)
            if reader is not None and reader.name == due_consumer(reader.app).name:
                found.update(await _unforwarded(transport, info))
    except PermissionDenied:
        return Counter()
    return found


async def _unforwarded(transport: Transport, info: ConsumerInfo) -> list[str]:
    """Return the subjects of the events that a consumer of forwarders has not settled."""
    left = info.num_pending + info.num_ack_pending
    stream = await transport.operators.stream_info(OWN_STREAM.name)
    if not left or stream is None or stream.state.last_sequence <= info.ack_floor:
        return []
    between = (info.ack_floor + 1, stream.state.last_sequence)
    scan = Scan(transport, OWN_STREAM.name, filters=info.config.filters, between=between)
    newest: deque[str] = deque(maxlen=left)  # those above the floor that are settled came before
    async with scan as messages:
        async for message in messages:
            newest.append(_subject_of(message))
    return [one for one in newest if one]


def _subject_of(message: StoredMessage) -> str:
    return next(iter(message.headers.get(SUBJECT_HEADER, ())), "")

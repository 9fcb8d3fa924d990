"""Newest: the last messages of a stream first, read backwards in windows of sequences.

A scan reads forwards, and the newest of many is what people look for. Each window is a short scan;
windows grow, so that a filter that finds little reaches far back in few of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..letters.read import stored_time
from ..transports.base import StoredMessage, Transport
from .scan import Scan

FIRST_WINDOW = 400  # sequences
LARGEST_WINDOW = 20_000
GROWTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Messages of one window; ``low`` is its first sequence, ``first`` that of the stream."""

    messages: tuple[StoredMessage, ...]  # the newest first
    low: int
    first: int
    last: int  # of the stream
    is_end: bool  # nothing further back can match


async def windows(
    transport: Transport,
    stream: str,
    *,
    filters: Sequence[str] = (),
    before: int | None = None,
    after: int = 0,
    since: datetime | None = None,
) -> AsyncGenerator[Window, None]:
    """Yield windows from the newest message back, until nothing older can match.

    ``before`` is the sequence where an earlier reading stopped, ``after`` the last sequence that
    is not wanted, ``since`` the earliest stored time.
    """
    info = await transport.operators.stream_info(stream)
    if info is None:
        return
    first = max(1, info.state.first_sequence)
    lowest = max(first, after + 1)
    last = info.state.last_sequence
    high = last if before is None else min(last, before - 1)
    size = FIRST_WINDOW
    while high >= lowest:
        low = max(lowest, high - size + 1)
        found: list[StoredMessage] = []
        is_old = False
        async with Scan(transport, stream, filters=filters, between=(low, high)) as messages:
            async for message in messages:
                if since is not None and stored_time(message) < since:
                    is_old = True
                    continue
                found.append(message)
        is_end = low <= lowest or is_old
        yield Window(
            messages=tuple(reversed(found)), low=low, first=first, last=last, is_end=is_end
        )
        if is_end:
            return
        high, size = low - 1, min(LARGEST_WINDOW, size * GROWTH)
    if high < lowest:
        yield Window(messages=(), low=max(1, lowest), first=first, last=last, is_end=True)

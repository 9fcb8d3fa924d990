"""Scan: past messages of one stream in order, in bounded memory, without disturbing consumers.

A scan reads with its own consumer, which acknowledges nothing and is deleted at the end. A stream
that allows no such consumer (a work queue) is read message by message.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from ..errors import ApiError, PermissionDenied, TopologyError, TransportError
from ..subjects import matches
from ..topology import NANO, rfc3339
from ..transports.base import Delivery, Source, StoredMessage, Transport
from ..transports.headers import parse_headers

SCAN = "omni-worker-scan-"  # prefix of the name of every consumer created here
FIRST_WINDOW = 8  # messages requested at once, until their size is known
MAX_WINDOW = 512
MAX_BYTES = 1024 * 1024  # bytes held at once, unless a single message is larger
PATIENCE = 2.0  # seconds without a message until we ask the server if more will come
UNUSED = 60.0  # seconds after which the server drops a consumer we could not remove
AT_ONCE = 32  # messages requested concurrently if there is no consumer


class Scan:
    """Messages that a stream holds at the start: ``async with Scan(…) as messages``.

    Each message comes once, in stream order, from ``since`` on, also across reconnects. ``total``
    is their number at the start. With ``follow`` the scan continues with messages stored later, and
    without ``since`` it yields only those; ``after`` is the sequence where an earlier scan ended.
    ``between`` are the first and the last sequence to read; ``total`` then counts later ones, too.
    The scan waits through outages for as long as the transport does.
    """

    def __init__(
        self,
        transport: Transport,
        stream: str,
        *,
        filters: Sequence[str] = (),
        since: datetime | None = None,
        follow: bool = False,
        after: int | None = None,
        between: tuple[int, int] | None = None,
    ) -> None:
        self.total = 0
        self.stream = stream
        self._transport = transport
        self._operators = transport.operators
        self._filters = tuple(filters)
        self._since = since
        self._follow = follow
        self._after = after
        self._between = between
        self._first = 1
        self.last = 0  # the last sequence at the start
        self._is_queue = False
        self._reader: _Reader | None = None

    async def __aenter__(self) -> Self:
        info = await self._operators.stream_info(self.stream)
        if info is None:
            raise TopologyError(f"there is no stream {self.stream} on the server")
        self._first = max(1, info.state.first_sequence)
        self.last = info.state.last_sequence
        if self._between is not None:
            self._first = max(self._first, self._between[0])
            self.last = min(self.last, self._between[1])
        self._is_queue = info.config.retention == "workqueue"
        if self._is_queue:
            self.total = info.state.messages
        elif self._follow:
            after = self.last if self._after is None else self._after
            self.total = await self._begin(0 if self._since else after + 1)
        elif self.last >= self._first:
            self.total = await self._begin(0 if self._between is None else self._first)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def __aiter__(self) -> AsyncIterator[StoredMessage]:
        messages = self._one_by_one() if self._is_queue else self._read()
        async for message in messages:
            yield message

    async def _read(self) -> AsyncIterator[StoredMessage]:
        left, next_sequence = self.total, 0
        if self._follow and self._since is None:
            next_sequence = (self.last if self._after is None else self._after) + 1
        while left > 0 or self._follow:
            assert self._reader is not None
            try:
                delivery = await self._reader.next()
            except _Interrupted:
                await self._end()
                left = await self._begin_again(next_sequence)
                continue
            if self._follow and delivery is None:
                continue
            if delivery is None or (delivery.sequence > self.last and not self._follow):
                return
            left, next_sequence = left - 1, delivery.sequence + 1
            yield _stored(delivery)

    async def _begin(self, sequence: int) -> int:
        """Read from ``sequence`` on with a new consumer; return the number of messages it has."""
        name = f"{SCAN}{secrets.token_hex(4)}"
        info = await self._operators.create_consumer(self.stream, self._config(name, sequence))
        reader = _Reader(self._transport)
        reader.source = await self._transport.consume(self.stream, name, reader)
        self._reader = reader
        return info.num_pending

    async def _begin_again(self, sequence: int) -> int:
        """Begin again after an interruption; a server that just started may not be ready yet."""
        while True:
            try:
                return await self._begin(sequence)
            except (ApiError, PermissionDenied):
                raise
            except TransportError:
                is_up = self._transport.is_connected and not self._follow
                if is_up or self._transport.failure is not None:
                    raise
                await asyncio.sleep(PATIENCE)

    async def _end(self) -> None:
        reader, self._reader = self._reader, None
        if reader is None or reader.source is None:
            return
        await reader.source.close()
        if self._transport.is_connected:
            with suppress(TransportError):  # the server removes an unused consumer
                await self._operators.delete_consumer(self.stream, reader.source.consumer)

    def _config(self, name: str, sequence: int) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "deliver_policy": "all",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(UNUSED * NANO),
        }
        if len(self._filters) == 1:
            config["filter_subject"] = self._filters[0]
        elif self._filters:
            config["filter_subjects"] = list(self._filters)
        if sequence:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}
        elif self._since is not None:
            config |= {
                "deliver_policy": "by_start_time",
                "opt_start_time": rfc3339(self._since),
            }
        return config

    async def _one_by_one(self) -> AsyncIterator[StoredMessage]:
        earliest = round(self._since.timestamp() * NANO) if self._since else 0
        for first in range(self._first, self.last + 1, AT_ONCE):
            sequences = range(first, min(first + AT_ONCE, self.last + 1))
            found = await asyncio.gather(
                *(self._operators.message(self.stream, one) for one in sequences)
            )
            for message in found:
                if message is None or message.stored_at < earliest:
                    continue
                if not self._filters or any(matches(f, message.subject) for f in self._filters):
                    yield message


class _Interrupted(Exception):
    """Requested messages may not come: continue with a new consumer."""


class _Reader:
    """Receiver that holds at most one window of deliveries."""

    def __init__(self, transport: Transport) -> None:
        self.source: Source | None = None
        self._transport = transport
        self._operators = transport.operators
        self._buffer: deque[Delivery] = deque()
        self._came = asyncio.Event()
        self._is_broken = False
        self._window = FIRST_WINDOW
        self._seen = self._bytes = 0

    async def next(self) -> Delivery | None:
        """Return the next delivery, None at the end. Raises _Interrupted or TransportError."""
        assert self.source is not None
        while not self._buffer:
            if self._is_broken:
                raise _Interrupted
            self._ask()
            self._came.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._came.wait()
            except TimeoutError:
                if await self._is_over():
                    return None
        delivery = self._buffer.popleft()
        if len(self._buffer) + self.source.outstanding <= self._window // 2:
            self._ask()
        return delivery

    def _ask(self) -> None:
        assert self.source is not None
        if self._seen:
            affordable = int(MAX_BYTES / max(1.0, self._bytes / self._seen))
            self._window = max(1, min(MAX_WINDOW, self._window * 2, affordable))
        self.source.request(self._window - len(self._buffer) - self.source.outstanding)

    async def _is_over(self) -> bool:
        """Ask the server if the end is reached: counted messages may have expired since."""
        assert self.source is not None
        try:
            info = await self._operators.consumer_info(self.source.stream, self.source.consumer)
        except (ApiError, PermissionDenied):
            raise
        except TransportError:
            if self._transport.failure is not None:
                raise
            return False  # an outage: the port reports its end
        if info is None:
            raise _Interrupted
        return info.num_pending == 0 and not self._buffer

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery; it needs no answer."""
        self._buffer.append(delivery)
        self._seen += 1
        self._bytes += len(delivery.body)
        self._came.set()

    def replenish(self, source: Source) -> None:
        """A pull ended: nothing to do."""
        self._came.set()

    def resumed(self, source: Source) -> None:
        """The connection is back: messages on their way are lost, and are not redelivered."""
        self._is_broken = True
        self._came.set()

    def lost(self, source: Source, cause: Exception) -> None:
        """The consumer is gone."""
        self._is_broken = True
        self._came.set()


def _stored(delivery: Delivery) -> StoredMessage:
    return StoredMessage(
        stream=delivery.source.stream,
        subject=delivery.subject,
        sequence=delivery.sequence,
        body=delivery.body,
        headers=parse_headers(delivery.raw_headers),
        stored_at=delivery.stored_at,
    )

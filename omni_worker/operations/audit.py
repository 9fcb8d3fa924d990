"""Audit: what became of every event a handler had to see, from two sides.

The server knows exactly, and cheaply, how many stored events match a consumer from a sequence on:
what a throw-away consumer has pending. What of them is neither waiting nor in hand was settled.
The workers note each sequence they settled, in blocks of bits (`OMNI_WORKER_AUDIT=on`). The
difference is what neither of them accounts for. Nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..handler_consumers import PlannedConsumers
from ..handlers import Handler
from ..letters.read import DeadLetter, stored_time
from ..notes.ledger import Account, account_key, read_account, writer
from ..notes.settled import block_key, read_block
from ..recently_settled import BLOCK
from ..subjects import matches
from ..topology import origin_of
from ..topology.streams import rfc3339
from ..transports.base import Operators, Transport
from ..transports.infos import ConsumerInfo, StreamInfo
from ..transports.key_value import KeyValue
from ..transports.timestamps import iso
from .dead_letters import DeadLetters
from .processes import processes
from .unpublished import unpublished
from .waiting_retries import throw_away, unsettled

PATIENCE = 12.0  # seconds: a worker notes what it settled every ten, a busy one every second
PAUSE = 0.25  # seconds between two looks at the notes
AT_ONCE = 64  # blocks read at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Account of one handler on one stream, over a window of sequences."""

    handler: Handler
    stream: str
    first: int = 0  # sequence at which the window begins
    published: int = 0
    handled: int = 0  # or skipped: of another type than the handler's
    letters: int = 0
    in_hand: int = 0  # delivered and not settled: it runs, or waits for a retry
    retries: int = 0  # of these: long retries, which schedules keep
    waiting: int = 0
    later: int = 0  # of these: published later, and not forwarded to the stream yet
    unaccounted: int = 0
    killed: tuple[str, ...] = ()  # processes that ended without their last note
    begun: datetime | None = None  # when the account began, if that is inside of the window
    older: int = 0  # events of the window that were stored before
    why_not: str = ""  # there is no account, and why

    @property
    def is_balanced(self) -> bool:
        """Return True if nothing is missing that a killed process does not explain."""
        return not self.unaccounted or bool(self.killed)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A consumer, and how far its account goes."""

    info: ConsumerInfo
    origin: str
    account: Account

    @property
    def settled_up_to(self) -> float:
        """Sequence up to which every event of it is settled."""
        if self.info.num_ack_pending:
            return self.info.ack_floor
        return self.info.delivered if self.info.num_pending else float("inf")


async def audit(
    transport: Transport, planned: Sequence[PlannedConsumers], *, since: datetime, bucket: str,
    ttl: float,
) -> list[Line]:  # fmt: skip
    """Account for the events of each handler that were stored since then."""
    streams = {info.config.name: info for info in await transport.operators.streams()}
    if f"KV_{bucket}" not in streams:
        return [
            Line(handler=one.handler, stream=stream, why_not=NEVER)
            for one in planned
            for stream in dict.fromkeys(spec.stream for spec in one.specs)
        ]
    notes = await transport.bucket(bucket, ttl=ttl)
    auditor = _Auditor(transport, notes, since, await unpublished(transport))
    lines = [
        auditor.line(one, streams[stream])
        for one in planned
        for stream in dict.fromkeys(spec.stream for spec in one.specs)
        if stream in streams
    ]
    return list(await asyncio.gather(*lines))


NEVER = "no account: its workers do not run with OMNI_WORKER_AUDIT=on"
ALONE = "no account: without durable or queue each process has a consumer of its own"
MISSING = "no consumer yet"


class _Auditor:
    def __init__(
        self, transport: Transport, notes: KeyValue, since: datetime, later: Counter[str]
    ) -> None:
        self._transport = transport
        self._operators: Operators = transport.operators
        self._notes = notes
        self._since = since
        self._later = later  # events that no stream has yet, by their subject

    async def line(self, planned: PlannedConsumers, stream: StreamInfo) -> Line:
        """Account for one handler on one stream."""
        handler, name = planned.handler, stream.config.name
        if not planned.is_shared:
            return Line(handler=handler, stream=name, why_not=ALONE)
        # Who lives is asked first: a process that ends in good order after that is no killed one.
        living = {writer(one.host, one.pid) for one in await processes(self._transport)}
        seen = await self._consumers(planned, stream)
        if isinstance(seen, str):
            return Line(handler=handler, stream=name, why_not=seen)
        end = asyncio.get_running_loop().time() + PATIENCE
        line = await self._balance(handler, stream, seen)
        while line.unaccounted and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(PAUSE)
            line = await self._balance(handler, stream, seen)
        if not line.unaccounted:
            return line
        living |= {writer(one.host, one.pid) for one in await processes(self._transport)}
        oldest = await self._oldest_unknown(handler, name, seen, line.first)
        gone = {
            one
            for each in seen
            for one in each.account.writers
            if each.account.may_explain(one, oldest)
        }
        return replace(line, killed=tuple(sorted(gone - living)))

    async def _consumers(self, planned: PlannedConsumers, stream: StreamInfo) -> list[_Seen] | str:
        """Return the consumers with their accounts, or why there is none."""
        found, name = [], stream.config.name
        for spec in planned.specs:
            if spec.stream != name:
                continue
            info = await self._operators.consumer_info(name, spec.name)
            if info is None:
                continue
            origin = f"{stream.created}.{spec.name}.{origin_of(info)}"
            entry = await self._notes.get(account_key(planned.handler.name, name, origin))
            account = read_account(entry.value) if entry is not None else None
            if account is None:
                return NEVER
            found.append(_Seen(info, origin, account))
        return found or MISSING

    async def _balance(self, handler: Handler, stream: StreamInfo, seen: list[_Seen]) -> Line:
        name = stream.config.name
        floor = min(one.settled_up_to for one in seen)
        last = max(one.info.delivered for one in seen)
        floor = int(min(floor, max(last, stream.state.last_sequence)))
        begin = max(one.account.begin for one in seen)
        since = await self._sequence_at(name)
        first = max(1, stream.state.first_sequence, begin, min(since, floor + 1))
        published = below = above = waiting = in_hand = older = 0
        for one in seen:
            filters = one.info.config.filters
            at_first = await self._matching(name, filters, first)
            at_floor = await self._matching(name, filters, max(first, floor + 1))
            undelivered = max(first, one.info.delivered + 1)
            pending = await self._matching(name, filters, undelivered)
            published, waiting = published + at_first, waiting + pending
            if begin > since:
                older += await self._matching(name, filters, since) - at_first
            in_hand += one.info.num_ack_pending
            below += at_first - at_floor
            above += max(0, at_floor - pending - one.info.num_ack_pending)
        noted = [await self._noted(handler, name, seen, *part) for part in
                 ((first, floor), (max(first, floor + 1), last))]  # fmt: skip
        missing = max(0, below - noted[0]) + max(0, above - noted[1])
        letters = await self._letters(handler, name, first)
        retries = await self._retries(handler, name, first)
        in_hand += retries
        later = self._later_in(seen, stream)
        begun_at = max(one.account.begun_at for one in seen)
        return Line(
            handler=handler,
            stream=name,
            first=first,
            published=published + later,
            handled=max(0, published - waiting - in_hand - missing - letters),
            letters=letters,
            in_hand=in_hand,
            retries=retries,
            waiting=waiting + later,
            later=later,
            unaccounted=missing,
            begun=datetime.fromtimestamp(begun_at, UTC) if older > 0 else None,
            older=max(0, older),
        )

    async def _oldest_unknown(
        self, handler: Handler, stream: str, seen: list[_Seen], first: int
    ) -> float:
        """Return when the oldest event was stored that no process noted; 0 if it is deleted."""
        low, high = first, max(one.info.delivered for one in seen)
        while low < high:
            middle = (low + high) // 2
            matching = 0
            for one in seen:
                filters = one.info.config.filters
                matching += await self._matching(stream, filters, first)
                matching -= await self._matching(stream, filters, middle + 1)
            if matching > await self._noted(handler, stream, seen, first, middle):
                high = middle
            else:
                low = middle + 1
        message = await self._operators.message(stream, low)
        return 0.0 if message is None else stored_time(message).timestamp()

    def _later_in(self, seen: list[_Seen], stream: StreamInfo) -> int:
        """Count the events that will be stored in a stream, and that a handler reads there."""
        filters = [one for each in seen for one in each.info.config.filters or (">",)]
        return sum(
            count
            for subject, count in self._later.items()
            if any(matches(one, subject) for one in filters)
            and any(matches(one, subject) for one in stream.config.subjects)
        )

    async def _noted(
        self, handler: Handler, stream: str, seen: list[_Seen], first: int, last: int
    ) -> int:
        """Count the sequences between two that any process noted as settled."""

        async def bits_of(number: int) -> int:
            bits = 0
            for one in seen:
                entry = await self._notes.get(block_key(handler.name, stream, one.origin, number))
                block = read_block(entry.value) if entry is not None else None
                bits |= block.bits if block is not None else 0
            low, high = max(first - number * BLOCK, 0), min(last - number * BLOCK, BLOCK - 1)
            return (bits >> low & (1 << high - low + 1) - 1).bit_count()

        if last < first:
            return 0
        numbers, count = range(first // BLOCK, last // BLOCK + 1), 0
        for start in range(0, len(numbers), AT_ONCE):
            count += sum(await asyncio.gather(*map(bits_of, numbers[start : start + AT_ONCE])))
        return count

    async def _letters(self, handler: Handler, stream: str, first: int) -> int:
        """Count the events of the window that became dead letters in the handler."""
        letters = DeadLetters(self._transport, create=False, handlers=[handler])
        found: set[int] = set()
        async for letter in letters.list(handler=handler.name, all=True):
            if _is_of(letter, stream, first):
                assert letter.origin is not None
                found.add(letter.origin.sequence)
        return len(found)

    async def _retries(self, handler: Handler, stream: str, first: int) -> int:
        """Count the events of the window that are settled here and wait for a long retry."""
        found = await unsettled(self._transport, handler.app, handler.name, stream)
        return len({one.identity.sequence for one in found if one.identity.sequence >= first})

    async def _matching(self, stream: str, filters: Sequence[str], sequence: int) -> int:
        """Count the stored messages that match, from a sequence on."""
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}
        return (await self._throw_away(stream, filters, start)).num_pending

    async def _sequence_at(self, stream: str) -> int:
        """Return the first sequence that was stored since the beginning of the window."""
        start = {"deliver_policy": "by_start_time", "opt_start_time": rfc3339(self._since)}
        return (await self._throw_away(stream, (), start)).delivered + 1

    async def _throw_away(
        self, stream: str, filters: Sequence[str], start: dict[str, Any]
    ) -> ConsumerInfo:
        return await throw_away(self._operators, stream, filters, start)


def _is_of(letter: DeadLetter, stream: str, first: int) -> bool:
    origin = letter.origin
    return origin is not None and origin.stream == stream and origin.sequence >= first


def as_json(line: Line) -> dict[str, Any]:
    """Write a line for programs."""
    return {
        "handler": line.handler.name,
        "function": line.handler.function,
        "stream": line.stream,
        "firstSequence": line.first,
        "published": line.published,
        "handled": line.handled,
        "deadLetters": line.letters,
        "inHand": line.in_hand,
        "longRetries": line.retries,
        "waiting": line.waiting,
        "publishedLater": line.later,
        "unaccounted": line.unaccounted,
        "accountBegan": line.begun and iso(line.begun),
        "olderThanAccount": line.older,
        "killed": list(line.killed),
        "balanced": line.is_balanced and not line.why_not,
        "noAccount": line.why_not or None,
    }

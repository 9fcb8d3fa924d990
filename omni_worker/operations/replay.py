"""Replay: run past events through one handler again, without its consumer.

Each event runs once: nothing is retried, nothing becomes a dead letter, and no guard is used.
Failures are counted and reported; the event stays where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from ..batches.gathering import gathering_of
from ..context import Context, RunSetup
from ..dispatch import Dispatcher, Middleware
from ..errors import OmniWorkerError
from ..events import Event
from ..failures import error_line
from ..handler_consumers import PlannedConsumers
from ..handlers import Handler
from ..letters.read import stored_time
from ..limits import BUCKET, TTL
from ..limits.clock import ServerClock
from ..limits.tokens import Tokens
from ..outcomes import DONE, Failed, HandBack, Outcome, Rejected, Skip
from ..publisher import Publisher
from ..rate import NANO, Rate, parse_rate
from ..schemas import SchemaRegistry
from ..signals import Signals
from ..tasks import of_handler
from ..threads import DaemonThreads
from ..transports.base import Delivery, KeyValue, Source, StoredMessage, Transport
from .scan import Scan
from .tail import in_time

FAILURES_KEPT = 10

WHERE = ("channel", "instance", "type", "id", "source", "correlationId")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Past events to run; ``where`` maps keys of WHERE to the required values."""

    since: datetime
    until: datetime | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None  # events per second


@dataclass(slots=True, kw_only=True)
class Summary:
    """Counts of a replay."""

    total: int = 0  # events that the streams hold from ``since`` on
    read: int = 0
    handled: int = 0
    failed: int = 0
    rejected: int = 0
    skipped: int = 0  # of another type or version, or excluded by ``where``
    failures: list[str] = field(default_factory=list)  # the first few

    @property
    def ran(self) -> int:
        """Number of events the handler ran for."""
        return self.handled + self.failed + self.rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A handler with its app's registry, middlewares, publisher and state."""

    wanted: PlannedConsumers
    middlewares: Sequence[Middleware]
    registry: SchemaRegistry
    publisher: Publisher
    state: Any = None
    takes_tokens: bool = True  # of the handler's ``rate``


async def replay(
    transport: Transport,
    stage: Stage,
    span: Span,
    *,
    told: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Run the span's events through the handler, with its concurrency.

    Runs begin in stored order; with ``order_by`` each ends before the next begins. With ``rate``
    each takes a token, as in a process that reads; with ``limit`` at most as many run here.
    ``told`` is called after every event.
    """
    run = _Replay(stage, span, told)
    if stage.takes_tokens:
        run.turns = _turns(stage.wanted.handler, transport)
    try:
        await run.all(transport)
    finally:
        run.close()
    return run.summary


class _Replay:
    def __init__(self, stage: Stage, span: Span, told: Callable[[Summary], None]) -> None:
        self.summary = Summary()
        self._span = span
        self._told = told
        self.turns: _Turns | None = None
        self._wanted = stage.wanted
        handler = self._handler = stage.wanted.handler
        options = handler.options
        self._at_once = 1 if options.order_by is not None else handler.at_once
        self._at_once = min(self._at_once, options.limit or self._at_once)
        # Of a batch, the time is limited where it runs.
        self._timeout = options.timeout if handler.is_async and not handler.batch else None
        self._threads = (
            None if handler.is_async else DaemonThreads(self._at_once, of_handler(handler.name))
        )
        gathering = gathering_of(handler, self._threads, Signals(), attempts=1)
        self._dispatcher = Dispatcher(
            handler,
            registry=stage.registry,
            middlewares=stage.middlewares,
            threads=self._threads,
            innermost=None if gathering is None else gathering.join,
        )
        if gathering is not None:
            gathering.judge = self._dispatcher.ending
        self._around = RunSetup(
            handler=handler.name,
            function=handler.short,
            publisher=stage.publisher,
            loop=asyncio.get_running_loop(),
            state=stage.state,
            replay=True,
        )

    async def all(self, transport: Transport) -> None:
        """Read events, and keep as many runs going as the handler's concurrency allows."""
        routes = {one.stream: one.filters for one in self._wanted.consumers}
        running: set[asyncio.Task[None]] = set()
        pace = _Pace(self._span.rate)
        scans: dict[str, Scan] = {}
        past = in_time(transport, routes, since=self._span.since, scans=scans)
        try:
            async with aclosing(past) as messages:
                async for message in messages:
                    self.summary.total = sum(scan.total for scan in scans.values())
                    if self._span.until and stored_time(message) > self._span.until:
                        break
                    chosen = self._choose(message)
                    if chosen is None:
                        continue
                    await pace.wait()
                    running.add(asyncio.create_task(self._one(*chosen)))
                    if len(running) >= self._at_once:
                        done, running = await asyncio.wait(
                            running, return_when=asyncio.FIRST_COMPLETED
                        )
                        for task in done:
                            task.result()
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def close(self) -> None:
        """Release the threads."""
        if self._threads is not None:
            self._threads.close()

    def _choose(self, message: StoredMessage) -> tuple[Delivery, Event[Any]] | None:
        """Return the event if it is for this handler; else count it as skipped or failed."""
        self.summary.read += 1
        delivery = past_delivery(message)
        read = self._dispatcher.read(delivery)
        if isinstance(read, Event):
            if _is_asked_for(read, self._span.where):
                return delivery, read
            self.summary.skipped += 1
        else:
            self._count(read, delivery)
        self._told(self.summary)
        return None

    async def _one(self, delivery: Delivery, event: Event[Any]) -> None:
        context = Context(event, delivery, 1, time.time(), self._around)
        try:
            if self.turns is not None:
                await self.turns.wait(event)
        except OmniWorkerError:
            raise  # the bucket's
        except Exception as error:
            self._count(Failed(error), delivery, event.id)
            self._told(self.summary)
            return
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await self._dispatcher.run(event, context)
        except TimeoutError as error:
            outcome = Failed(error)
        self._count(outcome, delivery, event.id)
        self._told(self.summary)

    def _count(self, outcome: Outcome, delivery: Delivery, id: str = "") -> None:
        summary = self.summary
        if outcome is DONE:
            summary.handled += 1
        elif isinstance(outcome, Skip | HandBack):
            summary.skipped += 1
        elif isinstance(outcome, Failed | Rejected):
            if isinstance(outcome, Failed):
                summary.failed += 1
            else:
                summary.rejected += 1
            if len(summary.failures) < FAILURES_KEPT:
                where = f"{delivery.source.stream} #{delivery.sequence}"
                error = outcome.error
                said = error_line(error)
                summary.failures.append(f"{where} {id}: {said}" if id else f"{where}: {said}")


class _Pace:
    """Limit of events per second, evenly spaced."""

    def __init__(self, rate: float | None) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Wait until the next event may begin."""
        if not self._gap:
            return
        now = asyncio.get_running_loop().time()
        if now < self._next:
            await asyncio.sleep(self._next - now)
        self._next = max(now, self._next) + self._gap


class _Turns:
    """Turns of a handler with a rate: their times are taken from the list of its processes."""

    def __init__(
        self, tokens: Tokens, rate: Rate, key_of: Callable[[Any], Hashable] | None
    ) -> None:
        self._tokens = tokens
        self._rate = rate
        self._key_of = key_of
        self._times: dict[str, deque[float]] = {}  # by key, taken and not used yet; loop time

    async def wait(self, event: Event[Any]) -> None:
        """Wait until the event may run. Raises any error that ``rate_by`` raises."""
        name = self._tokens.name(None if self._key_of is None else self._key_of(event))
        clock = asyncio.get_running_loop().time
        while not (times := self._times.setdefault(name, deque())):
            taken = await self._tokens.take(name, 1)
            if isinstance(taken, float):
                await asyncio.sleep(taken)
                continue
            grant, now = taken
            first = clock() + (grant.first - now) / NANO
            times.extend(first + self._rate.span(n) / NANO for n in range(grant.count))
        at = times.popleft()
        if not times:
            del self._times[name]
        await asyncio.sleep(max(0.0, at - clock()))


def _turns(handler: Handler, transport: Transport) -> _Turns | None:
    options = handler.options
    if options.rate is None:
        return None

    def bucket() -> Awaitable[KeyValue]:
        return transport.bucket(BUCKET, ttl=TTL)

    rate, clock = parse_rate(options.rate), ServerClock(transport.operators, bucket)
    return _Turns(Tokens(bucket, clock, handler, rate), rate, options.rate_by)


class _Past:
    """Source of a past event, which needs no answer."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.consumer = "replay"

    def ack(self, delivery: Delivery) -> None:
        """Send nothing: no server waits for an answer."""

    def answer(self, delivery: Delivery, answer: bytes, *, settles: bool = False) -> None:
        """Send nothing, as in `ack`."""


def past_delivery(message: StoredMessage) -> Delivery:
    """Make the delivery of a past message, which no server waits for."""
    return Delivery(
        cast("Source", _Past(message.stream)), message.subject, message.body, _headers(message),
        b"", message.sequence, message.stored_at, 1,
    )  # fmt: skip


def _headers(message: StoredMessage) -> bytes | None:
    if not message.headers:
        return None
    lines = [f"{name}: {one}\r\n" for name, values in message.headers.items() for one in values]
    return b"NATS/1.0\r\n" + "".join(lines).encode("utf-8", "surrogateescape") + b"\r\n"


def _is_asked_for(event: Event[Any], where: Mapping[str, str]) -> bool:
    has = {
        "channel": event.channel,
        "instance": event.instance,
        "type": event.type,
        "id": event.id,
        "source": event.metadata.source,
        "correlationId": event.metadata.correlation_id or event.id,
    }
    return all(has[key] == value for key, value in where.items())

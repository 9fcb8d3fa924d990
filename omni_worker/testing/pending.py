"""Pending: events that are not settled, and the error text for an app that never rests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..bus import EventBus
from ..events import Event
from ..failures import error_line
from ..handlers import Handler
from ..schedules.messages import due_consumer
from ..schedules.retries import again_consumer, read_retry, waiting_filter
from ..subjects import matches
from ..subscription import Subscription
from ..topology import OWN_STREAM, retry_consumer
from ..transports.headers import parse_headers
from ..transports.memory import MemoryServer
from ..transports.memory.consumer import MemoryConsumer
from ..transports.memory.stream import Record
from .records import Run, read

SHOWN = 5  # of a kind, in an error's text


class Unsettled(AssertionError):
    """The app did not come to rest: the text says what still moves, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Event that a handler has not settled. ``event`` is None where it cannot be read."""

    handler: Handler
    subject: str
    event: Event[Any] | None
    deliveries: int
    state: str  # "waiting", "held" (buffered or running) or "retry"
    due: float | None  # seconds until it comes again, for a retry and for a lost answer

    def __str__(self) -> str:
        of = f"{self.event.type} {self.event.id}" if self.event else self.subject
        when = f", again in {shown(self.due)}" if self.due is not None else ""
        return f"{self.handler.shown}: {of} {self.state}{when}"


def is_quiet(bus: EventBus, server: MemoryServer) -> bool:
    """Tell whether every event of every handler is settled, and what is due is published."""
    due = due_consumer(bus.name)
    if _has_unsettled(server.consumer(due.stream, due.name)) or is_sent_back(bus, server):
        return False
    if next(_long_retries(bus, server), None) is not None:
        return False
    return all(
        not subscription.held
        and not subscription.missing
        and not any(next(one.unsettled(), None) for one in _consumers(subscription, server))
        for subscription in bus.subscriptions
    )


def is_sent_back(bus: EventBus, server: MemoryServer) -> bool:
    """Tell whether events are on their way back from a dead letter."""
    returning = retry_consumer(bus.name)
    return bool(bus.subscriptions) and _has_unsettled(
        server.consumer(returning.stream, returning.name)
    )


def pending(bus: EventBus, server: MemoryServer, now: float) -> Iterator[Pending]:
    """Every event that is not settled, by handler and then in stream order."""
    for subscription in bus.subscriptions:
        for consumer in _consumers(subscription, server):
            held = subscription.holds(consumer.stream.name)
            for record, deliveries, due in consumer.unsettled():
                state = "held" if record.sequence in held else "retry" if due else "waiting"
                yield Pending(
                    handler=subscription.handler,
                    subject=record.subject,
                    event=read(record),
                    deliveries=deliveries,
                    state=state,
                    due=max(0.0, due - now) if due is not None and state == "retry" else None,
                )
    handlers = {one.handler.name: one.handler for one in bus.subscriptions}
    for record, due_at in _long_retries(bus, server):
        retry = read_retry(parse_headers(record.block), bus.name)
        if retry is not None and retry.handler in handlers:
            yield Pending(
                handler=handlers[retry.handler],
                subject=retry.subject,
                event=read(replace(record, subject=retry.subject)),
                deliveries=retry.failures,
                state="retry",
                due=max(0.0, (due_at - server.clock()) / 1e9),
            )


def _long_retries(bus: EventBus, server: MemoryServer) -> Iterator[tuple[Record, float]]:
    """Retries that schedules keep, and their due times in epoch nanoseconds; 0: it was due."""
    waiting, again = waiting_filter(bus.name), again_consumer(bus.name)
    stream = server.streams.get(OWN_STREAM.name)
    for sequence, due in [] if stream is None else list(stream.schedules.items()):
        record = None if stream is None else stream.get(sequence)
        if record is not None and matches(waiting, record.subject):
            yield record, due.at
    consumer = server.consumer(again.stream, again.name)
    if consumer is not None:
        yield from ((record, 0) for record, _, _ in consumer.unsettled())


def explain(
    why: str, waiting: Iterable[Pending], runs: list[Run], outside: list[str], standing: list[str]
) -> Unsettled:
    """The error of an app that never rests."""
    lines = [why]
    lines += [f"  waits for the outside world: {where}" for where in outside[:SHOWN]]
    lines += [f"  running: {where}" for where in standing[:SHOWN]]
    every = [str(one) for one in waiting]
    lines += [f"  {line}" for line in every[:SHOWN]]
    if len(every) > SHOWN:
        lines.append(f"  … and {len(every) - SHOWN} more")
    ran = Counter(map(_ran, runs))
    last = {_ran(run): run for run in runs}
    for who, count in ran.most_common(SHOWN):
        handler, type = who
        times = "once" if count == 1 else f"{count} times"
        lines.append(f"  since it began {handler} ran {times} for {type}{_error_of(last[who])}")
    return Unsettled("\n".join(lines))


def shown(seconds: float) -> str:
    """A duration as people say it."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def _ran(run: Run) -> tuple[str, str]:
    return run.handler.shown, run.event.type


def _error_of(run: Run) -> str:
    error = getattr(run.outcome, "error", None)
    return "" if error is None else f"; the last error: {error_line(error)}"


def _consumers(subscription: Subscription, server: MemoryServer) -> list[MemoryConsumer]:
    found = [server.consumer(one.stream, one.consumer) for one in subscription.sources]
    return [one for one in found if one is not None]


def _has_unsettled(consumer: MemoryConsumer | None) -> bool:
    return consumer is not None and next(consumer.unsettled(), None) is not None

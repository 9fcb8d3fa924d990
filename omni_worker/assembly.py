"""Assembly: one handler's subscription, put together from its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import limits
from .batches.gathering import Gathering, gathering_of
from .context import RunSetup
from .dispatch import Dispatcher, Middleware
from .events import Published
from .handler_consumers import is_shared
from .handlers import Handler
from .letter_storage import LetterStorage
from .limits.clock import ServerClock
from .limits.places import Places
from .limits.tokens import Tokens
from .long_retries import HandlerRetries, LongRetries, may_be_kept
from .notes import AttemptNotes, Guards, Ledger, SettledNotes, attempts, guards
from .provision import Provisioner
from .publisher import DEFAULT_TIMEOUT, Publisher
from .rate import parse_rate
from .schemas import SchemaRegistry
from .settings import Settings
from .settle import Counts, Settler
from .signals import IdTaken, Signals
from .subscription import Parts, Subscription
from .subscription.gates import Gate
from .subscription.gates.alone import Alone
from .subscription.gates.breaker import Breaker
from .subscription.gates.guard import ExactlyOnce
from .subscription.gates.limit import RunLimit
from .subscription.gates.order import Order
from .subscription.gates.rate import RateLimit, Spend
from .subscription.gates.recall import Recall
from .subscription.run_times import RunTimes
from .tasks import of_handler
from .threads import DaemonThreads
from .topology import OWN_STREAM, raw_subject
from .transports.base import Delivery, Message, Source, StoredMessage, Transport


@dataclass(slots=True, kw_only=True)
class HandlerSetup:
    """Parts that every handler of a bus is built with."""

    transport: Transport
    provisioner: Provisioner
    publisher: Publisher
    registry: SchemaRegistry
    settings: Settings
    signals: Signals
    state: Any = None  # what the app's lifespan yields
    measured: bool = False  # by the length of each run
    long_retries: LongRetries | None = None


def build_subscription(
    handler: Handler,
    setup: HandlerSetup,
    *,
    middlewares: Sequence[Middleware],
    gates: Sequence[Gate] = (),
    streams: int,
    on_lost: Callable[[Source, Exception], None],
    on_unsubscribe: Callable[[Subscription, float | None], Awaitable[None]],
) -> tuple[Subscription, DaemonThreads | None]:
    """Build a subscription that reads nothing yet, and threads for a plain def handler."""
    threads = None
    if not handler.is_async:
        threads = DaemonThreads(handler.at_once, of_handler(handler.name))
    counts = Counts()
    noted = _attempt_notes(handler, setup)
    retries = _long_retries(handler, setup)
    settler = _settler(handler, setup, noted, counts, retries)
    order = _order(handler, setup)
    breaker = Breaker(handler.options.breaker or 0, counts_runs=handler.batch is None)
    recall = _recall(handler, noted, settler.attempts, breaker, retries)
    rate, limit = _rate(handler, setup), _limit(handler, setup)
    outer: list[Gate] = [one for one in (order, rate, limit) if one is not None]
    inner = [Alone(recall), *([Spend(rate)] if rate is not None else [])]
    times = RunTimes() if setup.measured else None
    gathering = gathering_of(
        handler, threads, setup.signals, attempts=settler.attempts, times=times
    )
    dispatcher = Dispatcher(
        handler,
        registry=setup.registry,
        middlewares=middlewares,
        threads=threads,
        innermost=None if gathering is None else gathering.join,
    )
    parts = Parts(
        handler=handler,
        dispatcher=dispatcher,
        settler=settler,
        attempts=noted,
        counts=counts,
        around=_around(handler, setup),
        gates=[*outer, *gates, *_guard(handler, setup), breaker, *inner],
        order=order,
        breaker=breaker,
        recall=recall,
        times=times,
        signals=setup.signals,
        is_connected=lambda: setup.transport.is_connected,
        on_lost=on_lost,
        on_unsubscribe=on_unsubscribe,
        foreign_limit=setup.settings.foreign_delivery_limit,
        streams=streams,
        threads=threads,
    )
    if gathering is not None:
        gathering.clock = setup.transport.clock
        _gather(parts, gathering)
    return _subscription(parts, retries), threads


def _subscription(parts: Parts, retries: HandlerRetries | None) -> Subscription:
    subscription = Subscription(parts)
    if retries is not None:
        retries.is_crowded = subscription.unanswered.is_crowded
    return subscription


def _around(handler: Handler, setup: HandlerSetup) -> RunSetup:
    return RunSetup(
        handler=handler.name,
        function=handler.short,
        publisher=setup.publisher,
        loop=asyncio.get_running_loop(),
        state=setup.state,
        on_taken=partial(_on_taken, handler, setup.signals),
    )


def _gather(parts: Parts, gathering: Gathering) -> None:
    """Put batches behind the last gate; what they fail with, and when to stop, others decide."""
    breaker = parts.breaker
    gathering.judge, gathering.count_failure = parts.dispatcher.ending, breaker.count_failure
    gathering.is_down = lambda: breaker.is_open
    parts.gates = [*parts.gates, gathering]
    parts.let_go, parts.hand_back = gathering.let_go, gathering.hand_back
    parts.batches = gathering


def _long_retries(handler: Handler, setup: HandlerSetup) -> HandlerRetries | None:
    if setup.long_retries is None or not is_shared(handler):
        return None
    return HandlerRetries(handler, setup.long_retries, may_be_kept(handler))


def _recall(
    handler: Handler,
    notes: AttemptNotes,
    attempts: int,
    breaker: Breaker,
    retries: HandlerRetries | None,
) -> Recall:
    recall = Recall(
        notes,
        attempts,
        breaker,
        ordered=handler.options.order_by is not None,
        most_waiting=handler.at_once // 2 if handler.batch else 0,
        is_kept=None if retries is None else retries.is_kept,
    )
    breaker.note_wait = recall.note_wait
    return recall


def _on_taken(handler: Handler, signals: Signals, delivery: Delivery, by: Published) -> None:
    """Emit that another message has the id of an output."""
    signals.emit(
        IdTaken(
            handler=handler,
            delivery=delivery,
            id=by.id,
            by_stream=by.stream,
            by_sequence=by.sequence,
        )
    )


def _order(handler: Handler, setup: HandlerSetup) -> Order | None:
    key_of = handler.options.order_by
    if key_of is None:
        return None
    return Order(key_of, consumer_info=setup.transport.operators.consumer_info)


def _rate(handler: Handler, setup: HandlerSetup) -> RateLimit | None:
    options = handler.options
    if options.rate is None:
        return None
    rate, bucket = parse_rate(options.rate), _bucket(setup, limits.BUCKET, limits.TTL)
    clock = ServerClock(setup.transport.operators, bucket)
    tokens = Tokens(bucket, clock, handler, rate)
    return RateLimit(rate, tokens, options.rate_by, ordered=options.order_by is not None)


def _limit(handler: Handler, setup: HandlerSetup) -> RunLimit | None:
    limit = handler.options.limit
    if limit is None:
        return None
    return RunLimit(Places(_bucket(setup, limits.BUCKET, limits.TTL), handler, limit))


def _guard(handler: Handler, setup: HandlerSetup) -> list[Gate]:
    if not handler.options.exactly_once:
        return []
    bucket = _bucket(setup, guards.BUCKET, setup.settings.guard_ttl)
    return [ExactlyOnce(Guards(bucket, handler, setup.signals))]


def settler_for(handler: Handler, setup: HandlerSetup) -> Settler:
    """Build the settler of a handler that this process does not run."""
    return _settler(handler, setup, _attempt_notes(handler, setup), Counts(), None)


def _settler(
    handler: Handler,
    setup: HandlerSetup,
    noted: AttemptNotes,
    counts: Counts,
    retries: HandlerRetries | None,
) -> Settler:
    return Settler(
        handler,
        letters=_letter_storage(setup),
        attempts=noted,
        counts=counts,
        signals=setup.signals,
        long_retries=retries,
    )


def _letter_storage(setup: HandlerSetup) -> LetterStorage:
    return LetterStorage(
        setup.publisher,
        setup.transport.operators,
        RawCopies(setup),
        _bucket(setup, attempts.BUCKET, attempts.TTL),
        setup.provisioner.letter_streams,
    )


class RawCopies:
    """Storage of events that are too large for their dead letter."""

    def __init__(self, setup: HandlerSetup) -> None:
        self._setup = setup

    async def keep(self, original: StoredMessage, *, may_be_gone: bool = False) -> tuple[str, int]:
        """Return the origin if its stream keeps settled events (limits), else a raw copy."""
        setup = self._setup
        if setup.provisioner.retention(original.stream) == "limits" and not may_be_gone:
            return original.stream, original.sequence
        await setup.provisioner.ensure_own_stream()
        # Without headers, not even an id: the body alone may fill a message.
        message = Message(raw_subject(setup.publisher.name), original.body, "")
        stored = await setup.transport.publish(message, timeout=DEFAULT_TIMEOUT)
        return OWN_STREAM.name, stored.sequence


def _attempt_notes(handler: Handler, setup: HandlerSetup) -> AttemptNotes:
    bucket = _bucket(setup, attempts.BUCKET, attempts.TTL)
    return AttemptNotes(bucket, handler, setup.signals)


def settled_notes(handler: Handler, setup: HandlerSetup) -> SettledNotes:
    """Build what processes tell each other about settled events."""
    bucket = _bucket(setup, attempts.BUCKET, attempts.TTL)
    ledger = Ledger(bucket, handler.name) if setup.settings.audit == "on" else None
    return SettledNotes(bucket, handler.name, ledger)


def _bucket(setup: HandlerSetup, name: str, ttl: float) -> Callable[[], Awaitable[Any]]:
    return partial(setup.transport.bucket, name, ttl=ttl)

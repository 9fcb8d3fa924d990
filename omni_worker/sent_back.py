"""Returns: events on their way back from a dead letter, handed to the handler they failed in.

One consumer per app on our own stream, shared by its processes. The first process that
sends an event back creates it. A worker checks for it now and then; until the consumer exists,
this costs nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from .errors import ApiError, OmniWorkerError, PermissionDenied, TransportError
from .handlers import Handler
from .letters.read import read_stored_at
from .letters.written import HANDLER_HEADER, STORED_AT_HEADER, SUBJECT_HEADER, Failure
from .provision import Provisioner
from .schedules.reader_pause import ReaderPause
from .settle import Settler, Trouble
from .signals import ReturnDelayed, ReturnsLost, Signals
from .subscription import SourceState, Subscription
from .topology import ConsumerSpec, retry_consumer
from .transports.base import Delivery, Source, Transport
from .transports.headers import parse_headers
from .transports.infos import ConsumerInfo
from .transports.returned import Returned, SentBack

log = logging.getLogger("omni_worker.worker")

AT_ONCE = (
    64  # events on their way back that one process holds, in addition to its handlers' prefetch
)
UNKNOWN_FOR = 30.0  # seconds an event waits for a process that knows its handler
UNKNOWN_DELAY = 1.0  # seconds between two looks
LONGEST_DELAY = 5.0  # of an event whose handler another process runs
UNKNOWN_REMEMBERED = 10_000  # events with an unknown handler


class UnknownHandler(Exception):
    """No process of the app has a handler of this name (any more)."""


class Returns:
    """Reads an app's returning events while it has handlers. Implements the port's Receiver."""

    def __init__(
        self,
        app: str,
        transport: Transport,
        provisioner: Provisioner,
        *,
        subscriptions: Callable[[], Iterable[Subscription]],
        set_aside: Callable[[], Iterable[Handler]] = tuple,
        settler: Callable[[Handler], Settler],
        signals: Signals,
    ) -> None:
        self._app = app
        self._spec = self._consumer()
        self._transport = transport
        self._provisioner = provisioner
        self._subscriptions = subscriptions
        self._set_aside = set_aside
        self._settler = settler
        self._signals = signals
        self._source: Source | None = None
        self._fed: set[Subscription] = set()
        self._lost: dict[Subscription, SourceState] = {}  # their states, of a deleted consumer
        # Of events with an unknown handler: (sequence, stored at) → loop time when first seen. Our
        # clock and the server's may differ by hours.
        self._unknown: dict[tuple[int, int], float] = {}
        self._denied = False
        self._beginning = asyncio.Lock()  # a look of its own, and one that it was nudged to
        self._told: set[Subscription] = set()  # those that call when they have room
        self._asking: asyncio.Handle | None = None
        self._giving_up: set[asyncio.Task[None]] = set()
        self.pause = ReaderPause(self._spec.name, signals)

    @property
    def is_reading(self) -> bool:
        """Return True if the consumer exists and is read."""
        return self._source is not None

    async def look(self) -> None:
        """Begin to read once there is something to read and a handler to run it."""
        handlers = [one.handler for one in self._subscriptions()]
        if self._denied or not handlers:
            return
        try:
            info = await self._transport.operators.consumer_info(self._spec.stream, self._spec.name)
            self.pause.saw(info)
            if info is None:
                await self._missing()
            else:
                await self._found(info)
                await self._raise_ack_wait(info, handlers)
        except PermissionDenied as error:
            self._denied = True
            self._lacks(error)
        except OmniWorkerError as error:
            log.debug("returning events not read: %s", error)

    async def stop(self) -> None:
        """Ask for nothing more; what is held is the handlers' to finish or to hand back."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if self._source is not None:
            await self._source.stop()
        await asyncio.gather(*self._giving_up, return_exceptions=True)

    async def close(self) -> None:
        """Forget the consumer; it stays on the server."""
        source, self._source = self._source, None
        self._fed.clear()
        if source is not None:
            await source.close()

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Hand it to its handler, on the subject it first came on."""
        name, delivery = self._read(delivery)
        for subscription in self._subscriptions():
            if subscription.handler.name == name:
                self._feed(subscription, delivery)
                break
        else:
            if any(handler.name == name for handler in self._set_aside()):
                # Known, but run by other processes: however long there is none, it waits for one.
                delivery.nak(min(delivery.count * UNKNOWN_DELAY, LONGEST_DELAY))
            else:
                self._on_unknown(name, delivery)
            self._ask_soon()

    def replenish(self, source: Source) -> None:
        """A pull ended."""
        self._ask()

    def resumed(self, source: Source) -> None:
        """The connection is back."""
        for subscription in self._fed:
            subscription.resumed(source)
        self._ask()

    def lost(self, source: Source, cause: Exception) -> None:
        """Stop reading a deleted consumer; the next retry recreates it, the next check finds it."""
        self._signals.emit(
            ReturnsLost(stream=self._spec.stream, consumer=self._spec.name, cause=cause)
        )
        for subscription in self._fed:
            # What it settled may come again from the consumer in the place of this one.
            if (state := subscription.detach(source)) is not None:
                self._lost[subscription] = state
        self._fed.clear()
        self._source = None

    # --- what a consumer of another kind does otherwise ----------------------------------------

    def _consumer(self) -> ConsumerSpec:
        return retry_consumer(self._app)

    def _read(self, delivery: Delivery) -> tuple[str, Delivery]:
        """Return the name of the handler, and the delivery as that handler takes it."""
        headers = parse_headers(delivery.raw_headers)
        name = next(iter(headers.get(HANDLER_HEADER, ())), "")
        # Filters and addresses are those of its first time.
        delivery.subject = next(iter(headers.get(SUBJECT_HEADER, ())), delivery.subject)
        first = read_stored_at(next(iter(headers.get(STORED_AT_HEADER, ())), None))
        return name, delivery if first is None else SentBack(delivery, first * 1_000_000)

    def _lacks(self, error: Exception) -> None:
        """Report that a right is missing."""
        log.warning("dead letters cannot be sent back to this worker: %s", error)

    async def _missing(self) -> None:
        """The consumer does not exist: who sends an event back makes it."""

    async def _found(self, info: ConsumerInfo) -> None:
        """Read the consumer from now on."""
        async with self._beginning:
            await self._prepare(info)
            if self._source is None:
                await self._begin()

    async def _prepare(self, info: ConsumerInfo) -> None:
        """Do what has to be done before the first delivery."""

    def _expect(self, subscription: Subscription, delivery: Delivery) -> None:
        """Let a subscription know what it has to, before it takes a delivery."""

    # --- inside ----------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._source = await self._transport.consume(self._spec.stream, self._spec.name, self)
        log.debug("reading what is sent back", extra={"omni_consumer": self._spec.name})
        self._ask()

    async def _raise_ack_wait(self, info: ConsumerInfo, handlers: Iterable[Handler]) -> None:
        """A handler extends its leases by its own ack_wait: the server's may not be shorter."""
        longest = max(one.options.ack_wait or 0.0 for one in handlers)
        if info.config.ack_wait < longest:
            await self._provisioner.ensure_consumer(replace(self._spec, ack_wait=longest))

    def _feed(self, subscription: Subscription, delivery: Delivery) -> None:
        self._fed &= set(self._subscriptions())
        if subscription not in self._fed:
            self._fed.add(subscription)
            subscription.attach(delivery.source, self._lost.pop(subscription, None), fed=True)
        self._expect(subscription, delivery)
        if subscription.pauses.is_paused:
            subscription.pauses.hand_back_returned(delivery)
        else:
            subscription.receive(delivery)
        self._await_room(subscription)

    def _ask(self) -> None:
        self._asking = None
        if self._source is not None:
            held = sum(self._held_by(one) for one in self._fed)
            self._source.request(AT_ONCE - held - len(self._giving_up) - self._source.outstanding)

    def _held_by(self, subscription: Subscription) -> int:
        """Return how many deliveries of ours a subscription holds."""
        source = self._source
        state = None if source is None else subscription.state_of(source)
        return 0 if state is None else len(state.held)

    def _await_room(self, subscription: Subscription) -> None:
        """Ask for more when this handler lets an event go, if it holds any of ours."""
        if self._held_by(subscription):
            if subscription not in self._told:
                self._told.add(subscription)
                subscription.on_room(partial(self._on_room, subscription))
        else:  # it was recognised, or handed back
            self._ask_soon()

    def _on_room(self, subscription: Subscription) -> None:
        self._told.discard(subscription)
        self._await_room(subscription)
        self._ask_soon()

    def _ask_soon(self) -> None:
        """Once a turn of the loop, however many were let go in it."""
        if self._asking is None and self._source is not None:
            self._asking = asyncio.get_running_loop().call_soon(self._ask)

    def _on_unknown(self, name: str, delivery: Delivery) -> None:
        """Wait: another process may know the handler, or this one may declare it later.

        After ``UNKNOWN_FOR`` seconds here the event becomes a dead letter again.
        """
        now, event = asyncio.get_running_loop().time(), (delivery.sequence, delivery.stored_at)
        if len(self._unknown) >= UNKNOWN_REMEMBERED and event not in self._unknown:
            self._unknown.pop(next(iter(self._unknown)))
        if now - self._unknown.setdefault(event, now) < UNKNOWN_FOR:
            delivery.nak(UNKNOWN_DELAY)
            return
        del self._unknown[event]
        task = asyncio.get_running_loop().create_task(self._give_up(name, delivery))
        self._giving_up.add(task)
        task.add_done_callback(self._given_up)

    def _given_up(self, task: asyncio.Task[None]) -> None:
        self._giving_up.discard(task)
        self._ask_soon()

    async def _give_up(self, name: str, delivery: Delivery) -> None:
        handler = next((one.handler for one in self._subscriptions()), None)
        if handler is None:
            delivery.nak(UNKNOWN_DELAY)
            return
        error = UnknownHandler(f"no handler of {self._app!r} is called {name!r}")
        failures = delivery.failures if isinstance(delivery, Returned) else 0
        unknown = replace(
            handler, function=name, options=replace(handler.options, durable=name, order_by=None)
        )
        try:
            await self._settler(unknown).send_letter(
                delivery, Trouble(first_seen=time.time(), letter=Failure.of(error, failures))
            )
        except (ApiError, TransportError) as failure:
            self._signals.emit(ReturnDelayed(name=name, delivery=delivery, cause=failure))

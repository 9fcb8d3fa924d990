"""Subscription: one handler's loop. Deliveries in, each run once, answered, and let go.

It is put together from its readings (what is known of each source), its credit (how many may be
held), its workers (who runs them) and its leases (that they stay ours).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields

from ..context import Context, Surroundings
from ..dispatch import Dispatcher, TimedOut
from ..errors import TransportError
from ..events import Event
from ..handlers import Handler
from ..outcomes import DONE, Failed, HandBack, Outcome, Rejected
from ..settle import Counts, Settler, Trouble
from ..transports.base import Delivery, Source
from .credit import Credit
from .leases import Leases
from .reading import Reading
from .workers import Worker, Workers

__all__ = ["Counts", "Parts", "Reading", "Subscription", "total"]

log = logging.getLogger("omni_worker.worker")

FAULT_DELAY = 5.0  # seconds until an event comes again after a fault of ours


@dataclass(slots=True, kw_only=True)
class Parts:
    """What a subscription works with; bus puts it together."""

    handler: Handler
    dispatcher: Dispatcher
    settler: Settler
    counts: Counts
    around: Surroundings
    is_connected: Callable[[], bool]
    on_lost: Callable[[Source, Exception], None]
    on_unsubscribe: Callable[[Subscription, float | None], Awaitable[None]]
    foreign_limit: float  # seconds
    streams: int = 1


class Subscription:
    """Runs one handler. Implements the port's Receiver."""

    def __init__(self, parts: Parts) -> None:
        options = parts.handler.options
        assert options.concurrency is not None
        assert options.ack_wait is not None
        self.handler = parts.handler
        self.counts = parts.counts
        self._parts = parts
        self._readings: dict[Source, Reading] = {}
        self._workers = Workers(options.concurrency, self._run, f"omni-worker {parts.handler.name}")
        self._leases = Leases(
            self._readings,
            self._workers,
            ack_wait=options.ack_wait,
            timeout=options.timeout,
            can_cancel=parts.handler.is_async,
            is_connected=parts.is_connected,
        )
        self._credit = Credit(
            self._readings,
            concurrency=options.concurrency,
            prefetch=options.prefetch,
            streams=parts.streams,
            now=self._leases.now,
        )
        self._draining = False
        self._said_foreign = False

    # --- for users -------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Deliveries buffered or running: never more than concurrency + prefetch."""
        return self._credit.held

    @property
    def running(self) -> int:
        """Handlers running right now."""
        return sum(worker.delivery is not None for worker in self._workers.all)

    @property
    def sources(self) -> list[Source]:
        """The consumers it reads."""
        return list(self._readings)

    async def unsubscribe(self, grace: float | None = None) -> None:
        """Stop reading and hand back what has not begun; running handlers get ``grace`` seconds.

        Calling it again changes nothing. A durable consumer stays on the server.
        """
        await self._parts.on_unsubscribe(self, grace)

    # --- for bus and binding ---------------------------------------------------------------

    def attach(self, source: Source, after: Reading | None = None) -> None:
        """Read one more source, from now on; ``after`` is the lost one it takes the place of."""
        reading = Reading(source)
        if after is not None:
            reading.succeed(after)
        self._readings[source] = reading
        self._credit.sources_changed()

    def detach(self, source: Source) -> Reading | None:
        """Forget a lost source: what has not begun is dropped, what runs may only be acked."""
        reading = self._readings.pop(source, None)
        if reading is None:
            return None
        buffer = self._workers.buffer
        for delivery in [one for one in buffer if one.source is source]:
            buffer.remove(delivery)
            self._release(reading, delivery)
        for delivery in reading.held.values():
            delivery.lapsed = True
        self._credit.sources_changed()
        return reading

    def lease(self, ack_wait: float) -> None:
        """The server's ack_wait, in seconds: leases follow it."""
        self._leases.ack_wait = ack_wait

    async def drain(self, grace: float) -> None:
        """Stop without losing or doubling anything.

        Pulling stops first, and only then is handed back what has not begun: a nak sent while a
        pull of ours is outstanding comes straight back. Running handlers get ``grace`` seconds
        with their leases kept; what runs longer is handed back and cancelled.
        """
        self._draining = True
        self._credit.close()
        self._workers.close()
        await asyncio.gather(*(source.stop() for source in self._readings))
        self._hand_back_buffer()
        try:
            await self._workers.wait(grace)
        finally:  # a second signal cancels the wait, not the handing back
            self._hand_back_running()
            await self._workers.cancel()
            self._leases.close()

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery; see the port."""
        reading = self._readings.get(delivery.source)
        if reading is None:
            return
        self._leases.begin(delivery)
        sequence = delivery.sequence
        repeat = delivery.count > 1 or sequence <= reading.look_up_until
        if repeat and self._recognise(reading, delivery):
            return
        if sequence > reading.highest:
            reading.highest = sequence
        if self._draining:
            self._hand_back(delivery)
            return
        reading.held[sequence] = delivery
        self._credit.take(len(delivery.body))
        self._workers.offer(delivery)

    def replenish(self, source: Source) -> None:
        """A pull ended: ask again, for little where nothing came."""
        reading = self._readings.get(source)
        if reading is not None:
            reading.window = 1
        self._credit.refill()

    def resumed(self, source: Source) -> None:
        """The link is back: repeats may come as first deliveries, leases need a touch."""
        reading = self._readings.get(source)
        if reading is not None:
            reading.look_up_until = reading.highest
            self._leases.touch(reading)
        self._credit.refill()

    def lost(self, source: Source, cause: Exception) -> None:
        """The consumer is gone: whoever made it decides."""
        self._parts.on_lost(source, cause)

    def _recognise(self, reading: Reading, delivery: Delivery) -> bool:
        """Whether this delivery needs no run: settled before, or held right now."""
        if reading.settled.holds(delivery.sequence, delivery.stored_at):
            self._parts.settler.settled_before(delivery)
            self._credit.refill_if_low()
            return True
        held = reading.held.get(delivery.sequence)
        if held is None or held.stored_at != delivery.stored_at:
            return False
        # Ours again: the newest delivery carries the lease, the run goes on.
        held.reply = delivery.reply
        held.count = delivery.count
        held.leased_at = delivery.leased_at
        held.lapsed = False
        self._credit.refill_if_low()
        return True

    # --- the life of one delivery ----------------------------------------------------------

    async def _run(self, worker: Worker, delivery: Delivery) -> None:
        """Run, settle, release. Nothing that happens in between escapes but our own end."""
        reading = self._readings.get(delivery.source)
        if reading is None:
            return
        if self._leases.has_lapsed(delivery):
            # The server has given it away; an answer would be for somebody else's delivery.
            self._release(reading, delivery)
            return
        worker.delivery = delivery
        try:
            if await self._handle(worker, reading, delivery):
                reading.settled.add(delivery.sequence, delivery.stored_at)
        except asyncio.CancelledError:
            self._hand_back(delivery)  # somebody ends our task: the event is not lost with it
            raise
        except Exception:
            log.exception("a fault of the framework; the event comes again")
            self._hand_back(delivery, FAULT_DELAY)
        finally:
            worker.delivery = None
            self._release(reading, delivery)
        if _is_cancelled(worker):
            # By the handler, or by whoever ends the loop: nobody can tell. The outcome stands, and
            # this task ends; the next event gets a new one.
            raise asyncio.CancelledError

    async def _handle(self, worker: Worker, reading: Reading, delivery: Delivery) -> bool:
        """Run the handler and answer. Says whether the event is settled."""
        key = (delivery.sequence, delivery.stored_at)
        trouble = reading.troubles.get(key) if reading.troubles else None
        settler = self._parts.settler
        if trouble is not None and trouble.letter is not None:
            settled = await settler.send_letter(delivery, trouble)
        else:
            outcome = await self._outcome(worker, delivery, trouble)
            if outcome is DONE and trouble is None:
                settler.done(delivery)
                return True
            trouble = trouble or Trouble(first_seen=time.time())
            outcome = self._judge_foreign(outcome, trouble)
            settled = await settler.settle(delivery, outcome, trouble)
        if settled:
            reading.troubles.pop(key, None)
        else:
            reading.remember(delivery, trouble)
        return settled

    async def _outcome(
        self, worker: Worker, delivery: Delivery, trouble: Trouble | None
    ) -> Outcome:
        parts = self._parts
        read = parts.dispatcher.read(delivery)
        if not isinstance(read, Event):
            return read
        if trouble is None:
            context = Context(read, delivery, 1, time.time(), parts.around)
        else:
            attempt = trouble.failures + 1
            context = Context(read, delivery, attempt, trouble.first_seen, parts.around)
        self._leases.begin_run(worker)
        outcome = await parts.dispatcher.run(read, context)
        if self._leases.end_run(worker):
            if isinstance(outcome, Failed | Rejected):
                limit = self._leases.timeout
                return Failed(TimedOut(f"the handler ran longer than timeout={limit:g} s"))
        elif _is_cancelled(worker):
            if delivery.lapsed:
                raise asyncio.CancelledError  # handed back at the end of grace: its ending is late
            with suppress(asyncio.CancelledError):  # asked for and not delivered yet
                await asyncio.sleep(0)
        return outcome

    def _judge_foreign(self, outcome: Outcome, trouble: Trouble) -> Outcome:
        """Another version's delivery waits for that version, but not for ever."""
        if not isinstance(outcome, HandBack):
            return outcome
        now = self._leases.now()
        if trouble.handed_back_since is None:
            trouble.handed_back_since = now
        if now - trouble.handed_back_since >= self._parts.foreign_limit:
            return Rejected(TransportError(f"nobody took it: {outcome.reason}"), unreadable=True)
        if not self._said_foreign:
            self._said_foreign = True
            log.warning(
                "a delivery for another version of this consumer is handed back",
                extra={"handler": self.handler.name, "reason": outcome.reason},
            )
        return outcome

    def _release(self, reading: Reading, delivery: Delivery) -> None:
        if reading.held.get(delivery.sequence) is delivery:
            del reading.held[delivery.sequence]
        self._credit.give_back()

    def _hand_back_buffer(self) -> None:
        buffer = self._workers.buffer
        while buffer:
            delivery = buffer.popleft()
            self._hand_back(delivery)
            self._release(self._readings[delivery.source], delivery)

    def _hand_back_running(self) -> None:
        """Grace is over: what still runs goes back; its late ending counts for nothing."""
        for worker in self._workers.all:
            if worker.delivery is not None:
                self._hand_back(worker.delivery)
                log.warning(
                    "still running at the end of grace; handed back",
                    extra={"handler": self.handler.name, "subject": worker.delivery.subject},
                )

    def _hand_back(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Back to the server, unless it is not ours any more."""
        if not self._leases.has_lapsed(delivery):
            self._parts.settler.hand_back(delivery, delay)


def _is_cancelled(worker: Worker) -> bool:
    return worker.task is not None and worker.task.cancelling() > 0


def total(counts: Iterable[Counts]) -> Counts:
    """The sum over several handlers."""
    every = list(counts)
    names = [field.name for field in fields(Counts)]
    return Counts(**{name: sum(getattr(one, name) for one in every) for name in names})

"""Subscription: one handler's loop. Credit, concurrency, leases, deadlines and draining.

Deliveries come in from one or more sources, wait in one buffer, and are run by long-lived workers.
What a run leads to is dispatch's word; what the server is told, settle's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, fields

from .context import Context, Surroundings
from .dispatch import Dispatcher, TimedOut
from .errors import TransportError
from .events import Event
from .handlers import Handler
from .outcomes import DONE, Failed, HandBack, Outcome, Rejected
from .settle import Counts, Settler, Trouble
from .settled import SettledMemory
from .transports.base import Delivery, Source

log = logging.getLogger("omni_worker.worker")

MAX_ADAPTIVE = 2_000  # deliveries prefetched at most
MAX_ADAPTIVE_BYTES = 16 * 1024 * 1024  # and not more than this
HORIZON = 0.1  # seconds of work to have at hand: more than a round trip, less than a hold-up
TURN = 128  # events a worker runs before the loop gets a turn, if no handler gave it one
FAULT_DELAY = 5.0  # seconds until an event comes again after a fault of ours
NEVER = float("inf")
TROUBLES_KEPT = 100_000  # events waiting for a retry that this process remembers


class Reading:
    """What the subscription knows of one of its sources."""

    __slots__ = ("held", "highest", "look_up_until", "settled", "source", "troubles", "window")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.held: dict[int, Delivery] = {}  # by sequence: buffered or running
        self.settled = SettledMemory()
        self.troubles: dict[tuple[int, int], Trouble] = {}
        self.highest = 0
        # Until this sequence a first delivery may be a repeat: a server killed with -9 forgets
        # its last acks and counts.
        self.look_up_until = 0
        # How much to ask of it at once where there are several: an idle source must not sit on
        # the credit of a busy one. It doubles while the source delivers what was asked.
        self.window = 1


@dataclass(slots=True, eq=False)
class Worker:
    """One of the long-lived tasks that run the handler."""

    task: asyncio.Task[None] | None = None
    deadline: float = NEVER  # loop time
    delivery: Delivery | None = None  # the one it runs or settles right now
    timed_out: bool = False


@dataclass(slots=True, kw_only=True)
class Parts:
    """What a subscription is made of; bus puts it together."""

    handler: Handler
    dispatcher: Dispatcher
    settler: Settler
    around: Surroundings
    is_connected: Callable[[], bool]
    on_lost: Callable[[Source, Exception], None]
    on_unsubscribe: Callable[[Subscription, float | None], Awaitable[None]]
    foreign_limit: float  # seconds
    counts: Counts
    streams: int = 1


class Subscription:
    """Runs one handler. Implements the port's Receiver."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.handler = parts.handler
        options = parts.handler.options
        assert options.concurrency is not None
        assert options.ack_wait is not None
        self._concurrency = options.concurrency
        self._fixed_prefetch = options.prefetch
        self._timeout = options.timeout
        self.ack_wait = options.ack_wait  # the server's word replaces it
        self.counts = parts.counts
        self._readings: dict[Source, Reading] = {}
        self._buffer: deque[Delivery] = deque()
        self._workers: list[Worker] = []
        self._idle: list[asyncio.Future[None]] = []
        self._waking = False
        self._held = 0
        self._limit = self._concurrency + self._prefetch_floor()
        self._draining = False
        self._said_foreign = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._measured_at = self._now()
        self._measured_done = 0
        self._done = 0
        self._received = 0
        self._received_bytes = 0

    # --- what bus uses ---------------------------------------------------------------------

    def attach(self, source: Source, after: Reading | None = None) -> None:
        """Read one more source, from now on; ``after`` is what a lost one knew of the stream."""
        reading = Reading(source)
        if after is not None:
            reading.settled = after.settled
            reading.troubles = after.troubles
            reading.highest = reading.look_up_until = after.highest
        self._readings[source] = reading
        self._refill()

    def detach(self, source: Source) -> Reading | None:
        """Forget a source that is lost; what it delivered and was not begun is dropped."""
        reading = self._readings.pop(source, None)
        if reading is not None:
            for delivery in list(reading.held.values()):
                delivery.lapsed = True
                if not delivery.running:
                    self._release(reading, delivery)
            self._buffer = deque(one for one in self._buffer if one.source is not source)
        return reading

    async def unsubscribe(self, grace: float | None = None) -> None:
        """Stop reading and hand back what has not begun; running handlers get ``grace`` seconds.

        Calling it again changes nothing. A durable consumer stays on the server.
        """
        await self._parts.on_unsubscribe(self, grace)

    @property
    def held(self) -> int:
        """Deliveries buffered or running: never more than concurrency + prefetch."""
        return self._held

    @property
    def running(self) -> int:
        """Handlers running right now."""
        return sum(worker.delivery is not None for worker in self._workers)

    @property
    def sources(self) -> list[Source]:
        """What it reads."""
        return list(self._readings)

    async def drain(self, grace: float) -> None:
        """Stop without losing or doubling anything.

        Pulling stops first, and only then is handed back what has not begun: a nak sent while a
        pull of ours is outstanding comes straight back. Running handlers get ``grace`` seconds
        with their leases kept; what runs longer is handed back and cancelled.
        """
        self._draining = True
        await asyncio.gather(*(source.stop() for source in self._readings))
        self._hand_back_buffer()
        self._wake_all()
        running = [worker.task for worker in self._workers if worker.task is not None]
        try:
            if running:
                await asyncio.wait(running, timeout=grace)
        finally:  # a second signal cancels the wait, not the handing back
            await self._hand_back_running()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the port's Receiver ---------------------------------------------------------------

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery; see the port."""
        reading = self._readings.get(delivery.source)
        if reading is None:
            return
        sequence = delivery.sequence
        delivery.leased_at = self._now()
        if (delivery.count > 1 or sequence <= reading.look_up_until) and self._recognise(
            reading, delivery
        ):
            return
        if sequence > reading.highest:
            reading.highest = sequence
        if self._draining:
            delivery.nak()
            self.counts.handed_back += 1
            return
        reading.held[sequence] = delivery
        self._held += 1
        self._received += 1
        self._received_bytes += len(delivery.body)
        self._buffer.append(delivery)
        if self._timer is None:
            self._schedule()
        self._wake_one()

    def replenish(self, source: Source) -> None:
        """A pull ended: ask again, for less where nothing came."""
        reading = self._readings.get(source)
        if reading is not None:
            reading.window = 1
        self._refill()

    def resumed(self, source: Source) -> None:
        """The link is back: repeats may come as first deliveries, leases need a touch."""
        reading = self._readings.get(source)
        if reading is None:
            return
        reading.look_up_until = reading.highest
        self._tick()
        for delivery in reading.held.values():
            if not delivery.lapsed:
                delivery.in_progress()
                delivery.leased_at = self._now()
        self._refill()

    def lost(self, source: Source, cause: Exception) -> None:
        """The consumer is gone: whoever made it decides."""
        self._parts.on_lost(source, cause)

    # --- recognising -----------------------------------------------------------------------

    def _recognise(self, reading: Reading, delivery: Delivery) -> bool:
        """Whether this delivery needs no run: settled before, or held right now."""
        if reading.settled.holds(delivery.sequence, delivery.stored_at):
            delivery.ack()
            self.counts.recognised += 1
            self._refill_if_low()
            return True
        held = reading.held.get(delivery.sequence)
        if held is None or held.stored_at != delivery.stored_at:
            return False
        # Ours again: the newest delivery carries the lease, the run goes on.
        held.reply = delivery.reply
        held.count = delivery.count
        held.leased_at = delivery.leased_at
        held.lapsed = False
        self._refill_if_low()
        return True

    # --- workers ---------------------------------------------------------------------------

    def _wake_one(self) -> None:
        """At most one is woken at a time; it wakes the next if there is more to do."""
        if self._waking:
            return
        while self._idle:
            future = self._idle.pop()
            if not future.done():
                self._waking = True
                future.set_result(None)
                return
        if len(self._workers) < self._concurrency:
            self._waking = True
            worker = Worker()
            worker.task = self._loop.create_task(
                self._work(worker), name=f"omni-worker {self.handler.name}"
            )
            self._workers.append(worker)

    def _wake_all(self) -> None:
        idle, self._idle = self._idle, []
        for future in idle:
            if not future.done():
                future.set_result(None)

    async def _work(self, worker: Worker) -> None:
        """Run deliveries until draining; lives as long as the subscription."""
        try:
            turn = 0
            while True:
                self._waking = False
                if self._draining:
                    return
                if not self._buffer:
                    idle = self._loop.create_future()
                    self._idle.append(idle)
                    await idle
                    continue
                delivery = self._buffer.popleft()
                if self._buffer:
                    self._wake_one()
                await self._run(worker, delivery)
                turn += 1
                if turn >= TURN:
                    turn = 0
                    await asyncio.sleep(0)
        finally:
            self._workers.remove(worker)

    async def _run(self, worker: Worker, delivery: Delivery) -> None:
        """The life of one delivery: run, settle, release."""
        reading = self._readings.get(delivery.source)
        if reading is None:
            return
        if self._has_lapsed(delivery):
            # The server has given it away; an answer would be for somebody else's delivery.
            self._release(reading, delivery)
            return
        worker.delivery = delivery
        delivery.running = True
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
            delivery.running = False
            self._done += 1
            self._release(reading, delivery)

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
            self._remember(reading, key, trouble)
        return settled

    async def _outcome(
        self, worker: Worker, delivery: Delivery, trouble: Trouble | None
    ) -> Outcome:
        read = self._parts.dispatcher.read(delivery)
        if not isinstance(read, Event):
            return read
        if trouble is None:
            context = Context(read, delivery, 1, time.time(), self._parts.around)
        else:
            context = Context(
                read, delivery, trouble.failures + 1, trouble.first_seen, self._parts.around
            )
        if self._timeout is not None:
            worker.deadline = self._now() + self._timeout
            self._schedule(self._timeout)
        outcome = await self._parts.dispatcher.run(read, context)
        worker.deadline = NEVER
        if worker.timed_out:
            return self._timed_out(worker, outcome)
        if worker.task is not None and worker.task.cancelling():
            raise asyncio.CancelledError  # not the handler's own: somebody ends our task
        return outcome

    def _timed_out(self, worker: Worker, outcome: Outcome) -> Outcome:
        """A run we cancelled: whatever it made of the cancellation, it took too long."""
        worker.timed_out = False
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        if isinstance(outcome, Failed | Rejected):
            return Failed(TimedOut(f"the handler ran longer than timeout={self._timeout:g} s"))
        return outcome  # it finished all the same

    def _judge_foreign(self, outcome: Outcome, trouble: Trouble) -> Outcome:
        """Another version's delivery waits for that version, but not for ever."""
        if not isinstance(outcome, HandBack):
            return outcome
        now = self._now()
        if trouble.handed_back_since is None:
            trouble.handed_back_since = now
        if now - trouble.handed_back_since < self._parts.foreign_limit:
            self._say_foreign(outcome.reason)
            return outcome
        return Rejected(TransportError(f"nobody took it: {outcome.reason}"), unreadable=True)

    def _say_foreign(self, reason: str) -> None:
        if not self._said_foreign:
            self._said_foreign = True
            log.warning(
                "a delivery for another version of this consumer is handed back",
                extra={"handler": self.handler.name, "reason": reason},
            )

    def _remember(self, reading: Reading, key: tuple[int, int], trouble: Trouble) -> None:
        troubles = reading.troubles
        if key not in troubles and len(troubles) >= TROUBLES_KEPT:
            troubles.pop(next(iter(troubles)))
        troubles[key] = trouble

    # --- credit ----------------------------------------------------------------------------

    def _release(self, reading: Reading, delivery: Delivery) -> None:
        if reading.held.get(delivery.sequence) is delivery:
            del reading.held[delivery.sequence]
            self._held -= 1
            self._refill_if_low()

    def _refill_if_low(self) -> None:
        if self._held + self._outstanding() <= self._limit // 2:
            self._refill()

    def _outstanding(self) -> int:
        return sum(source.outstanding for source in self._readings)

    def _refill(self) -> None:
        """Ask for as much as may be held: large requests are cheaper for the server."""
        if self._draining:
            return
        self._adapt()
        free = self._limit - self._held - self._outstanding()
        if len(self._readings) == 1:
            for source in self._readings:
                source.request(free)
            return
        for source, reading in self._readings.items():
            if free > 0 and source.outstanding == 0:
                reading.window = min(self._limit, reading.window * 2)
                count = min(free, reading.window // 2)
                source.request(count)
                free -= count

    def _adapt(self) -> None:
        """Prefetch what the handler does in HORIZON seconds: a slow one holds few."""
        if self._fixed_prefetch is not None:
            return
        now = self._now()
        elapsed = now - self._measured_at
        done = self._done - self._measured_done
        if elapsed < 0.005 or done < self._concurrency:
            return
        self._measured_at, self._measured_done = now, self._done
        mean_size = self._received_bytes / max(1, self._received)
        affordable = min(MAX_ADAPTIVE, MAX_ADAPTIVE_BYTES / max(1.0, mean_size))
        wanted = max(self._prefetch_floor(), done / elapsed * HORIZON)
        self._limit = self._concurrency + max(self._parts.streams, int(min(affordable, wanted)))
        self._received = self._received_bytes = 0

    def _prefetch_floor(self) -> int:
        if self._fixed_prefetch is not None:
            # One request has to stand at every stream, or events there would wait for ever.
            return max(self._fixed_prefetch, self._parts.streams - self._concurrency)
        return max(self._concurrency, self._parts.streams)

    # --- time ------------------------------------------------------------------------------

    def _schedule(self, within: float | None = None) -> None:
        """One timer per subscription, and only while something is held."""
        delay = self.ack_wait / 6 if within is None else min(within, self.ack_wait / 6)
        when = self._now() + delay
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._tick()
        if self._held:
            now = self._now()
            nearest = min((worker.deadline for worker in self._workers), default=NEVER)
            self._schedule(max(0.001, nearest - now) if nearest < NEVER else None)

    def _tick(self) -> None:
        """Extend leases, notice lapsed ones, cancel what runs too long."""
        now = self._now()
        connected = self._parts.is_connected()
        third = self.ack_wait / 3
        for reading in self._readings.values():
            for delivery in reading.held.values():
                due = not self._has_lapsed(delivery) and now - delivery.leased_at >= third
                if due and connected:
                    delivery.in_progress()
                    delivery.leased_at = now
        for worker in self._workers:
            if worker.deadline <= now:
                self._stop_overdue(worker)

    def _has_lapsed(self, delivery: Delivery) -> bool:
        """Whether the server has given it away: we were stopped, blocked or cut off too long."""
        if not delivery.lapsed and self._now() - delivery.leased_at > self.ack_wait:
            delivery.lapsed = True
        return delivery.lapsed

    def _stop_overdue(self, worker: Worker) -> None:
        first = not worker.timed_out
        worker.timed_out = True
        if self.handler.is_async:
            # Again at every timeout: a handler may swallow a cancellation.
            worker.deadline = self._now() + (self._timeout or 1.0)
            if worker.task is not None:
                worker.task.cancel()
        else:
            worker.deadline = NEVER
            if first and worker.delivery is not None:
                log.warning(
                    "a thread cannot be stopped: the event keeps its lease until it ends",
                    extra={"handler": self.handler.name, "timeout": self._timeout},
                )

    # --- draining --------------------------------------------------------------------------

    def _hand_back_buffer(self) -> None:
        while self._buffer:
            delivery = self._buffer.popleft()
            reading = self._readings.get(delivery.source)
            if reading is None:
                continue
            self._hand_back(delivery)
            self._release(reading, delivery)

    def _hand_back(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Back to the server, unless it is not ours any more; a late ending counts for nothing."""
        if not self._has_lapsed(delivery):
            delivery.nak(delay)
            delivery.lapsed = True
            self.counts.handed_back += 1

    async def _hand_back_running(self) -> None:
        """Grace is over: what still runs goes back, and its late ending counts for nothing."""
        cancelled = []
        for worker in self._workers:
            delivery = worker.delivery
            if delivery is not None:
                self._hand_back(delivery)
                log.warning(
                    "still running at the end of grace; handed back",
                    extra={"handler": self.handler.name, "subject": delivery.subject},
                )
            if worker.task is not None:
                worker.task.cancel()
                cancelled.append(worker.task)
        if cancelled:
            await asyncio.wait(cancelled, timeout=1.0)


def total(counts: Iterable[Counts]) -> Counts:
    """The sum over several handlers."""
    every = list(counts)
    names = [field.name for field in fields(Counts)]
    return Counts(**{name: sum(getattr(one, name) for one in every) for name in names})

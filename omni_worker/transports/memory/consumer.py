"""A consumer in memory: hands messages to pullers, and keeps the unsettled ones.

Deliveries are explicit-ack pulls. Due times are loop times; a timer runs only while a puller
waits, because nothing is delivered again before a puller asks.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import TransportError
from ...subjects import matches
from ..infos import filters_of
from ..timestamps import nanoseconds, timestamp
from .configs import Config, as_shown
from .pulls import Pin, Puller, Request, pin_of
from .stream import Clock, MemoryStream, Record

_NANO = 1e9


# Loop time, and the number of the server's act that set it: in virtual time many leases end at one
# time, and still the one set last ends last. Leases of one act end together, in stream order.
_Due = tuple[float, int]


class _Held:
    __slots__ = ("consumer_sequence", "due", "queued")

    def __init__(self, consumer_sequence: int) -> None:
        self.consumer_sequence = consumer_sequence  # of the first delivery
        self.due: _Due = (0.0, 0)
        self.queued = False  # to be delivered again as soon as a puller asks


class MemoryConsumer:
    """State of one consumer, shared by all its pullers."""

    def __init__(self, stream: MemoryStream, config: Config, clock: Clock) -> None:
        self.stream = stream
        self._clock = clock
        self.created = clock()
        self._waiting: deque[Request] = deque()
        self._pin: Pin | None = None
        self._pending: dict[int, _Held] = {}
        self._again: deque[int] = deque()
        self._due: list[tuple[_Due, int]] = []  # a heap; outdated entries are skipped
        self._act = 0
        self._redelivered: dict[int, int] = {}
        self._consumer_sequence = 0
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        stream.on_removed.append(self._on_removed)
        self._touch()
        self.config: Config = {}
        self.configure(config)
        self._next = self._start()  # the stream sequence looked at next
        self._floor = (0, self._next - 1)  # consumer sequence, stream sequence

    # --- what the server calls -------------------------------------------------------------

    def configure(self, config: Config) -> None:
        """Apply a configuration; held deliveries keep their due time."""
        if pause := self.config.get("pause_until"):  # an update keeps it
            config = {**config, "pause_until": pause}
        self.config = config
        self._filters = filters_of(config)
        self._wanted: dict[str, bool] = {}  # cache by subject, so that no filter is matched twice
        self._ack_wait = config["ack_wait"] / _NANO
        self._pin = pin_of(config, self._pin)
        self.wake()

    def pause(self, until: str) -> bool:
        """Hand out nothing until then; return True if that is in the future."""
        self.config = {**self.config, "pause_until": until}
        self.wake()
        self._set_timer()
        return self._paused_for() > 0

    def _paused_for(self) -> float:
        until = self.config.get("pause_until")
        left = (nanoseconds(until) - self._clock()) / _NANO if until else 0.0
        return left if left > 1e-6 else 0.0  # a timer is less exact than this clock

    def pull(self, puller: Puller, count: int, ends: float | None = None) -> None:
        """Hand out ``count`` messages as they come, in turn with other waiting pullers.

        The request is withdrawn after ``ends`` seconds.
        """
        self._touch()
        if puller.pin and (self._pin is None or self._pin.number != puller.pin):
            puller.unpinned()
            return
        if self._pin is not None:
            self._pin.asked_by(puller)
        request = Request(puller, count)
        self._waiting.append(request)
        if ends is not None:
            asyncio.get_running_loop().call_later(ends, self._end_request, request)
        self.wake()

    def _end_request(self, request: Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
            self._set_timer()
            request.puller.ended(request.left)

    def withdraw(self, puller: Puller) -> None:
        """Forget the requests of a puller; if it is gone its deliveries repeat after ack_wait."""
        self._touch()
        self._waiting = deque(one for one in self._waiting if one.puller is not puller)
        self._set_timer()

    def cut_off(self, puller: Puller) -> None:
        """Handle a cut link: the next one is served after a while."""
        self.withdraw(puller)
        if self._pin is not None:
            self._pin.cut_off(puller, self.wake)

    def release(self, puller: Puller) -> None:
        """Handle the end of a puller: the next one is served."""
        self.withdraw(puller)
        if self._pin is not None:
            self._pin.release(puller)
            self.wake()

    def wake(self) -> None:
        """Check soon if there is a message for a waiting puller."""
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def on_stored(self, subject: str) -> None:
        """Handle a stored message; a subject outside the filters does not move the position."""
        if self._waiting and self._wants(subject):
            self.wake()

    def answer(self, sequence: int, answer: bytes) -> None:
        """Take the answer to a delivery; if the delivery is not held, nothing changes."""
        self._touch()
        self._act += 1
        # First, or a late in_progress would renew a lease that has expired.
        self._queue_lapsed()
        pending = self._pending.get(sequence)
        if pending is None:
            return
        if answer in (b"", b"+ACK", b"+OK") or answer.startswith(b"+TERM"):
            self._settle(sequence, pending)
        elif answer.startswith(b"-NAK"):
            self._on_nak(sequence, pending, _delay(answer))
        elif answer == b"+WPI":
            self._hold(sequence, pending, self._ack_wait)
        self.wake()
        self._set_timer()

    def end(self, cause: TransportError) -> None:
        """End a deleted consumer: notify the waiting pullers."""
        self.stream.on_removed.remove(self._on_removed)
        waiting, self._waiting = self._waiting, deque()
        for puller in {id(one.puller): one.puller for one in waiting}.values():
            puller.gone(cause)
        self._set_timer()

    def is_unused(self) -> bool:
        """Return True if no one used the consumer for longer than its inactive threshold."""
        threshold = self.config.get("inactive_threshold", 0) / _NANO
        idle = asyncio.get_running_loop().time() - self._used_at
        return bool(threshold) and not self._waiting and idle > threshold

    def unsettled(self) -> Iterator[tuple[Record, int, float | None]]:
        """Yield each unsettled message, the number of its deliveries, and its due time."""
        self.stream.expire(self._clock())
        for sequence, pending in list(self._pending.items()):
            if (record := self.stream.get(sequence)) is not None:
                yield record, self._redelivered.get(sequence, 0) + 1, pending.due[0]
        yield from (
            (one, 0, None) for one in self.stream.since(self._next) if self._wants(one.subject)
        )

    def info(self) -> dict[str, Any]:
        """Return configuration and state, as the server's JSON."""
        self.stream.expire(self._clock())
        consumer_floor, stream_floor = self._floor
        paused_for = self._paused_for()
        paused = {"paused": True, "pause_remaining": int(paused_for * _NANO)} if paused_for else {}
        pending = sum(self._wants(record.subject) for record in self.stream.since(self._next))
        return {
            "stream_name": self.stream.name,
            "name": self.config["name"],
            "created": timestamp(self.created),
            "config": as_shown(self.config),
            "delivered": {"consumer_seq": self._consumer_sequence, "stream_seq": self._next - 1},
            "ack_floor": {"consumer_seq": consumer_floor, "stream_seq": stream_floor},
            "num_ack_pending": len(self._pending),
            "num_redelivered": len(self._redelivered),
            "num_waiting": len(self._waiting),
            "num_pending": pending,
            "ts": timestamp(self._clock()),
            **paused,
        }

    # --- handing out -----------------------------------------------------------------------

    def _dispatch(self) -> None:
        self._scheduled = False
        self._act += 1
        self.stream.expire(self._clock())
        self._queue_lapsed()
        while self._waiting and not self._paused_for():
            if self._pin is not None and not self._pin.serves(self._waiting):
                break
            record = self._next_redelivery() or self._next_new()
            if record is None:
                break
            self._hand_out(record)
        self._set_timer()

    def _hand_out(self, record: Record) -> None:
        # In turn: a served puller goes to the end of the queue.
        request = self._waiting.popleft()
        if self._pin is not None:
            self._pin.handed_to(request.puller)
        request.left -= 1
        if request.left > 0:
            self._waiting.append(request)
        self._consumer_sequence += 1
        if self.config["ack_policy"] == "none":
            self._floor = (self._consumer_sequence, record.sequence)
            request.puller.take(record, 1, self._consumer_sequence, 0, 0)
            return
        pending = self._pending.get(record.sequence)
        if pending is None:
            pending = self._pending[record.sequence] = _Held(self._consumer_sequence)
        self._hold(record.sequence, pending, self._ack_wait)
        count = self._redelivered.get(record.sequence, 0) + 1
        # The engine looks at it in redeliveries only, and counting is slow.
        waiting = int(count > 1 and self._has_new())
        pin = 0 if self._pin is None else self._pin.number
        request.puller.take(record, count, self._consumer_sequence, waiting, pin)

    def _next_redelivery(self) -> Record | None:
        while self._again:
            sequence = self._again.popleft()
            pending = self._pending.get(sequence)
            if pending is None or not pending.queued:  # settled since then
                continue
            pending.queued = False
            record = self.stream.get(sequence)
            if record is not None:
                self._redelivered[sequence] = self._redelivered.get(sequence, 0) + 1
                return record
            self._settle(sequence, pending)  # the stream no longer holds it
        return None

    def _has_new(self) -> bool:
        for record in self.stream.since(self._next):
            if self._wants(record.subject):
                return True
            self._next = record.sequence + 1
        return False

    def _next_new(self) -> Record | None:
        limit = self.config["max_ack_pending"]
        if 0 < limit <= len(self._pending):
            return None
        for record in self.stream.since(self._next):
            self._next = record.sequence + 1
            if self._wants(record.subject):
                return record
        return None

    def _wants(self, subject: str) -> bool:
        if not self._filters:
            return True
        wanted = self._wanted.get(subject)
        if wanted is None:
            wanted = self._wanted[subject] = any(matches(one, subject) for one in self._filters)
        return wanted

    # --- what is held ----------------------------------------------------------------------

    def _hold(self, sequence: int, pending: _Held, seconds: float) -> None:
        pending.due = asyncio.get_running_loop().time() + seconds, self._act
        heapq.heappush(self._due, (pending.due, sequence))

    def _on_nak(self, sequence: int, pending: _Held, delay: float) -> None:
        if delay > 0:
            self._hold(sequence, pending, delay)  # still held: it counts against max_ack_pending
        else:
            self._queue(sequence, pending)

    def _queue(self, sequence: int, pending: _Held) -> None:
        if not pending.queued:
            pending.queued = True
            self._again.append(sequence)

    def _queue_lapsed(self) -> None:
        """Queue every delivery whose lease or delay is over, in the order they ended."""
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0][0] <= now:
            due, sequence = heapq.heappop(self._due)
            pending = self._pending.get(sequence)
            if pending is not None and pending.due == due:
                self._queue(sequence, pending)

    def _on_removed(self, sequence: int) -> None:
        """Handle a message that the stream dropped: no answer for it is expected any longer."""
        pending = self._pending.get(sequence)
        if pending is not None:
            self._settle(sequence, pending)
            self.wake()

    def _settle(self, sequence: int, pending: _Held) -> None:
        """Forget a delivery, and move the ack floor up to the oldest one still held."""
        del self._pending[sequence]
        self._redelivered.pop(sequence, None)
        if not self._pending:
            self._floor = (self._consumer_sequence, self._next - 1)
        elif pending.consumer_sequence == self._floor[0] + 1:
            self._floor = (pending.consumer_sequence, sequence)
            for later in range(sequence + 1, self._next):
                if (held := self._pending.get(later)) is not None:
                    self._floor = (held.consumer_sequence - 1, later - 1)
                    break

    def _set_timer(self) -> None:
        """Wake when the next lease or delay ends, while a puller waits."""
        while self._due and self._is_past(*self._due[0]):
            heapq.heappop(self._due)
        due = self._due[0][0][0] if self._due and self._waiting else None
        if self._waiting and (paused_for := self._paused_for()):
            due = asyncio.get_running_loop().time() + paused_for
        if self._timer is not None and self._timer.when() != due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch()

    def _is_past(self, due: _Due, sequence: int) -> bool:
        pending = self._pending.get(sequence)
        return pending is None or pending.queued or pending.due != due

    def _touch(self) -> None:
        self._used_at = asyncio.get_running_loop().time()

    def _start(self) -> int:
        """Return the first stream sequence to deliver, by the deliver policy."""
        stream = self.stream
        match self.config["deliver_policy"]:
            case "new":
                return stream.last_sequence + 1
            case "last":
                last = [one.sequence for one in stream.since(0) if self._wants(one.subject)][-1:]
                return last[0] if last else 1
            case "by_start_sequence":
                return max(int(self.config["opt_start_seq"]), stream.first_sequence)
            case "by_start_time":
                return stream.sequence_at(nanoseconds(self.config["opt_start_time"]))
            case _:
                return stream.first_sequence


def _delay(answer: bytes) -> float:
    """Return the delay of a nak in seconds; 0 for one that the server cannot read."""
    try:
        options: object = json.loads(answer[4:] or b"{}")
        delay = options.get("delay", 0) if isinstance(options, Mapping) else 0
        return delay / _NANO if isinstance(delay, int) else 0.0
    except ValueError:
        return 0.0

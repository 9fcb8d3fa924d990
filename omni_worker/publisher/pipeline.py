"""Pipeline: many events through publish middlewares, in order, without a task for each.

A middleware that only publishes is driven by hand, many of them by one task: up to the message
that it sends, and on from its confirmation, each in a context of its own. As soon as one waits for
anything else, or asks for its task, the event gets one, as in any asyncio program.
"""

from __future__ import annotations

import asyncio
from asyncio import _enter_task, _leave_task  # for tasks that are not asyncio's own
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from itertools import chain
from types import CoroutineType
from typing import Any

from ..errors import ConfigError, NotConnected, PublishError, TransportError
from ..events import Event, Published
from ..ids import random_id
from ..transports.base import Message, Stored, Transport
from .drafts import Draft
from .driven import CUT_OFF, ENDED, Batch, Driven, Rest
from .middlewares import PublishMiddleware, awaiting
from .passages import Passage

BATCH = 128  # events driven by hand at once, until the loop has a turn
IN_FLIGHT = 2_048  # events begun and not ended; more do not go faster
FEW_IN_FLIGHT = 2 * BATCH  # so many in any case, more only while the server is slow to confirm
PATIENCE = 0.001  # seconds without a confirmation, after which one more batch is begun

NOT_SENT = TransportError("not published: one before it was not stored in time")
# After these errors no further draft is read: a time ran out, or there is no connection.
_GAVE_UP = (TransportError, PublishError, NotConnected)

Enter = Callable[[Passage], Event[Any]]
Compose = Callable[[Passage, Event[Any]], Message]
Check = Callable[[object], Published]


class Pipeline:
    """Publishes many: what ``enter`` makes of each goes ``through`` the middlewares.

    They begin in the order of their drafts and are sent in it. After an event whose time ran out
    no further draft is read; nor from a generator after a refused one.
    """

    def __init__(
        self,
        drafts: Iterable[Draft],
        enter: Enter,
        through: PublishMiddleware,
        compose: Compose,
        check: Check,
        transport: Transport,
        timeout: float,
    ) -> None:
        self._drafts = iter(drafts)
        self._is_list = isinstance(drafts, Collection)
        self._enter = enter
        self._through = through
        self.compose = compose
        self._check = check
        self._transport = transport
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._turns = Turns(self._flush_soon)
        # Messages of events with tasks of their own, until their turn, and what awaits the results.
        self._ready: dict[int, list[tuple[Message, asyncio.Future[Stored | Exception]]]] = {}
        self._is_flushing = False
        self._slots = 0
        self._is_opening = False  # a slot that begins drafts
        self._growing: asyncio.Task[None] | None = None
        self._confirmed = 0  # batches
        self._in_flight = 0
        self._is_over = False
        self.ids: list[str] = []
        self.results: list[Published | Exception] = []

    async def run(self) -> None:
        """Publish all of them; ``ids`` and ``results`` have what became of each."""
        async with self._tasks:
            self._open_slot()
        if self._is_list:  # of a list it is known what was not sent any more
            self.ids += [draft.id or "" for draft in self._drafts]

    def _open_slot(self, batch: Batch | None = None) -> None:
        if batch is None:
            if self._is_opening:
                return
            self._is_opening = True
        self._slots += 1
        self._start(self._slot(batch))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._tasks.create_task(work)
        except RuntimeError:  # all of them are being cancelled
            work.close()

    async def _slot(self, batch: Batch | None) -> None:
        if batch is None:
            self._is_opening = False
        await self._drive_on(batch or Batch())
        self._slots -= 1

    async def _drive_on(self, batch: Batch) -> None:
        """Drive one batch after the other, as long as there are drafts and room."""
        while True:
            ready = await self._send_batch(batch) if batch.events else self._begin()
            begun = len(self.ids)
            batch = self._drive(ready)
            if batch.events:
                continue
            if len(self.ids) == begun:
                return
            await asyncio.sleep(0)  # all of them have ended, or have tasks of their own

    def _drive(self, ready: Iterable[Driven]) -> Batch:
        """Drive events by hand; returns the batch of those that are to be sent."""
        slot = asyncio.current_task()
        assert slot is not None
        batch, again = Batch(), Batch()
        for event in ready:
            if event.task is not None:
                continue
            event.batch = own = batch if event.coroutine is None else again
            event.waits_for = waits_for = self._step(event, slot)
            if waits_for is own.confirmed:
                own.park(event)
            elif waits_for is not ENDED:
                event.own_task()
                if batch.events:  # sent before it; what follows after it
                    self._open_slot(batch)
                    batch = Batch()
        if again.events:  # a middleware publishes its event a second time
            self._open_slot(again)
        return batch

    def _step(self, event: Driven, slot: asyncio.Task[Any]) -> Any:
        """Run an event until it waits; returns what for."""
        loop = self._loop
        _leave_task(loop, slot)
        _enter_task(loop, event)  # type: ignore[arg-type]
        try:
            if event.coroutine is None:
                return event.context.run(self._first_step, event)
            return event.context.run(event.coroutine.send, None)
        except StopIteration as end:
            published, index = end.value, event.index
            if published.__class__ is Published and index < self._turns.next:  # the usual end
                self.results[index] = published
                self._in_flight -= 1
            else:
                self._end_well(event, published)
        except Exception as error:
            self._end(event, error)
        except asyncio.CancelledError:  # of its own making: a failure like any other
            self._end(event, CUT_OFF)
        finally:
            _leave_task(loop, event)  # type: ignore[arg-type]
            _enter_task(loop, slot)
        return ENDED

    def _first_step(self, event: Driven) -> Any:
        begun = self._through(self._enter(event), event)
        event.coroutine = begun if isinstance(begun, CoroutineType) else awaiting(begun)
        return event.coroutine.send(None)

    def open_task(self, event: Driven) -> asyncio.Task[None]:
        """Open the task that goes on with an event."""
        rest = Rest(event, self._end_well, self._end)
        return self._tasks.create_task(rest, context=event.context)

    def _begin(self) -> Iterator[Driven]:
        """Read drafts, as long as there is room."""
        ids, results = self.ids, self.results
        for _ in range(BATCH):
            if self._in_flight >= IN_FLIGHT or self._is_over:
                return
            try:
                draft = next(self._drafts)
            except StopIteration:
                return self._read_no_more()
            except Exception as error:  # the iterator of drafts failed
                ids.append("")
                results.append(error)
                return self._read_no_more()
            id = draft.id if draft.id is not None else random_id()
            event = Driven(self, draft, id, len(ids))
            ids.append(id)
            results.append(CUT_OFF)
            self._in_flight += 1
            yield event

    def _end_well(self, event: Driven, result: object) -> None:
        try:
            published = self._check(result)
        except ConfigError as error:
            self._end(event, error)
        else:
            self._end(event, published)

    def _end(self, event: Driven, result: Published | Exception) -> None:
        self.results[event.index] = result
        self._in_flight -= 1
        self._turns.pass_on(event.index)
        if isinstance(result, Exception):
            refused = not isinstance(result, TransportError)
            gave_up = type(result) in _GAVE_UP and result is not CUT_OFF
            if gave_up or (refused and not self._is_list):
                self._read_no_more()
        if not self._slots and not self._is_over:
            self._open_slot()  # the last one found no room

    def _read_no_more(self) -> None:
        self._is_over = True
        if self._growing is not None:
            self._growing.cancel()

    async def send_alone(self, event: Driven, message: Message) -> Stored:
        """Send the message of an event with a task of its own; waits for its confirmation."""
        index = event.index
        if index < self._turns.next:  # it was sent before, or has ended
            [result] = await self._send(index, index, [message], alone=True)
        else:
            waiting = self._loop.create_future()
            self._ready.setdefault(index, []).append((message, waiting))
            self._flush_soon()
            try:
                result = await waiting
            finally:
                waiting.cancel()  # nothing is sent of an event that was cancelled
        if isinstance(result, Exception):
            raise result
        return result

    def _flush_soon(self) -> None:
        """Send what is ready in its turn, all that become so in this turn of the loop together."""
        if self._ready and not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        together: list[tuple[Message, asyncio.Future[Stored | Exception]]] = []
        first = index = self._turns.next
        while len(together) < BATCH:
            given_up = self._turns.has_ended(index)
            ready = [one for one in self._ready.pop(index, ()) if not one[1].done()]
            if not ready and not given_up:
                break
            together += ready
            index += 1
        if not together:
            return
        self._start(self._send_together(first, index - 1, together))

    async def _send_together(
        self,
        first: int,
        last: int,
        together: list[tuple[Message, asyncio.Future[Stored | Exception]]],
    ) -> None:
        results = await self._send(first, last, [one for one, _ in together], alone=True)
        for (_, waiting), result in zip(together, results, strict=True):
            if not waiting.done():
                waiting.set_result(result)

    async def _send_batch(self, batch: Batch) -> Iterator[Driven]:
        """Send a batch; returns what is to be driven then: its events, and others that begin."""
        events, batch.events = batch.events, []
        messages = [event.message for event in events]
        results = await self._send(events[0].index, events[-1].index, messages)
        batch.confirmed.set_result(results)
        if set(map(type, results)) == {Stored}:
            return in_turn(events, self._begin())
        return chain(events, self._begin())  # after some errors none begins any more

    async def _send(
        self, first: int, last: int, messages: list[Message], *, alone: bool = False
    ) -> Sequence[Stored | Exception]:
        """Send the messages of these events in their turn; returns what became of each."""
        await self._turns.wait(first)

        def sending() -> Iterator[Message]:
            yield from messages
            self._turns.pass_to(last)  # all are on their way

        if self._in_flight < IN_FLIGHT and not self._is_over:
            self._fill(alone)
        try:
            results = await self._transport.publish_many(sending(), timeout=self._timeout)
        except Exception as error:  # of the whole batch: it is what became of each
            return [error] * len(messages)
        finally:
            self._confirmed += 1
            self._turns.pass_to(last)
        return [*results, *[NOT_SENT] * (len(messages) - len(results))]

    def _fill(self, is_alone: bool) -> None:
        """Begin more: at once if few are on their way, else when confirmations are slow."""
        if self._in_flight < (IN_FLIGHT // 2 if is_alone else FEW_IN_FLIGHT):
            self._open_slot()
        elif self._growing is None or self._growing.done():
            self._growing = self._tasks.create_task(self._grow())

    async def _grow(self) -> None:
        # Few events alive keep the garbage collector quick: they end before it goes through them.
        while self._in_flight < IN_FLIGHT:
            confirmed = self._confirmed
            await asyncio.sleep(PATIENCE)
            if confirmed == self._confirmed:
                self._open_slot()


class Turns:
    """The order in which events are sent: that of their drafts, whichever is ready first."""

    def __init__(self, on_turn: Callable[[], None]) -> None:
        self._on_turn = on_turn  # another event's turn has come
        self.next = 0  # the first that is neither sent nor has ended
        self._ended: set[int] = set()  # before their turn came: they are not sent at all
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def wait(self, index: int) -> None:
        """Wait until every event before this one is sent or has ended."""
        if index <= self.next:
            return
        self._waiting[index] = turn = asyncio.get_running_loop().create_future()
        try:
            await turn
        finally:
            del self._waiting[index]

    def has_ended(self, index: int) -> bool:
        """Return True for an event that ended before its turn."""
        return index in self._ended

    def pass_on(self, index: int) -> None:
        """Mark an event as ended."""
        if index > self.next:
            self._ended.add(index)
        elif index == self.next:
            self.pass_to(index)

    def pass_to(self, index: int) -> None:
        """Every event up to this one is sent or has ended."""
        self.next = max(self.next, index + 1)
        while self._ended and self.next in self._ended:
            self._ended.remove(self.next)
            self.next += 1
        if self._waiting and (turn := self._waiting.get(self.next)) and not turn.done():
            turn.set_result(None)
        self._on_turn()


def in_turn(confirmed: list[Driven], begun: Iterator[Driven]) -> Iterator[Driven]:
    """A confirmed event and one that begins in turn, and all others that begin.

    As many objects are freed as are made: the garbage collector is called for the difference.
    """
    confirmed.reverse()
    while confirmed:
        yield confirmed.pop()
        if (other := next(begun, None)) is not None:
            yield other
    yield from begun

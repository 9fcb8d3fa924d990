"""Pipeline: many events through publish middlewares, in order, without a task for each.

A middleware that only publishes is driven by hand, many of them by one task: up to the message
that it sends, and on from its confirmation. As soon as one waits for anything else, the task is
its own, as in any asyncio program, and another task drives what comes after it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import chain
from typing import Any

from ..errors import ConfigError, NotConnected, PublishError, TransportError
from ..events import Published
from ..ids import random_id
from ..transports.base import Message, Stored, Transport
from .drafts import Draft
from .middlewares import coroutine_of
from .passages import Compose, Passage

BATCH = 32  # events driven by hand at once, until the loop has a turn
IN_FLIGHT = 2_048  # events begun and not ended; more do not go faster
FEW_IN_FLIGHT = 2 * BATCH  # so many in any case, more only while the server is slow to confirm
PATIENCE = 0.001  # seconds without a confirmation, after which one more batch is begun

NOT_SENT = TransportError("not published: one before it was not stored in time")
_CUT_OFF = PublishError("its publish middleware was cancelled", event_id="")
# After these errors no further draft is read: a time ran out, or there is no connection.
_GAVE_UP = (TransportError, PublishError, NotConnected)
_ENDED = object()


Begin = Callable[[Passage], Awaitable[Published]]
Check = Callable[[object], Published]


class Pipeline:
    """Publishes many, each by the coroutine ``publish`` makes, which sends by its passage.

    They begin in the order of their drafts and are sent in it. After an event whose time ran out
    no further draft is read; nor from a generator after a refused one.
    """

    def __init__(
        self,
        drafts: Iterable[Draft],
        begin: Begin,
        compose: Compose,
        check: Check,
        transport: Transport,
        timeout: float,
    ) -> None:
        self._drafts = iter(drafts)
        self._is_list = isinstance(drafts, Collection)
        self._begin_one = begin
        self._compose = compose
        self._check = check
        self._transport = transport
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._turns = Turns()
        self._driven: Passage | None = None  # by hand, at this moment
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

    def _open_slot(self, ready: Iterable[Passage] = (), parked: Sequence[Passage] = ()) -> None:
        self._tasks.create_task(self._slot(ready, [*parked]))

    async def _slot(self, ready: Iterable[Passage], parked: list[Passage]) -> None:
        """Drive one batch after the other, as long as there are drafts and room."""
        while True:
            kept = self._drive(ready, parked)
            if kept is not None:
                # Two: what is before it in a batch is sent before it, what follows after it.
                if parked:
                    self._open_slot(parked=parked)
                self._open_slot(ready)
                await self._finish(kept)
                ready, parked = (), []
            elif parked:
                ready, parked = iter(await self._send_batch(parked)), []
            elif (first := next(begun := self._begin(), None)) is not None:
                ready = chain([first], begun)
            else:
                return

    def _drive(self, ready: Iterable[Passage], parked: list[Passage]) -> Passage | None:
        """Drive passages by hand into ``parked``; returns one that must have this task."""
        task = asyncio.current_task()
        for passage in ready:
            holders = sys.getrefcount(task)
            passage.waits_for = self._step(passage)
            if passage.waits_for is _ENDED:
                continue
            waits_for = passage.waits_for
            publishes = waits_for is not None and waits_for is passage.confirmation
            if publishes:
                parked.append(passage)
            # A timeout or a cancel scope that it opened refers to the task that it would cancel.
            if not publishes or sys.getrefcount(task) != holders:
                self._driven = None
                return passage
        self._driven = None
        return None

    def _step(self, passage: Passage) -> Any:
        """Run an event until it waits; returns what for."""
        self._driven = passage
        try:
            return passage.coroutine.send(None)
        except StopIteration as end:
            self._end_well(passage, end.value)
        except Exception as error:
            self._end(passage, error)
        except asyncio.CancelledError:  # of its own making: a failure like any other
            self._end(passage, _CUT_OFF)
        return _ENDED

    async def _finish(self, passage: Passage) -> None:
        """Await the rest of an event in the task in which it waited first."""
        passage.by_hand = False
        try:
            self._end_well(passage, await _Rest(passage.coroutine, passage.waits_for))
        except Exception as error:
            self._end(passage, error)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            self._end(passage, _CUT_OFF)

    def _begin(self) -> Iterator[Passage]:
        """Read drafts, as long as there is room, and make a passage of each."""
        for _ in range(BATCH):
            if self._in_flight >= IN_FLIGHT or (draft := self._read()) is None:
                return
            id = draft.id if draft.id is not None else random_id()
            index = self._add(id, _CUT_OFF)
            passage = Passage(draft, id, self._compose, self._store, index)
            self._in_flight += 1
            try:
                passage.coroutine = coroutine_of(self._begin_one(passage))
            except Exception as error:
                self._end(passage, error)
                continue
            yield passage

    def _read(self) -> Draft | None:
        if self._is_over:
            return None
        try:
            return next(self._drafts)
        except StopIteration:
            pass
        except Exception as error:  # the iterator of drafts failed
            self._add("", error)
        self._read_no_more()
        return None

    def _add(self, id: str, result: Exception) -> int:
        self.ids.append(id)
        self.results.append(result)
        return len(self.results) - 1

    def _end_well(self, passage: Passage, result: object) -> None:
        try:
            published = self._check(result)
        except ConfigError as error:
            self._end(passage, error)
        else:
            self._end(passage, published)

    def _end(self, passage: Passage, result: Published | Exception) -> None:
        self.results[passage.index] = result
        self._in_flight -= 1
        self._turns.pass_on(passage.index)
        if isinstance(result, Exception):
            refused = not isinstance(result, TransportError)
            gave_up = type(result) in _GAVE_UP and result is not _CUT_OFF
            if gave_up or (refused and not self._is_list):
                self._read_no_more()

    def _read_no_more(self) -> None:
        self._is_over = True
        if self._growing is not None:
            self._growing.cancel()

    def _store(self, passage: Passage, message: Message) -> Awaitable[Stored]:
        if passage is not self._driven:  # in a task, its own or another
            return self._send_alone(passage, message)
        passage.message = message
        passage.confirmation = self._loop.create_future()
        return passage.confirmation

    async def _send_alone(self, passage: Passage, message: Message) -> Stored:
        [result] = await self._send(passage.index, passage.index, [message])
        if isinstance(result, Exception):
            raise result
        return result

    async def _send_batch(self, batch: list[Passage]) -> list[Passage]:
        """Send the messages of a batch; returns those to be driven on."""
        messages = [passage.message for passage in batch]
        results = await self._send(batch[0].index, batch[-1].index, messages)
        for passage, result in zip(batch, results, strict=True):
            passage.confirm(result)
        return [passage for passage in batch if passage.by_hand]

    async def _send(
        self, first: int, last: int, messages: list[Message]
    ) -> Sequence[Stored | Exception]:
        """Send the messages of these events in their turn; returns what became of each."""
        await self._turns.wait(first)

        def sending() -> Iterator[Message]:
            yield from messages
            self._turns.pass_to(last)  # all are on their way

        if self._in_flight < IN_FLIGHT and not self._is_over:
            self._fill()
        try:
            results = await self._transport.publish_many(sending(), timeout=self._timeout)
        except Exception as error:  # of the whole batch: it is what became of each
            return [error] * len(messages)
        finally:
            self._confirmed += 1
            self._turns.pass_to(last)
        return [*results, *[NOT_SENT] * (len(messages) - len(results))]

    def _fill(self) -> None:
        """Begin more: at once if few are on their way, else when confirmations are slow."""
        if self._in_flight < FEW_IN_FLIGHT:
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

    def __init__(self) -> None:
        self._next = 0
        self._ended: set[int] = set()  # before their turn came: they are not sent at all
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def wait(self, index: int) -> None:
        """Wait until every event before this one is sent or has ended."""
        if index <= self._next:
            return
        self._waiting[index] = turn = asyncio.get_running_loop().create_future()
        try:
            await turn
        finally:
            del self._waiting[index]

    def pass_on(self, index: int) -> None:
        """Mark an event as ended."""
        if index > self._next:
            self._ended.add(index)
        elif index == self._next:
            self.pass_to(index)

    def pass_to(self, index: int) -> None:
        """Every event up to this one is sent or has ended."""
        self._next = max(self._next, index + 1)
        while self._ended and self._next in self._ended:
            self._ended.remove(self._next)
            self._next += 1
        if self._waiting and (turn := self._waiting.get(self._next)) and not turn.done():
            turn.set_result(None)


class _Rest:
    """The rest of a coroutine that was begun by hand and waits for ``first``."""

    def __init__(self, coroutine: Coroutine[Any, Any, Published], first: Any) -> None:
        self._coroutine = coroutine
        self._first = first

    def __await__(self) -> Generator[Any, None, Published]:
        waits_for = self._first
        try:
            while True:
                try:
                    yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(None)
        except StopIteration as end:
            published: Published = end.value
            return published

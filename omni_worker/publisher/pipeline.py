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
from contextvars import ContextVar
from itertools import chain, repeat
from typing import Any

from ..errors import NotConnected, PublishError, TransportError
from ..events import Published
from ..ids import random_id
from ..transports.base import Message, Stored, Transport
from .drafts import Draft

BATCH = 64  # events driven by hand at once, until the loop has a turn
IN_FLIGHT = 2_048  # events begun and not ended; more do not go faster

NOT_SENT = TransportError("not published: one before it was not stored in time")
_CUT_OFF = PublishError("its publish middleware was cancelled", event_id="")
# After these errors no further draft is read: a time ran out, or there is no connection.
_GAVE_UP = (TransportError, PublishError, NotConnected)
_ENDED = object()


class Passage:
    """Event that is being published, and the function that sends its message."""

    __slots__ = (
        "by_hand", "confirmation", "coroutine", "draft", "index", "message", "store", "waits_for",
    )  # fmt: skip

    def __init__(self, draft: Draft, store: Store, index: int = 0) -> None:
        self.draft = draft
        self.store = store  # takes this passage and a message
        self.index = index
        self.by_hand = True
        self.coroutine: Coroutine[Any, Any, Published]
        self.message: Message
        self.confirmation: asyncio.Future[Stored] | None = None
        self.waits_for: Any = None

    def confirm(self, result: Stored | Exception) -> None:
        """Say what became of its message."""
        assert self.confirmation is not None
        if self.confirmation.done():
            return  # given up
        if isinstance(result, Exception):
            self.confirmation.set_exception(result)
        else:
            self.confirmation.set_result(result)


# The event that is on its way here, in every task that one of its middlewares begins as well.
current_passage: ContextVar[Passage] = ContextVar("omni_worker_passage")

Store = Callable[[Passage, Message], Awaitable[Stored]]
Begin = Callable[[Draft, str], Coroutine[Any, Any, Published]]


class Pipeline:
    """Publishes many, each by the coroutine ``publish`` makes, which sends by its passage.

    They begin in the order of their drafts and are sent in it. After an event whose time ran out
    no further draft is read; nor from a generator after a refused one.
    """

    def __init__(
        self, drafts: Iterable[Draft], begin: Begin, transport: Transport, timeout: float
    ) -> None:
        self._drafts = iter(drafts)
        self._is_list = isinstance(drafts, Collection)
        self._begin_one = begin
        self._transport = transport
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._turns = Turns()
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
                ready, parked = iter(await self._send(parked)), []
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
            publishes = passage.confirmation is not None and (
                passage.waits_for is passage.confirmation
            )
            if publishes:
                parked.append(passage)
            # A timeout or a cancel scope that it opened refers to the task that it would cancel.
            if not publishes or sys.getrefcount(task) != holders:
                return passage
        return None

    def _step(self, passage: Passage) -> Any:
        """Run an event until it waits; returns what for."""
        current_passage.set(passage)
        try:
            return passage.coroutine.send(None)
        except StopIteration as end:
            self._end(passage, end.value)
        except Exception as error:
            self._end(passage, error)
        except asyncio.CancelledError:  # of its own making: a failure like any other
            self._end(passage, _CUT_OFF)
        return _ENDED

    async def _finish(self, passage: Passage) -> None:
        """Await the rest of an event in the task in which it waited first."""
        passage.by_hand = False
        try:
            self._end(passage, await _Rest(passage.coroutine, passage.waits_for))
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
            passage = Passage(draft, self._store, self._add(id, _CUT_OFF))
            self._in_flight += 1
            try:
                passage.coroutine = self._begin_one(draft, id)
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
        self._is_over = True
        return None

    def _add(self, id: str, result: Exception) -> int:
        self.ids.append(id)
        self.results.append(result)
        return len(self.results) - 1

    def _end(self, passage: Passage, result: Published | Exception) -> None:
        self.results[passage.index] = result
        self._in_flight -= 1
        self._turns.pass_on(passage.index)
        if isinstance(result, Exception):
            refused = not isinstance(result, TransportError)
            gave_up = type(result) in _GAVE_UP and result is not _CUT_OFF
            if gave_up or (refused and not self._is_list):
                self._is_over = True

    def _store(self, passage: Passage, message: Message) -> Awaitable[Stored]:
        passage.message = message
        passage.confirmation = self._loop.create_future()
        return passage.confirmation if passage.by_hand else self._send_alone(passage)

    async def _send_alone(self, passage: Passage) -> Stored:
        await self._send([passage])
        assert passage.confirmation is not None
        return await passage.confirmation

    async def _send(self, batch: list[Passage]) -> list[Passage]:
        """Send the messages of a batch in its turn; returns those to be driven on."""
        await self._turns.wait(batch[0].index)

        def messages() -> Iterator[Message]:
            for passage in batch:
                yield passage.message
            self._turns.pass_to(batch[-1].index)  # all are on their way

        if self._in_flight < IN_FLIGHT and not self._is_over:
            self._open_slot()
        try:
            results = await self._transport.publish_many(messages(), timeout=self._timeout)
        except Exception as error:  # of the whole batch: it is what became of each
            results = [error] * len(batch)
        finally:
            self._turns.pass_to(batch[-1].index)
        for passage, result in zip(batch, chain(results, repeat(NOT_SENT)), strict=False):
            passage.confirm(result)
        return [passage for passage in batch if passage.by_hand]


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

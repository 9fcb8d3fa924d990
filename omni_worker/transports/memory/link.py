"""The link between one transport and the server: messages arrive one turn of the loop later.

Both directions keep their order. A cut loses messages on their way, as a broken connection does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ...errors import TransportError

T = TypeVar("T")
Act = Callable[[], None]


class LinkLost(TransportError):
    """The link was cut under a request; the request is repeated on the next link."""


class Link:
    """Two queues of acts, one for the server and one for us."""

    def __init__(self) -> None:
        self.is_up = False
        self._to_server: deque[Act] = deque()
        self._to_us: deque[Act] = deque()
        self._scheduled = False
        self._calls: set[asyncio.Future[Any]] = set()

    def send(self, act: Act) -> None:
        """Queue an act for the server; if the link is down, the act is lost."""
        self._add(self._to_server, act)

    def hand_over(self, act: Act) -> None:
        """Queue an act for our side."""
        self._add(self._to_us, act)

    async def call(self, question: Callable[[], T]) -> T:
        """Ask the server. Raises the server's error, or LinkLost if the answer cannot come."""
        if not self.is_up:
            raise LinkLost("the link is down")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def ask() -> None:
            try:
                answer = question()
            except Exception as error:
                self.hand_over(partial(_fail, future, error))
            else:
                self.hand_over(partial(_answer, future, answer))

        self.send(ask)
        self._calls.add(future)
        try:
            return await future
        finally:
            self._calls.discard(future)

    async def answered(self) -> None:
        """Wait until every question on its way has its answer."""
        if self._calls:
            await asyncio.wait(list(self._calls))

    def drain(self) -> None:
        """Run everything sent so far now, before the link is closed."""
        while self._to_server:
            self._to_server.popleft()()

    def cut(self) -> None:
        """Lose everything on its way; requests that wait for an answer raise LinkLost."""
        self.is_up = False
        self._to_server.clear()
        self._to_us.clear()
        for call in self._calls:
            _fail(call, LinkLost("the link was cut"))

    def _add(self, line: deque[Act], act: Act) -> None:
        if not self.is_up:
            return
        line.append(act)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._carry)

    def _carry(self) -> None:
        self._scheduled = False
        try:
            # Acts caused by these run in the next turn: no answer overtakes its question.
            for line in (self._to_us, self._to_server):
                for _ in range(len(line)):
                    if not line:  # the link was cut by one of the acts
                        break
                    line.popleft()()
        finally:
            if (self._to_us or self._to_server) and not self._scheduled:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._carry)


def _answer(future: asyncio.Future[T], answer: T) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

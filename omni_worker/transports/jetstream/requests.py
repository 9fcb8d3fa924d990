"""Requests: ask the server and wait for its answer, over the current link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import NotConnected, PermissionDenied, TransportError, Unanswered
from ..headers import status_of
from .connection import Connection
from .frames import frame


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to a request; ``status`` is 503 when there is no responder."""

    status: int
    headers: bytes | None
    body: bytes


Accept = Callable[[Reply], bool]


@dataclass(slots=True)
class _Waiting:
    subject: str  # to name a denied one
    future: asyncio.Future[Reply]
    accept: Accept | None
    refused: Reply | None = None  # last answer of another program


class Requests:
    """Requests over one shared inbox; each answer is matched by its token."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._waiting: dict[bytes, _Waiting] = {}
        self._token = 0
        connection.on_down.append(lambda: self._fail(_LinkLost("the connection broke")))
        connection.on_fail.append(self._fail)
        connection.on_denied.append(self._on_denied)

    def listen(self) -> None:
        """Subscribe to the answers; once per opened connection."""
        self._connection.listen(self._inbox + b".*", self._on_reply)

    def close(self) -> None:
        """Fail every waiting request."""
        self._fail(NotConnected("the connection was closed"))

    async def ask(
        self, subject: str, body: bytes = b"", *, headers: bytes = b"", timeout: float = 5.0,
        accept: Accept | None = None,
    ) -> Reply:  # fmt: skip
        """Ask and wait for the answer; while the link is down, wait for the link first.

        What ``accept`` refuses is an answer of another program, and the wait goes on.
        Raises PermissionDenied naming the subject, or TransportError when no answer comes.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            await self._connection.wait_up(max(0.0, deadline - loop.time()))
            try:
                left = max(0.01, deadline - loop.time())
                return await self.ask_once(
                    subject, body, headers=headers, timeout=left, accept=accept
                )
            except _LinkLost:
                if loop.time() >= deadline:
                    raise TransportError(f"{subject}: the connection broke, no answer") from None

    async def ask_once(
        self, subject: str, body: bytes, *, headers: bytes, timeout: float, accept: Accept | None
    ) -> Reply:
        """Ask as ``ask`` does, over the present link only."""
        self._connection.check_heard(self._inbox + b".*")
        self._token += 1
        token = b"%d" % self._token
        inbox, largest = b"%b.%b" % (self._inbox, token), self._connection.max_payload
        data = frame(subject, inbox, headers, body, max_payload=largest)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[token] = _Waiting(subject, future, accept)
        self._connection.send(data)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Unanswered(_why_none(waiting, timeout)) from None
        finally:
            self._waiting.pop(token, None)

    def _on_reply(self, subject: bytes, reply: bytes, headers: bytes | None, body: bytes) -> None:
        waiting = self._waiting.get(subject[len(self._inbox) + 1 :])
        if waiting is None or waiting.future.done():
            return
        answer = Reply(status_of(headers), headers, body)
        if waiting.accept is None or waiting.accept(answer):
            waiting.future.set_result(answer)
        else:
            waiting.refused = answer  # the server's own is still to come

    def _on_denied(self, subject: str, error: PermissionDenied) -> None:
        if subject.encode() == self._inbox + b".*":
            self._fail(error)
        for waiting in self._waiting.values():
            if waiting.subject == subject and not waiting.future.done():
                waiting.future.set_exception(error)

    def _fail(self, error: Exception) -> None:
        for waiting in self._waiting.values():
            if not waiting.future.done():
                waiting.future.set_exception(error)


def _why_none(waiting: _Waiting, timeout: float) -> str:
    none = f"{waiting.subject}: no answer in {timeout:.1f} s"
    if waiting.refused is None:
        return none
    return (
        f"{none} but one of another program, {waiting.refused.body[:40]!r}:"
        " find the program that subscribes to this subject (to '>', perhaps) and replies"
    )


class _LinkLost(TransportError):
    """Link broke under a request; the request is repeated on the next link."""

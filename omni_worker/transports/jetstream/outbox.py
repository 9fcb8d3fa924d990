"""The outbox: messages on their way into streams, pipelined, each until its own confirmation.

One inbox and one map of pending messages instead of a request per publish. After a reconnect the
same bytes go out again: the message id makes the server keep one copy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from ...errors import (
    ApiError,
    NoStream,
    PermissionDenied,
    PublishError,
    TransportError,
)
from ..base import Message, Stored
from ..headers import message_headers, status_of
from ..results import Results
from .confirmations import Batch, Single
from .connection import Connection
from .frames import frame
from .publish_answers import is_usual, other_domain, read_answer

log = logging.getLogger("omni_worker.transport")

WINDOW = 2_048  # messages unconfirmed at once; more do not go faster, fewer go slower
WINDOW_BYTES = 8 * 1024 * 1024  # and at most so many bytes, so that large messages cannot pile up
RESEND_AFTER = 3.0  # seconds without a confirmation
TURN = 128  # messages until the loop gets a turn to send them and to read confirmations
RETRY_AFTER = 0.25  # seconds, after an answer that may soon change
# The stream is full, out of resources, being replicated, or the id is in process (ADR-50, 10158).
ID_ON_ITS_WAY = 10158
MOST_HEADS = 100  # one for each stream
TRANSIENT = frozenset({10077, 10023, 10118, ID_ON_ITS_WAY, 10008, 10074})


class _Publish:
    __slots__ = (
        "data", "deadline", "index", "message", "resend_at", "trouble", "unanswered", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        waiting: Batch | Single,
        index: int,
        message: Message,
        data: bytes,
        deadline: float,
        resend_at: float,
        unanswered: int,
    ) -> None:
        self.waiting = waiting
        self.index = index
        self.message = message
        self.data = data
        self.deadline = deadline
        self.resend_at = resend_at
        self.unanswered = unanswered  # copies sent without an answer: each may be stored
        self.trouble = ""


class Outbox:
    """Publishes for one connection. ``owner`` returns the stream that stores a subject."""

    def __init__(
        self, connection: Connection, owner: Callable[[str], Awaitable[str | None]],
        domain: str | None = None,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._domain = domain  # in which a message must be stored
        self._owner = owner
        self._inbox = connection.new_inbox() + b"."
        self._answers = self._inbox + b"*"
        self._token = 0
        self._pending: dict[bytes, _Publish] = {}
        self._heads: dict[bytes, str] = {}  # of usual answers, up to the sequence: their stream
        self._size = 0  # bytes of the pending messages
        self._room: list[asyncio.Future[None]] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._checks: set[asyncio.Task[None]] = set()
        connection.on_up.append(self._resend_all)
        connection.on_fail.append(self._fail_all)
        connection.on_denied.append(self._fail_denied)

    def listen(self) -> None:
        """Subscribe to the confirmations; once per opened connection."""
        self._connection.listen(self._answers, self._on_answer)

    def close(self, error: Exception) -> None:
        """Fail every waiting publish."""
        self._fail_all(error)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def confirmed(self, timeout: float) -> None:
        """Wait until all confirmations are here, at most ``timeout`` seconds."""
        waiting = {pending.waiting.done for pending in self._pending.values()}
        if waiting:
            await asyncio.wait(waiting, timeout=timeout)

    async def publish(self, message: Message, *, timeout: float) -> Stored:
        """Store one message; see the Transport port."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = now + timeout
        if self._is_full():
            await self._wait_for_room(message, deadline)
            now = loop.time()
        single = Single()
        self._submit(single, 0, message, deadline, now)
        result: Stored | Exception = await single.done
        if isinstance(result, Exception):
            raise result
        return result

    async def publish_many(self, messages: Iterable[Message], *, timeout: float) -> Results:
        """Store many in this order; see the Transport port."""
        loop = asyncio.get_running_loop()
        batch = Batch()
        try:
            for number, message in enumerate(messages):
                if number % TURN == 0:
                    await asyncio.sleep(0)
                now = loop.time()
                deadline = now + timeout
                if len(self._pending) >= WINDOW or self._size >= WINDOW_BYTES:  # it is full
                    try:
                        await self._wait_for_room(message, deadline)
                        now = loop.time()
                        if batch.stops():  # else its own timeout would be added
                            raise _not_stored(message, "one before it was not stored")
                    except TransportError as error:  # a message that cannot be written in time
                        batch.put(batch.add(), error)
                        break
                self._submit(batch, batch.add(), message, deadline, now)
                if batch.ends_early:
                    break
            batch.end()
            await batch.done
        except asyncio.CancelledError:
            batch.done.cancel()
            raise
        return batch.results

    def _is_full(self) -> bool:
        return len(self._pending) >= WINDOW or self._size >= WINDOW_BYTES

    def _submit(
        self,
        waiting: Batch | Single,
        index: int,
        message: Message,
        deadline: float,
        now: float,
    ) -> None:
        """Write a message if the link is up; it waits for its confirmation either way."""
        connection = self._connection
        self._token += 1
        token = b"%d" % self._token
        try:
            if not connection.is_up:
                connection.check_usable()
            connection.check_heard(self._answers)
            headers = message_headers(message.id, message.headers)
            data = frame(
                message.subject, self._inbox + token, headers, message.body,
                max_payload=connection.max_payload,
            )  # fmt: skip
        except Exception as error:
            waiting.ends_early |= isinstance(
                error, TransportError
            )  # a problem of the link, not of the message
            waiting.put(index, error)
            return
        self._size += len(data)
        self._pending[token] = _Publish(
            waiting, index, message, data, deadline, now + RESEND_AFTER, connection.send(data)
        )
        if self._sweep is None:
            self._keep_sweeping()

    # --- answers ---------------------------------------------------------------------------

    def _on_answer(self, subject: bytes, reply: bytes, headers: bytes | None, body: bytes) -> None:
        token = subject[len(self._inbox) :]
        pending = self._pending.get(token)
        if pending is None:
            return
        if headers is None:
            head, _, end = body.rpartition(b":")
            stream, digits = self._heads.get(head), end[:-1]
            # Usually: no sequence has more than 20 digits.
            if stream is not None and len(end) < 22 and digits.isdigit() and end[-1:] == b"}":
                del self._pending[token]
                self._size -= len(pending.data)
                pending.waiting.put_stored(pending.index, stream, int(digits))
                if self._room:
                    self._make_room_if_half()
                return
        elif status_of(headers) == 503:
            self._on_no_responders(token, pending)
            return
        self._on_unusual_answer(token, pending, body)

    def _on_unusual_answer(self, token: bytes, pending: _Publish, body: bytes) -> None:
        if other := other_domain(body, self._domain):
            pending.trouble = f"the JetStream domain {other} confirmed it, not {self._domain}"
            return
        answer = read_answer(pending.message.subject, body)
        if answer is None:
            return  # another subscriber replied; the stream's own answer is still to come
        if isinstance(answer, Stored) and not answer.duplicate and len(self._heads) < MOST_HEADS:
            head = body.rpartition(b":")[0]
            if is_usual(head, answer.stream):
                self._heads[head] = answer.stream
        if not isinstance(answer, ApiError):
            self._settle(token, answer)
            return
        if answer.err_code != ID_ON_ITS_WAY:
            pending.unanswered -= 1
        if answer.err_code in TRANSIENT:
            self._again_later(pending, str(answer))
        else:
            self._settle(token, answer)

    def _on_no_responders(self, token: bytes, pending: _Publish) -> None:
        # No stream, or a stream without a leader at the moment: only the API knows.
        pending.unanswered -= 1
        first = not pending.trouble
        self._again_later(pending, pending.trouble or "no stream answered")
        if first:
            check = asyncio.get_running_loop().create_task(self._check_stream(token, pending))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _check_stream(self, token: bytes, pending: _Publish) -> None:
        subject = pending.message.subject
        try:
            owner = await self._owner(subject)
        except TransportError as error:
            pending.trouble = str(error)  # re-sent until its timeout
            return
        if owner is None:
            self._settle(token, NoStream(f"no stream on the server stores {subject!r}"))

    def _again_later(self, pending: _Publish, trouble: str) -> None:
        pending.trouble = trouble
        pending.resend_at = asyncio.get_running_loop().time() + RETRY_AFTER

    def _settle(self, token: bytes, result: Stored | Exception) -> None:
        pending = self._forget(token)
        if pending is not None:
            pending.waiting.put(pending.index, result)
        if self._room:
            self._make_room_if_half()

    def _make_room_if_half(self) -> None:
        if len(self._pending) < WINDOW // 2 and self._size < WINDOW_BYTES // 2:
            self._make_room()

    def _forget(self, token: bytes) -> _Publish | None:
        pending = self._pending.pop(token, None)
        if pending is not None:
            self._size -= len(pending.data)
        return pending

    # --- time, and the connection ----------------------------------------------------------

    def _look_over(self) -> None:
        """Sweep once over all messages: deadlines and resends."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for token, pending in list(self._pending.items()):
            if pending.waiting.is_given_up:
                self._forget(token)
            elif now >= pending.deadline:
                pending.waiting.ends_early = True
                self._settle(token, _out_of_time(pending))
            elif now >= pending.resend_at:
                self._send(pending, now)
        if self._room and not self._is_full():
            self._make_room()
        self._sweep = None
        if self._pending or self._room:
            self._keep_sweeping()

    def _keep_sweeping(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(RETRY_AFTER, self._look_over)

    def _resend_all(self) -> None:
        now = asyncio.get_running_loop().time()
        for pending in self._pending.values():
            if not pending.waiting.is_given_up:
                self._send(pending, now)

    def _send(self, pending: _Publish, now: float) -> None:
        pending.unanswered += self._connection.send(pending.data)
        pending.resend_at = now + RESEND_AFTER

    def _fail_all(self, error: Exception) -> None:
        for token, pending in list(self._pending.items()):
            pending.waiting.ends_early = True
            maybe = pending.unanswered > 0
            self._settle(token, _maybe_stored(pending, str(error)) if maybe else error)
        self._make_room()

    def _fail_denied(self, subject: str, error: PermissionDenied) -> None:
        inbox = (self._inbox + b"*").decode()
        for token, pending in list(self._pending.items()):
            if subject in (pending.message.subject, inbox):
                self._settle(token, error)

    async def _wait_for_room(self, message: Message, deadline: float) -> None:
        """Wait for room in the window. Raises TransportError if none comes before ``deadline``."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                while self._is_full():  # others were woken as well
                    room = loop.create_future()
                    self._room.append(room)
                    self._keep_sweeping()
                    await room
        except TimeoutError:
            raise _not_stored(message, "too many others wait for their confirmation") from None

    def _make_room(self) -> None:
        waiting, self._room = self._room, []
        for room in waiting:
            if not room.done():
                room.set_result(None)


def _out_of_time(pending: _Publish) -> TransportError:
    if pending.unanswered > 0:
        return _maybe_stored(pending, pending.trouble or "no confirmation came in time")
    return _not_stored(pending.message, pending.trouble or "there was no connection in time")


def _not_stored(message: Message, trouble: str) -> TransportError:
    return TransportError(f"{message.subject}: not published, {trouble}")


def _maybe_stored(pending: _Publish, trouble: str) -> PublishError:
    return PublishError(
        f"{pending.message.subject}: {trouble}; it may or may not be stored."
        f" Publish again with id={pending.message.id!r}: one copy will be kept",
        event_id=pending.message.id,
    )

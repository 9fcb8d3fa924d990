"""Atomic batches over a link: the first message is a request, and the last one, which commits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ...errors import ApiError, NoStream, PermissionDenied, PublishError, TransportError
from ...ids import random_id
from ..atomic import in_batch
from ..base import Message, Stored
from ..headers import message_headers
from .connection import Connection
from .frames import frame
from .outbox import WINDOW_BYTES
from .publish_answers import other_domain, read_answer
from .requests import Reply, Requests


class AtomicBatches:
    """Publishes batches for one connection. ``owner`` returns the stream that stores a subject."""

    def __init__(
        self,
        connection: Connection,
        requests: Requests,
        owner: Callable[[str], Awaitable[str | None]],
        domain: str | None,
    ) -> None:
        self._connection = connection
        self._requests = requests
        self._owner = owner
        self._domain = domain

    async def publish(self, messages: Sequence[Message], *, timeout: float) -> Stored:
        """Store all or none, once; see the Transport port."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        id, count = random_id(), len(messages)
        batch = [
            in_batch(one, id, number, is_last=number == count)
            for number, one in enumerate(messages, 1)
        ]
        frames = [self._frame(one) for one in batch]  # an error leaves nothing sent
        await self._connection.wait_up(timeout)
        if count > 1:
            await self._begin(batch[0], deadline - loop.time())
            await self._send(frames[1:-1], deadline)
        return await self._commit(batch[-1], deadline - loop.time())

    def _frame(self, message: Message) -> bytes:
        headers = message_headers(message.id, message.headers)
        most = self._connection.max_payload
        return frame(message.subject, b"", headers, message.body, max_payload=most)

    async def _begin(self, first: Message, timeout: float) -> None:
        """Open the batch: an empty answer. Whatever fails before the commit leaves nothing."""
        answer = await self._ask(first, timeout)
        if isinstance(answer, Stored):
            raise TransportError(f"{first.subject}: the server stored it alone: it has no batches")

    async def _send(self, frames: Sequence[bytes], deadline: float) -> None:
        """Write the messages in between, as fast as the server reads them."""
        loop, size = asyncio.get_running_loop(), 0
        for data in frames:
            size += len(data)
            if not self._connection.send(data):
                raise TransportError("the connection broke before the batch was committed")
            if size >= WINDOW_BYTES:
                size = 0
                if not await self._connection.flush(max(0.01, deadline - loop.time())):
                    raise TransportError("the batch was not sent in time, and not committed")

    async def _commit(self, last: Message, timeout: float) -> Stored:
        try:
            answer = await self._ask(last, timeout)
        except (ApiError, NoStream, PermissionDenied):
            raise
        except TransportError as error:
            text = f"{error}; the batch may or may not be stored, all of it or none"
            raise PublishError(text, event_id=last.id) from error
        if answer is None:
            raise TransportError(f"{last.subject}: the server did not take it as the last one")
        return answer

    async def _ask(self, message: Message, timeout: float) -> Stored | None:
        """Publish a message of the batch; None for an empty answer. Raises ApiError, NoStream."""
        reply = await self._requests.ask_once(
            message.subject,
            message.body,
            headers=message_headers(message.id, message.headers),
            timeout=max(0.01, timeout),
            accept=lambda reply: self._is_answer(message.subject, reply),
        )
        if reply.status == 503:
            raise await self._unheard(message.subject)
        answer = read_answer(message.subject, reply.body)
        if isinstance(answer, ApiError):
            raise answer
        return answer

    def _is_answer(self, subject: str, reply: Reply) -> bool:
        if reply.status == 503 or not reply.body:
            return True
        is_ours = not other_domain(reply.body, self._domain)
        return is_ours and read_answer(subject, reply.body) is not None

    async def _unheard(self, subject: str) -> TransportError:
        """No stream, or a stream without a leader at the moment: only the API knows."""
        if await self._owner(subject) is None:
            return NoStream(f"no stream on the server stores {subject!r}")
        return TransportError(f"{subject}: the stream did not answer")

"""The Operators port of the memory server, asked over a transport's link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from ...errors import ApiError, NoStream
from ...subjects import matches
from ..base import StoredMessage
from ..infos import (
    AccountInfo,
    ConsumerInfo,
    Permissions,
    StreamInfo,
    read_account,
    read_consumer_info,
    read_permissions,
    read_stream_info,
)
from .configs import no_stream
from .server import MemoryServer
from .stream import stored_message

T = TypeVar("T")


class Ask(Protocol):
    """A question to the server, over the link."""

    def __call__(self, question: Callable[[], T]) -> Awaitable[T]:
        """Return the answer, or raise the server's error."""


class MemoryOperators:
    """Implements the Operators port, and the operations of a bucket."""

    def __init__(self, server: MemoryServer, ask: Ask) -> None:
        self._server = server
        self._ask = ask

    async def streams(self) -> list[StreamInfo]:
        """Return the configuration and state of every stream."""
        return await self._ask(
            lambda: [
                read_stream_info(self._server.stream_info(self._server.stream(name, "STREAM.LIST")))
                for name in sorted(self._server.streams)
            ]
        )

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream; repeating it changes nothing."""
        server = self._server
        return await self._ask(
            lambda: read_stream_info(server.stream_info(server.create_stream(config)))
        )

    async def update_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Replace a stream's whole configuration."""
        server = self._server
        return await self._ask(
            lambda: read_stream_info(server.stream_info(server.update_stream(config)))
        )

    async def stream_info(self, stream: str) -> StreamInfo | None:
        """Return one stream, None if there is none."""

        def question() -> StreamInfo | None:
            if stream not in self._server.streams:
                return None
            found = self._server.stream(stream, "STREAM.INFO")
            return read_stream_info(self._server.stream_info(found))

        return await self._ask(question)

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        """Return every consumer of a stream."""

        def question() -> list[ConsumerInfo]:
            if stream not in self._server.streams:
                raise no_stream(f"CONSUMER.LIST.{stream}")
            return [read_consumer_info(one.info()) for one in self._server.consumers(stream)]

        return await self._ask(question)

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo | None:
        """Return one consumer, None if there is none."""

        def question() -> ConsumerInfo | None:
            found = self._server.consumer(stream, consumer)
            return None if found is None else read_consumer_info(found.info())

        return await self._ask(question)

    async def create_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Create, never update."""
        server = self._server
        return await self._ask(
            lambda: read_consumer_info(server.create_consumer(stream, config).info())
        )

    async def update_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Update, never create."""
        server = self._server
        return await self._ask(
            lambda: read_consumer_info(server.update_consumer(stream, config).info())
        )

    async def pause_consumer(self, stream: str, consumer: str, until: str) -> bool:
        """Deliver nothing until then; return True if it is paused."""
        return await self._ask(lambda: self._server.pause_consumer(stream, consumer, until))

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Remove a consumer; no error if it is gone already."""
        await self._ask(lambda: self._server.delete_consumer(stream, consumer))

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return one stored message by sequence."""

        def question() -> StoredMessage | None:
            if stream not in self._server.streams:
                return None
            record = self._server.stream(stream, "STREAM.MSG.GET").get(sequence)
            return None if record is None else stored_message(stream, record)

        return await self._ask(question)

    async def next_message(self, stream: str, sequence: int, filter: str) -> StoredMessage | None:
        """Return the first message from ``sequence`` on that matches."""

        def question() -> StoredMessage | None:
            if stream not in self._server.streams:
                return None
            records = self._server.stream(stream, "STREAM.MSG.GET").since(sequence)
            found = next((one for one in records if matches(filter, one.subject)), None)
            return None if found is None else stored_message(stream, found)

        return await self._ask(question)

    async def account(self) -> AccountInfo:
        """Return the account's use; there are no limits."""
        streams = await self.streams()
        consumers = sum(one.state.consumers for one in streams)
        return read_account({"streams": len(streams), "consumers": consumers})

    async def permissions(self) -> Permissions | None:
        """Return permissions that allow everything: the memory server has no logins."""
        return read_permissions({})

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last stored message of one subject."""

        def question() -> StoredMessage | None:
            if stream not in self._server.streams:
                return None
            record = self._server.stream(stream, "STREAM.MSG.GET").last(subject)
            return None if record is None else stored_message(stream, record)

        return await self._ask(question)

    async def put(self, subject: str, body: bytes, headers: bytes) -> int:
        """Store one message with its own headers; return its sequence."""

        def question() -> int:
            try:
                return self._server.store(subject, body, headers).sequence
            except NoStream as error:
                # The request has no responder; the port's buckets know only the API's errors.
                raise ApiError(str(error), code=503, err_code=10076) from error

        return await self._ask(question)

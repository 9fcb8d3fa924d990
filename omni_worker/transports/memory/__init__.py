"""The memory transport: the port over a JetStream in memory, for tests and experiments.

The behaviour follows a real nats-server; the conformance suite checks the same promises on both.
Nothing outlives the process. Time is the event loop's time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ...errors import EventTooLarge, NotConnected, PublishError, TransportError
from ...ids import random_id
from ...settings import Settings
from ..atomic import check_version, in_batch
from ..base import LinkChange, Message, Operators, Receiver, Serve, Served, Source, Stored
from ..bucket import Bucket
from ..headers import message_headers
from .link import Link, LinkLost
from .operators import MemoryOperators
from .server import MemoryServer, Service
from .source import MemorySource

__all__ = ["MemoryServer", "MemoryTransport"]

T = TypeVar("T")

KEPT_ANSWERS = 100_000  # answers kept while the link is down; older ones are redelivered
PATIENCE = 10.0  # seconds a request waits for the link to come back


class MemoryTransport:
    """Implements the Transport port. Each transport acts as one process of a MemoryServer.

    ``disconnect``, ``reconnect``, ``give_up`` and ``drop_answers`` are faults for tests.
    """

    def __init__(
        self, server: MemoryServer | None = None, settings: Settings | None = None
    ) -> None:
        self.server = server or MemoryServer()
        self._settings = settings or Settings()
        self._link = Link()
        self._operators = MemoryOperators(self.server, self._ask)
        self.operators: Operators = self._operators
        self.gives_up: Callable[[], bool] = lambda: True  # see the port; tests call give_up
        self._sources: set[MemorySource] = set()
        self._kept: deque[Callable[[], None]] = deque(maxlen=KEPT_ANSWERS)
        self._answers_to_drop = self._acks_to_drop = 0
        self._up = asyncio.Event()  # also set by close and give_up: waiting is over
        self._up.set()
        self._is_open = False
        self._failed: asyncio.Future[Exception] | None = None
        self._watchers: list[Callable[[LinkChange], None]] = []
        self._served: list[Service] = []

    # --- the port --------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """True while the link is up."""
        return self._link.is_up

    @property
    def failure(self) -> Exception | None:
        """Cause that ``give_up`` was called with."""
        return self._failed.result() if self._failed is not None and self._failed.done() else None

    @property
    def server_id(self) -> str:
        """A server in memory lives as long as its process."""
        return "memory"

    @property
    def max_payload(self) -> int:
        """Maximum size of a message, as the server's."""
        return self.server.max_payload

    @property
    def server_version(self) -> tuple[int, int, int]:
        """Server version whose behaviour is followed."""
        return self.server.version

    def clock(self) -> int:
        """Return the server's time: both go by the loop's clock."""
        return self.server.clock()

    def watch(self, watcher: Callable[[LinkChange], None]) -> None:
        """Call ``watcher`` at each ``disconnect`` and ``reconnect``, and after ``open``."""
        self._watchers.append(watcher)

    async def open(self, name: str) -> None:
        """Connect; this cannot fail."""
        if not self._is_open or self.failure is not None:
            self._failed = asyncio.get_running_loop().create_future()
            self._is_open = self._link.is_up = True
            self._up.set()
            self._tell_change()

    async def close(self) -> None:
        """Wait for the answers to our requests, deliver everything sent, and disconnect."""
        self._is_open = False
        await self._link.answered()
        self._link.drain()
        for source in self._sources:
            await source.close()
        self._link.drain()
        for service in self._served:
            self.server.services.remove(service)
        self._served.clear()
        self._sources.clear()
        self._kept.clear()
        self._link.cut()
        self._up.set()

    async def flush(self, timeout: float) -> bool:
        """Return True if everything sent so far has arrived."""
        try:
            await self._link.call(lambda: None)
        except LinkLost:
            return False
        return True

    async def failed(self) -> Exception:
        """Wait for ``give_up``."""
        if self._failed is None:
            raise NotConnected("not connected yet")
        return await asyncio.shield(self._failed)

    async def publish(self, message: Message, *, timeout: float) -> Stored:
        """Store one message."""
        [result] = await self.publish_many([message], timeout=timeout)
        if isinstance(result, Exception):
            raise result
        return result

    async def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> list[Stored | Exception]:
        """Store many in this order."""
        messages = list(messages)
        sent = False

        def store_all() -> list[Stored | Exception]:
            nonlocal sent
            sent = True
            return [self._store(message) for message in messages]

        try:
            return await self._ask(store_all, timeout)
        except TransportError as error:
            return [_unpublished(message, error, sent) for message in messages]

    async def publish_atomic(self, messages: Sequence[Message], *, timeout: float) -> Stored:
        """Store all or none."""
        check_version(self.server_version)
        id, count = random_id(), len(messages)
        batch = [
            self._on_the_wire(in_batch(one, id, number, is_last=number == count))
            for number, one in enumerate(messages, 1)
        ]
        sent = False

        def store_all() -> Stored:
            nonlocal sent
            sent = True
            return self.server.store_atomic(batch)

        try:
            return await self._ask(store_all, timeout, is_once=True)
        except LinkLost as error:
            if not sent:
                raise
            text = f"{error}; the batch may or may not be stored, all of it or none"
            raise PublishError(text, event_id=messages[-1].id) from error

    async def consume(
        self, stream: str, consumer: str, receiver: Receiver, *, served: Served | None = None
    ) -> Source:
        """Read a consumer that exists."""
        self._sources = {source for source in self._sources if not source.is_over}
        source = MemorySource(
            self.server, self._link, self._send_answer, stream, consumer, receiver, served
        )
        self._sources.add(source)
        return source

    async def bucket(self, name: str, *, ttl: float) -> Bucket:
        """Return a bucket, created if it is missing and provisioning is on."""
        bucket = Bucket(
            self._operators, name, ttl=ttl,
            replicas=self._settings.replicas, create=self._settings.provision == "on",
        )  # fmt: skip
        await bucket.ensure()
        return bucket

    def serve(
        self, subject: str, answer: Serve, *, on_denied: Callable[[Exception], None]
    ) -> Callable[[], None]:
        """Answer requests on a subject while the link is up; nothing is denied here."""

        def answer_if_up(asked: str) -> bytes | None:
            return answer(asked) if self._link.is_up else None

        service = (subject, answer_if_up)
        self.server.services.append(service)
        self._served.append(service)

        def stop() -> None:
            if service in self._served:
                self._served.remove(service)
                self.server.services.remove(service)

        return stop

    async def ask_all(self, subject: str, *, within: float) -> list[bytes]:
        """Ask all who serve a subject; in memory they answer at once."""
        return await self._ask(lambda: self.server.ask_services(subject), within)

    # --- faults ----------------------------------------------------------------------------

    def disconnect(self) -> None:
        """Break the link: messages on their way are lost in both directions; the server notices."""
        if self._link.is_up:
            self._link.cut()
            self._up.clear()
            for source in self._sources:
                source.on_cut()
            self._tell_change(LinkLost("the link was cut"))

    def reconnect(self) -> None:
        """Restore the link: kept answers are sent, then ``resumed`` of the receivers is called."""
        if not self._is_open or self._link.is_up:
            return
        self._link.is_up = True
        self._up.set()
        kept = list(self._kept)
        self._kept.clear()
        for act in kept:
            self._link.send(act)
        for source in list(self._sources):
            self._link.hand_over(source.on_up)
        self._tell_change()

    def give_up(self, cause: Exception) -> None:
        """End like after the last failed try to reconnect."""
        self.disconnect()
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(cause)
        self._up.set()

    def drop_answers(self, count: int) -> None:
        """Lose the next ``count`` answers on their way to the server."""
        self._answers_to_drop += count

    def drop_acks(self, count: int) -> None:
        """Lose the next ``count`` acks on their way to the server; other answers arrive."""
        self._acks_to_drop += count

    # --- inside ----------------------------------------------------------------------------

    async def _ask(
        self, question: Callable[[], T], timeout: float = PATIENCE, *, is_once: bool = False
    ) -> T:
        """Ask the server, again after a broken link, until ``timeout`` seconds are over."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._up.wait()
                    self._check_usable()
                    try:
                        return await self._link.call(question)
                    except LinkLost:
                        if is_once:
                            raise
        except TimeoutError:
            raise TransportError(f"no connection for {timeout:g} s") from None

    def _tell_change(self, cause: Exception | None = None) -> None:
        for watcher in self._watchers:
            watcher(LinkChange("memory", self._link.is_up, cause))

    def _check_usable(self) -> None:
        if self.failure is not None:
            raise self.failure
        if not self._is_open:
            raise NotConnected("not connected: call connect() first")

    def _store(self, message: Message) -> Stored | Exception:
        try:
            return self.server.store(*self._on_the_wire(message))
        except Exception as error:
            return error

    def _on_the_wire(self, message: Message) -> tuple[str, bytes, bytes]:
        block = message_headers(message.id, message.headers)
        size = len(block) + len(message.body)
        if size > self.max_payload:
            raise EventTooLarge(
                f"{message.subject}: {size} bytes with headers, the server takes"
                f" {self.max_payload}; send a reference instead of the data"
            )
        return message.subject, message.body, block

    def _send_answer(self, act: Callable[[], None], *, is_ack: bool = False) -> None:
        if self._answers_to_drop:
            self._answers_to_drop -= 1
        elif self._acks_to_drop and is_ack:
            self._acks_to_drop -= 1
        elif self._link.is_up:
            self._link.send(act)
        elif self._is_open:
            self._kept.append(act)


def _unpublished(message: Message, error: TransportError, sent: bool) -> Exception:
    if not sent:
        return error
    return PublishError(
        f"{message.subject}: {error}; it may or may not be stored."
        f" Publish again with id={message.id!r}: one copy will be kept",
        event_id=message.id,
    )

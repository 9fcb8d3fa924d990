"""The port: what the engine asks of a transport, and what it may rely on.

Every promise here is tested once, for every adapter, in the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from .infos import AccountInfo, ConsumerInfo, Permissions, StreamInfo

Headers = Mapping[str, Sequence[str]]

ACK = b"+ACK"


class Message(NamedTuple):
    """A message on its way out.

    ``id`` dedupes it within the stream's duplicate window; without one ("") each copy is stored,
    and nothing but the body counts towards the size.
    """

    subject: str
    body: bytes
    id: str
    headers: Mapping[str, str] = MappingProxyType({})


class Stored(NamedTuple):
    """The server's word that a message is stored (or, ``duplicate``, that its id already was)."""

    stream: str
    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as its stream keeps it."""

    stream: str
    subject: str
    sequence: int
    body: bytes
    headers: Headers
    stored_at: int  # epoch nanoseconds


class LinkChange(NamedTuple):
    """The link to a server came up, or was lost with a cause."""

    server: str  # without user and password
    is_up: bool
    cause: Exception | None = None


class Delivery:
    """One message handed to us once, to be answered once.

    Its identity is (source.stream, sequence, stored_at): sequences repeat when a stream is made
    anew. ``count`` is how often the server delivered it, this time included; it over-counts
    attempts and may fall back after a server crash.

    The four answers are sent without waiting and never raise; one that is lost on the way shows
    itself as a redelivery. ``confirm`` is an ack that waits for the server's word.
    """

    __slots__ = (
        "body", "count", "lapsed", "leased_at", "raw_headers", "reply", "sequence",
        "source", "stored_at", "subject",
    )  # fmt: skip

    def __init__(
        self,
        source: Source,
        subject: str,
        body: bytes,
        raw_headers: bytes | None,
        reply: bytes,
        sequence: int,
        stored_at: int,
        count: int,
    ) -> None:
        self.source = source
        self.subject = subject
        self.body = body
        self.raw_headers = raw_headers
        self.reply = reply
        self.sequence = sequence
        self.stored_at = stored_at
        self.count = count
        # The engine's own notes on a held delivery, kept here so that an event costs one object.
        self.leased_at = 0.0
        self.lapsed = False

    def ack(self) -> None:
        """It is settled; the server forgets it."""
        self.source.ack(self)

    async def confirm(self) -> bool:
        """Acknowledge, and wait for the server's word on it; False when none came."""
        return await self.source.confirm(self)

    def nak(self, delay: float = 0.0) -> None:
        """Deliver it again, to anyone, no sooner than after ``delay`` seconds."""
        # The server takes whole nanoseconds only: a fraction is a "bad NAK delay value" and the
        # delay is dropped, so the event comes back at once.
        nanoseconds = round(delay * 1e9)
        self.source.answer(self, b'-NAK {"delay":%d}' % nanoseconds if nanoseconds > 0 else b"-NAK")

    def term(self, reason: str) -> None:
        """Never deliver it again."""
        # One line, and short: the reason ends in an advisory of the server's.
        line = " ".join(reason.split())[:200].encode("utf-8", "replace")
        self.source.answer(self, b"+TERM " + line, settles=True)

    def in_progress(self) -> None:
        """Start its ack_wait anew."""
        self.source.answer(self, b"+WPI")


class Receiver(Protocol):
    """Who takes deliveries. Called from the transport's own reader: never blocks, never raises."""

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery. The same message may come twice; order is the consumer's."""

    def replenish(self, source: Source) -> None:
        """A pull ended, or was lost with the connection: what it had asked for will not come."""

    def resumed(self, source: Source) -> None:
        """The connection is back: answers may be lost, and first deliveries may be repeats."""

    def lost(self, source: Source, cause: Exception) -> None:
        """The consumer is gone, or can no longer be read; nothing more comes from this source."""


class Source(Protocol):
    """One consumer of one stream, read by pulls of ours."""

    stream: str
    consumer: str
    outstanding: int  # asked for and not yet delivered

    @property
    def silent_for(self) -> float:
        """Seconds a request of ours has waited without a good word; 0.0 when none is waiting."""

    def request(self, count: int) -> None:
        """Ask for ``count`` deliveries more."""

    def ack(self, delivery: Delivery) -> None:
        """Send the usual answer, which settles; as `answer` in all else."""

    def answer(self, delivery: Delivery, answer: bytes, *, settles: bool = False) -> None:
        """Send one answer; kept and sent after a reconnect if the connection is down.

        One that ``settles`` may be sent twice, so that it is not lost with a link.
        """

    async def confirm(self, delivery: Delivery) -> bool:
        """Acknowledge and have it confirmed. Says whether it was, in a few seconds."""

    async def withdraw(self) -> None:
        """Take back what is asked for and not delivered; ``request`` may ask again afterwards.

        What was already on its way has arrived when this returns. A request made in between is
        not sent.
        """

    async def stop(self) -> None:
        """Ask for nothing more. What was already on its way has arrived when this returns."""

    async def close(self) -> None:
        """Forget the source; late deliveries are dropped and come again after ack_wait."""


class Operators(Protocol):
    """The interface operations use: streams, consumers and single messages.

    Configurations go in as the server's own JSON and come out as frozen facts, with it in ``raw``.
    """

    async def streams(self) -> list[StreamInfo]:
        """Every stream's configuration and state."""

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream; the same again changes nothing. Raises ApiError 10058 or 10065."""

    async def update_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Replace a stream's whole configuration."""

    async def stream_info(self, stream: str) -> StreamInfo | None:
        """One stream's configuration and state, None if there is none."""

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        """Every consumer of a stream."""

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo | None:
        """One consumer's configuration and state, None if there is none."""

    async def create_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Create a consumer. Raises ApiError 10148 when a different one of that name stands."""

    async def update_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Update a consumer. Raises ApiError 10149 when there is none."""

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Remove a consumer that only this process used; no error when it is gone already."""

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        """One stored message, None if the stream does not hold it."""

    async def next_message(self, stream: str, sequence: int, filter: str) -> StoredMessage | None:
        """The first stored message from ``sequence`` on that matches, None if there is none."""

    async def account(self) -> AccountInfo:
        """What the account uses of JetStream, and its limits."""

    async def permissions(self) -> Permissions | None:
        """The subjects this login may publish to; None where the server does not say."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a bucket with its revision."""

    value: bytes
    revision: int


class KeyValue(Protocol):
    """A bucket shared by processes. A key is gone ``ttl`` seconds after its last write."""

    async def get(self, key: str) -> Entry | None:
        """The value, None when there is none (any more)."""

    async def create(self, key: str, value: bytes) -> int | None:
        """Write a key that does not exist; the revision, or None when somebody was faster."""

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Write over exactly this revision; the new one, or None when it changed meanwhile."""

    async def put(self, key: str, value: bytes) -> int:
        """Write whatever stands there; the revision."""

    async def delete(self, key: str) -> None:
        """Forget a key."""


class Transport(Protocol):
    """The port. Opened once; ``open`` may be called again after ``close`` or a failure."""

    operators: Operators

    @property
    def is_connected(self) -> bool:
        """Whether the server can be talked to right now."""

    @property
    def failure(self) -> Exception | None:
        """Why the transport gave up for good, None while it has not."""

    @property
    def max_payload(self) -> int:
        """Bytes of body and headers the server takes in one message."""

    @property
    def server_version(self) -> tuple[int, int, int]:
        """The version of the server we talk to."""

    def watch(self, watcher: Callable[[LinkChange], None]) -> None:
        """Call ``watcher`` whenever a link comes up or is lost, not when it is closed."""

    async def open(self, name: str) -> None:
        """Connect, trying as often as the settings say; TransportError has the last cause."""

    async def close(self) -> None:
        """Send what is still unsent and disconnect.

        Publishes on their way are waited for, shortly; what waits longer raises TransportError.
        """

    async def flush(self, timeout: float) -> bool:
        """Whether the server has taken everything written so far, within ``timeout`` seconds."""

    async def failed(self) -> Exception:
        """Wait until the transport has given up for good; returns why."""

    async def publish(self, message: Message, *, timeout: float) -> Stored:
        """Store one message, tried again with the same id until ``timeout`` seconds are over.

        Raises PublishError when nobody knows whether it is stored, another TransportError or
        EventTooLarge when it certainly is not.
        """

    async def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> list[Stored | Exception]:
        """Store many, pipelined, in this order; each ends as its own result or error.

        They are read while there is room, each with ``timeout`` seconds of its own. After one whose
        time ran out, or without a connection, no more are read, and the results end there.
        """

    async def consume(self, stream: str, consumer: str, receiver: Receiver) -> Source:
        """Read a consumer that exists. Nothing is delivered before the first ``request``."""

    async def bucket(self, name: str, *, ttl: float) -> KeyValue:
        """A key-value bucket, made when it is missing."""

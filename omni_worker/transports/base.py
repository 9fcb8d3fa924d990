"""The port: operations the engine needs from a transport, and promises it may rely on.

Every promise here is tested once, for every adapter, in the conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from .infos import AccountInfo, ConsumerInfo, Permissions, StreamInfo
from .key_value import Entry as Entry
from .key_value import KeyValue as KeyValue

Headers = Mapping[str, Sequence[str]]
# From the subject of a request to its answer, None to leave it to others. Called by the reader.
Serve = Callable[[str], bytes | None]

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
    """Confirmation that a message is stored; ``duplicate``: its id was stored before."""

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
    """A message handed to us once, to be answered once.

    The identity is (source.stream, sequence, stored_at): sequences repeat when a stream is
    recreated. ``count`` is the number of deliveries, this one included; it may be higher than the
    number of attempts, and may fall back after a server crash.

    The four answers are sent without waiting and never raise; if one is lost on the way, the
    message is redelivered. ``confirm`` is an ack that waits for the server's confirmation.
    """

    __slots__ = (
        "body", "count", "lapsed", "leased_at", "raw_headers", "reply", "sequence",
        "source", "span", "stored_at", "subject",
    )  # fmt: skip
    span: Any  # a tracer's, of the run of this delivery; only set while there is one

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
        # The engine's own data about a held delivery, kept here so that an event costs one object.
        self.leased_at = 0.0
        self.lapsed = False

    @property
    def consumer_sequence(self) -> int:
        """Number of this delivery among all of its consumer; after a reset it starts at 1."""
        words = self.reply.split(b".")
        return int(words[6] if len(words) == 9 else words[8])

    @property
    def pending(self) -> int:
        """Number of messages its consumer had never delivered when this one was sent.

        The memory transport counts them for a redelivery only, and not beyond 1.
        """
        words = self.reply.split(b".")
        return int(words[8] if len(words) == 9 else words[10])

    def ack(self) -> None:
        """Acknowledge: the message is settled and the server forgets the delivery."""
        self.source.ack(self)

    async def confirm(self) -> bool:
        """Acknowledge, and wait for the server's confirmation; False if none came."""
        return await self.source.confirm(self)

    def nak(self, delay: float = 0.0) -> None:
        """Ask for a redelivery, to any process, not earlier than after ``delay`` seconds."""
        # The server takes whole nanoseconds only: a fraction is a "bad NAK delay value" and the
        # delay is dropped, so the event comes back at once.
        nanoseconds = round(delay * 1e9)
        self.source.answer(self, b'-NAK {"delay":%d}' % nanoseconds if nanoseconds > 0 else b"-NAK")

    def term(self, reason: str) -> None:
        """Ask the server to never deliver the message again."""
        # One line, and short: the server puts the reason into an advisory.
        line = " ".join(reason.split())[:200].encode("utf-8", "replace")
        self.source.answer(self, b"+TERM " + line, settles=True)

    def in_progress(self) -> None:
        """Restart the ack_wait of this delivery."""
        self.source.answer(self, b"+WPI")


class Receiver(Protocol):
    """Receiver of deliveries. The transport's reader calls it: never block, never raise."""

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery. The same message may come twice; order is the consumer's."""

    def replenish(self, source: Source) -> None:
        """A pull ended, or was lost with the connection: its remaining deliveries will not come."""

    def resumed(self, source: Source) -> None:
        """The connection is back: answers may be lost, and first deliveries may be repeats."""

    def lost(self, source: Source, cause: Exception) -> None:
        """The consumer is gone, or can no longer be read; this source delivers nothing further."""


class Source(Protocol):
    """A consumer of a stream, read by our own pulls."""

    stream: str
    consumer: str
    outstanding: int  # requested and not yet delivered
    repeats: int  # requests lost or refused while the link was up; `resumed` is called after each

    @property
    def is_served(self) -> bool:
        """Return False while the consumer serves one process at a time, and this is not the one."""

    @property
    def silent_for(self) -> float:
        """Return the seconds a request has waited without a good sign; 0.0 if none is waiting."""

    def request(self, count: int, *, brief: bool = False) -> None:
        """Request ``count`` more deliveries.

        A ``brief`` request ends within half a second, with the deliveries that exist until then;
        the receiver hears of its end by ``replenish`` if some are missing.
        """

    def ack(self, delivery: Delivery) -> None:
        """Send an ack, which settles; otherwise like `answer`."""

    def answer(self, delivery: Delivery, answer: bytes, *, settles: bool = False) -> None:
        """Send one answer; if the connection is down, keep it and send it after a reconnect.

        An answer that ``settles`` may be sent twice, so that it is not lost with a link.
        """

    async def confirm(self, delivery: Delivery) -> bool:
        """Acknowledge, and wait a few seconds for a confirmation. Return True if it came."""

    async def withdraw(self) -> None:
        """Take back what is asked for and not delivered; ``request`` may ask again afterwards.

        What was on its way has arrived at the return. A request made in between is not sent.
        """

    async def stop(self) -> None:
        """Stop requesting. Deliveries that were already on their way have arrived at the return."""

    def lose(self, cause: Exception) -> None:
        """Stop reading a consumer that is gone; the receiver hears of it by ``lost``.

        A server reports a deletion only to open requests.
        """

    async def close(self) -> None:
        """Forget the source; late deliveries are dropped and come again after ack_wait."""


Served = Callable[[Source, bool], None]  # see ``consume``


class Operators(Protocol):
    """The interface operations use: streams, consumers and single messages.

    Configurations go in as the server's own JSON and come out as frozen facts, with it in ``raw``.
    """

    async def streams(self) -> list[StreamInfo]:
        """Return the configuration and state of every stream."""

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create a stream; repeating it changes nothing. Raises ApiError 10058 or 10065."""

    async def update_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Replace a stream's whole configuration."""

    async def stream_info(self, stream: str) -> StreamInfo | None:
        """Return the configuration and state of one stream, None if there is none."""

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        """Return every consumer of a stream."""

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo | None:
        """Return the configuration and state of one consumer, None if there is none."""

    async def create_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Create a consumer. Raises ApiError 10148 if a different one of that name exists."""

    async def update_consumer(self, stream: str, config: Mapping[str, Any]) -> ConsumerInfo:
        """Update a consumer. Raises ApiError 10149 when there is none."""

    async def pause_consumer(self, stream: str, consumer: str, until: str) -> bool:
        """Deliver nothing until then (RFC 3339, the server's clock); return True if it is paused.

        A later call replaces the time, and at that time waiting requests get their events at once.
        Raises ApiError if there is no such consumer; nats-server 2.11 or newer.
        """

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Remove a consumer that only this process used; no error if it is gone already."""

    async def message(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return one stored message, None if the stream does not hold it."""

    async def next_message(self, stream: str, sequence: int, filter: str) -> StoredMessage | None:
        """Return the first stored message from ``sequence`` on that matches, None if none does."""

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last stored message of one subject, None if there is none."""

    async def account(self) -> AccountInfo:
        """Return the account's use of JetStream, and its limits."""

    async def permissions(self) -> Permissions | None:
        """Return the subjects this login may publish to; None if the server does not list them."""


class Transport(Protocol):
    """The port, opened once; ``open`` may be called again after ``close`` or a failure."""

    operators: Operators
    gives_up: Callable[[], bool]  # asked when a lost link was tried as often as the settings say

    @property
    def is_connected(self) -> bool:
        """True if there is a working connection to the server right now."""

    @property
    def failure(self) -> Exception | None:
        """Reason why the transport gave up for good, None while it has not."""

    @property
    def max_payload(self) -> int:
        """Maximum bytes of body and headers that the server accepts in one message."""

    @property
    def server_version(self) -> tuple[int, int, int]:
        """Version of the connected server."""

    @property
    def server_id(self) -> str:
        """Identity of the connected server's process: another one after it was killed."""

    def clock(self) -> int:
        """Return epoch nanoseconds by our clock; in memory it is the loop's, as the server's."""

    def watch(self, watcher: Callable[[LinkChange], None]) -> None:
        """Call ``watcher`` whenever a link comes up or is lost, not when it is closed."""

    async def open(self, name: str) -> None:
        """Connect, trying as often as the settings say; TransportError has the last cause."""

    async def close(self) -> None:
        """Send what is still unsent and disconnect.

        Unconfirmed publishes get a short time; those still unconfirmed raise TransportError.
        """

    async def flush(self, timeout: float) -> bool:
        """Return True if the server read everything written so far within ``timeout`` seconds."""

    async def failed(self) -> Exception:
        """Wait until the transport has given up for good; return the reason."""

    async def publish(self, message: Message, *, timeout: float) -> Stored:
        """Store one message, retrying with the same id until ``timeout`` seconds are over.

        Raises PublishError if it may or may not be stored, another TransportError or EventTooLarge
        if it certainly is not.
        """

    async def publish_many(
        self, messages: Iterable[Message], *, timeout: float
    ) -> Sequence[Stored | Exception]:
        """Store many, pipelined, in this order; each ends as its own result or error.

        Messages are read while there is room, each with ``timeout`` seconds of its own. After one
        that timed out, or without a connection, reading stops, and the results end there.
        """

    async def publish_atomic(self, messages: Sequence[Message], *, timeout: float) -> Stored:
        """Store all of these, in this order, in one stream, or none; tried once.

        The last one's confirmation. Raises ApiError for a refusal, as by a stream that does not
        allow it, PublishError if all or none may be stored, else another TransportError.
        """

    async def consume(
        self, stream: str, consumer: str, receiver: Receiver, *, served: Served | None = None
    ) -> Source:
        """Read a consumer that exists. Nothing is delivered before the first ``request``.

        A consumer whose priority group pins a client serves one process at a time, until it closes
        its source or is gone. ``served`` is called before the first delivery to the next one, True,
        and when its turn is over, False.
        """

    async def bucket(self, name: str, *, ttl: float) -> KeyValue:
        """Return a key-value bucket, created if it is missing."""

    def serve(
        self, subject: str, answer: Serve, *, on_denied: Callable[[Exception], None]
    ) -> Callable[[], None]:
        """Answer requests on a core subject until the returned function is called, or the close.

        Without the right to do so, ``on_denied`` is called, once, and nothing is answered any more.
        """

    async def ask_all(self, subject: str, *, within: float) -> list[bytes]:
        """Ask all who serve a core subject; return what came ``within`` seconds, in that order.

        Empty at once if there are none. Raises PermissionDenied, or TransportError without a link.
        """

"""What the suite needs: a server to ask for transports, a receiver that remembers, and patience."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pytest

from omni_worker.transports.base import Delivery, Message, Source, Stored, Transport
from omni_worker.transports.infos import ConsumerInfo, StreamInfo

from ...waiting import until

SECOND = 1_000_000_000  # nanoseconds


class Backend(Protocol):
    """One clean server. Everything it connected is closed when the test is over."""

    features: frozenset[str]  # what it can do, or have done to it, beyond the promises of all
    tries: int | None  # to connect again, of transports opened from now on; None: without end

    async def connect(self) -> Transport:
        """Another transport to the same server, opened."""

    def unopened(self) -> Transport:
        """A transport nobody opened yet."""

    async def beside(self) -> Transport:
        """Another one, opened, whose link no ``disconnect`` breaks."""

    async def store(self, subject: bytes, body: bytes, headers: bytes | None = None) -> None:
        """Publish as a foreign program does: any bytes, no id."""

    async def delete_stream(self, name: str) -> None:
        """Delete a stream, as an operator does."""

    async def disconnect(self) -> None:
        """`disconnect`: break every link; none can be made until ``reconnect``."""

    async def reconnect(self) -> None:
        """Let links be made again."""

    async def give_up(self, transport: Transport) -> None:
        """`disconnect`: let this transport run out of tries."""

    def drop_answers(self, transport: Transport, count: int) -> None:
        """`drop_answers`: lose the next answers."""


class Recorder:
    """A receiver that takes everything and remembers it."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.resumptions = 0
        self.causes: list[Exception] = []

    def receive(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def replenish(self, source: Source) -> None:
        pass

    def resumed(self, source: Source) -> None:
        self.resumptions += 1

    def lost(self, source: Source, cause: Exception) -> None:
        self.causes.append(cause)

    async def wait(self, count: int) -> list[Delivery]:
        """The deliveries, once there are ``count``."""
        await until(lambda: len(self.deliveries) >= count)
        return self.deliveries

    @property
    def sequences(self) -> list[int]:
        return [delivery.sequence for delivery in self.deliveries]

    def counts(self, sequence: int) -> list[int]:
        return [one.count for one in self.deliveries if one.sequence == sequence]


def needs(backend: Backend, feature: str) -> None:
    """Skip where the backend cannot do this."""
    if feature not in backend.features:
        pytest.skip(f"this backend has no {feature}")


async def make_stream(transport: Transport, name: str = "S", **config: Any) -> StreamInfo:
    """A stream over `s.>`."""
    return await transport.operators.create_stream(
        {"name": name, "subjects": [f"{name.lower()}.>"], **config}
    )


def consumer_config(name: str = "c", *, ack_wait: float = 30.0, **config: Any) -> dict[str, Any]:
    """A durable pull consumer's configuration, as short as it can be."""
    return {
        "name": name,
        "durable_name": name,
        "ack_policy": "explicit",
        "ack_wait": round(ack_wait * SECOND),
        **config,
    }


async def make_consumer(transport: Transport, name: str = "c", **config: Any) -> ConsumerInfo:
    """A consumer of the stream S."""
    return await transport.operators.create_consumer("S", consumer_config(name, **config))


async def consume(
    transport: Transport, request: int = 0, *, name: str = "c"
) -> tuple[Source, Recorder]:
    """A source on a consumer of S, asked for ``request`` deliveries."""
    recorder = Recorder()
    source = await transport.consume("S", name, recorder)
    source.request(request)
    return source, recorder


async def publish(
    transport: Transport, *ids: str | int, subject: str = "s.x", body: bytes = b"{}"
) -> list[Stored]:
    """Store one message per id."""
    messages = [Message(subject, body, str(id)) for id in ids]
    results = await transport.publish_many(messages, timeout=5)
    return [_stored(result) for result in results]


async def info(transport: Transport, name: str = "c") -> ConsumerInfo:
    """What the server says of a consumer of S that stands."""
    found = await transport.operators.consumer_info("S", name)
    assert found is not None
    return found


async def held(transport: Transport, name: str = "c") -> int:
    """How many deliveries the server waits for answers to."""
    return (await info(transport, name)).num_ack_pending


async def settled(transport: Transport, name: str = "c") -> None:
    """Wait until every answer has arrived and nothing is held."""

    async def nothing_held() -> bool:
        return await held(transport, name) == 0

    await until(nothing_held)


def _stored(result: Stored | Exception) -> Stored:
    if isinstance(result, Exception):
        raise result
    return result


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """What was delivered, in order."""
    return [delivery.body for delivery in deliveries]

"""Another program subscribes to `>`, and replies before the server does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from omni_worker.nats_server import NatsServer
from omni_worker.settings import Settings
from omni_worker.transports.jetstream import JetStreamTransport, acks, heartbeats
from omni_worker.transports.jetstream.heartbeats import Beat

from ..processes.support import plain_client
from ..waiting import until
from .suite.backend import consume, held, make_consumer, make_stream, publish


@pytest.fixture
async def transport(nats_server: NatsServer) -> AsyncIterator[JetStreamTransport]:
    transport = JetStreamTransport(Settings(urls=(nats_server.url,)))
    await transport.open("ours")
    yield transport
    await transport.close()


@pytest.fixture
async def stranger(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await plain_client(nats_server.url)
    yield client
    await client.close()


async def reply_to_everything(stranger: Client, answer: bytes) -> None:
    async def reply(message: Msg) -> None:
        if message.reply:
            await stranger.publish(message.reply, answer)

    await stranger.subscribe(">", cb=reply)
    await stranger.flush()


@pytest.mark.parametrize("answer", [b"+ACK", b"+OK", b'{"ok": true}'])
async def test_an_ack_is_not_confirmed_by_another_program(
    transport: JetStreamTransport, stranger: Client, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acks, "CONFIRM_TIMEOUT", 0.3)
    await make_stream(transport)
    await make_consumer(transport)
    await publish(transport, 1, 2)
    _, recorder = await consume(transport, 2)
    first, second = await recorder.wait(2)
    await reply_to_everything(stranger, answer)

    is_confirmed = await first.confirm()
    was_held = await held(transport)
    await transport.operators.delete_consumer("S", "c")
    is_confirmed_without_consumer = await second.confirm()

    assert (is_confirmed, was_held) == (True, 1)
    assert not is_confirmed_without_consumer


@pytest.mark.parametrize("answer", [b"", b"+ACK", b'{"ok": true}', b"[" * 5_000, b"\xff"])
async def test_everything_works_while_another_program_replies_to_everything(
    transport: JetStreamTransport, stranger: Client, answer: bytes
) -> None:
    await reply_to_everything(stranger, answer)

    await make_stream(transport)
    await make_consumer(transport)
    bucket = await transport.bucket("notes", ttl=60)
    revision = await bucket.put("key", b"value")
    entry = await bucket.get("key")
    stored = await publish(transport, 1, 2)
    _, recorder = await consume(transport, 2)
    for delivery in await recorder.wait(2):
        assert await delivery.confirm()

    assert entry is not None
    assert (entry.value, entry.revision) == (b"value", revision)
    assert [one.sequence for one in stored] == [1, 2]

    async def is_settled() -> bool:
        return await held(transport) == 0

    await until(is_settled)


async def test_a_missing_consumer_is_noticed_while_another_program_replies_to_the_requests(
    transport: JetStreamTransport, stranger: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BUSY", "QUIET"):
        monkeypatch.setattr(heartbeats, name, Beat(every=0.1, silence=0.3))
    await make_stream(transport)
    await make_consumer(transport)
    source, recorder = await consume(transport)
    await transport.operators.delete_consumer("S", "c")
    await reply_to_everything(stranger, b"+ACK")
    recorder.replenish = lambda source: source.request(1)  # type: ignore[method-assign]

    source.request(1)

    await until(lambda: bool(recorder.causes))
    assert "consumer c on S does not exist any more" in str(recorder.causes[0])

"""The outbox: every publish ends once, as stored, as not stored, or as one nobody knows about."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc

import pytest

from omni_worker.errors import ApiError, InvalidSubject, NoStream, PublishError, TransportError
from omni_worker.transports.base import Message, Stored
from omni_worker.transports.jetstream import JetStreamTransport, outbox
from omni_worker.transports.jetstream.confirmations import Batch
from omni_worker.transports.jetstream.frames import frame

from ..waiting import until
from .support import (
    STREAM,
    FakeServer,
    Proxy,
    connected,
    make_stream,
    message,
    pause,
    raw,
    resume,
    stored,
)


@pytest.fixture
def quick_resends(monkeypatch):
    monkeypatch.setattr(outbox, "RESEND_AFTER", 0.2)
    monkeypatch.setattr(outbox, "RETRY_AFTER", 0.05)


def waiting(transport: JetStreamTransport) -> int:
    """How many publishes the outbox remembers."""
    return len(transport._outbox._pending)


@pytest.fixture
def no_resends(monkeypatch):
    """Only a new link sends again."""
    monkeypatch.setattr(outbox, "RESEND_AFTER", 60.0)


async def test_a_publish_while_disconnected_waits_and_is_stored_once(no_resends, nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        nats_server.kill()
        await until(lambda: not transport.is_connected)

        publishing = asyncio.create_task(transport.publish(message(), timeout=20))
        await until(lambda: waiting(transport) == 1)
        nats_server.start()
        result = await publishing

        assert (result.stream, result.sequence, result.duplicate) == (STREAM, 1, False)
        assert await stored(transport) == 1


async def test_a_publish_whose_confirmation_was_lost_is_sent_again_and_stored_once(
    no_resends, nats_server
):
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        proxy.deaf = True  # what the server says does not arrive
        publishing = asyncio.create_task(transport.publish(message(), timeout=20))
        async with connected(nats_server.url) as other:
            async with asyncio.timeout(10):
                while not await stored(other):
                    pass
        assert not publishing.done()
        proxy.deaf = False
        proxy.cut()
        result = await publishing

        assert (result.sequence, result.duplicate) == (1, True)
        assert await stored(transport) == 1


async def test_a_silent_publish_is_sent_again_on_the_same_link(quick_resends, nats_server):
    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        lost: list[bytes] = []
        proxy.drop = lambda line: line.startswith(b"HPUB") and not lost and not lost.append(line)

        result = await transport.publish(message(), timeout=10)

        assert (len(lost), result.duplicate, proxy.connections) == (1, False, 1)


async def test_many_are_stored_in_their_order_through_a_server_crash(nats_server):
    ids = [str(n) for n in range(5_000)]
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        publishing = asyncio.create_task(
            transport.publish_many([message(id=id) for id in ids], timeout=30)
        )
        await until(lambda: transport._outbox._token > 2_500)
        nats_server.kill()
        nats_server.start()
        results = await publishing

        assert [result for result in results if isinstance(result, Exception)] == []
        assert await stored(transport) == len(ids)


async def test_an_id_is_known_after_a_server_crash_and_after_a_purge(nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        await transport.publish(message(id="one"), timeout=5)
        nats_server.kill()
        await until(lambda: not transport.is_connected)
        nats_server.start()

        after_a_crash = await transport.publish(message(id="one"), timeout=20)
        await transport._api.ask(f"STREAM.PURGE.{STREAM}")
        after_a_purge = await transport.publish(message(id="one"), timeout=5)

        assert after_a_crash.duplicate
        assert after_a_purge.duplicate
        assert await stored(transport) == 0


async def test_an_unconfirmed_publish_says_that_it_may_be_stored_and_with_which_id(
    quick_resends, nats_server
):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        pause(nats_server)
        with pytest.raises(PublishError, match="may or may not be stored") as caught:
            await transport.publish(message(id="abc"), timeout=0.3)
        resume(nats_server)

        assert caught.value.event_id == "abc"
        again = await transport.publish(message(id="abc"), timeout=5)
        assert again.duplicate
        assert await stored(transport) == 1


async def test_a_publish_that_was_never_sent_is_certainly_not_stored(nats_server):
    async with connected(nats_server.url) as transport:
        nats_server.kill()
        await until(lambda: not transport.is_connected)

        with pytest.raises(TransportError, match="no connection in time") as caught:
            await transport.publish(message(), timeout=0.1)

    assert not isinstance(caught.value, PublishError)


async def test_a_full_stream_is_tried_again_until_it_has_room(quick_resends, nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport, max_msgs=1, discard="new")
        await transport.publish(message(id="1"), timeout=5)

        publishing = asyncio.create_task(transport.publish(message(id="2"), timeout=20))
        pending = transport._outbox._pending
        await until(lambda: any("10077" in one.trouble for one in pending.values()))
        await transport._api.ask(f"STREAM.PURGE.{STREAM}")
        result = await publishing

        assert (result.sequence, result.duplicate) == (2, False)


async def test_a_stream_that_stays_full_refuses_what_is_certainly_not_stored(
    quick_resends, nats_server
):
    async with connected(nats_server.url) as transport:
        await make_stream(transport, max_msgs=1, discard="new")
        await transport.publish(message(id="1"), timeout=5)

        with pytest.raises(TransportError, match="maximum messages exceeded") as caught:
            await transport.publish(message(id="2"), timeout=0.3)

    assert not isinstance(caught.value, PublishError)


async def test_a_refusal_that_will_not_change_is_told_at_once(nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport, max_msg_size=10)

        async with asyncio.timeout(10):
            with pytest.raises(ApiError, match=r"events\.one was not stored") as caught:
                await transport.publish(message(b"x" * 11), timeout=30)

    assert caught.value.err_code == 10054


async def test_a_subject_without_a_stream_is_told_at_once(nats_server):
    async with connected(nats_server.url) as transport:
        async with asyncio.timeout(10):
            with pytest.raises(NoStream, match=r"'events\.one'"):
                await transport.publish(message(), timeout=30)


async def test_closing_fails_what_waits_and_says_what_may_be_stored(nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        pause(nats_server)
        publishing = asyncio.create_task(transport.publish(message(id="abc"), timeout=30))
        await until(lambda: waiting(transport) == 1)
        closing = asyncio.create_task(transport.close())

        async with asyncio.timeout(10):
            with pytest.raises(PublishError, match="abc"):
                await publishing
        resume(nats_server)
        await closing


async def test_closing_fails_what_waits_for_room_too(nats_server, monkeypatch):
    monkeypatch.setattr(outbox, "WINDOW", 2)
    async with connected(nats_server.url) as transport:
        nats_server.kill()
        await until(lambda: not transport.is_connected)
        publishing = [
            asyncio.create_task(transport.publish(message(id=str(n)), timeout=30)) for n in range(5)
        ]
        await until(lambda: len(transport._outbox._room) == 3)

        await transport.close()

        async with asyncio.timeout(10):
            results = await asyncio.gather(*publishing, return_exceptions=True)
        assert [TransportError] * 5 == [
            TransportError if isinstance(result, TransportError) else result for result in results
        ]
        assert waiting(transport) == 0


async def test_waiting_for_room_counts_against_the_timeout(nats_server, monkeypatch):
    monkeypatch.setattr(outbox, "WINDOW", 1)
    async with connected(nats_server.url) as transport:
        nats_server.kill()
        await until(lambda: not transport.is_connected)
        first = asyncio.create_task(transport.publish(message(id="1"), timeout=30))
        await until(lambda: waiting(transport) == 1)

        async with asyncio.timeout(10):
            with pytest.raises(TransportError, match="not published"):
                await transport.publish(message(id="2"), timeout=0.1)
            results = await transport.publish_many([message(id="3"), message(id="4")], timeout=0.1)

        assert all(isinstance(result, TransportError) for result in results)
        first.cancel()


async def test_publishing_before_the_connection_and_after_it_is_refused_at_once(nats_server):
    async with connected(nats_server.url) as transport:
        pass

    async with asyncio.timeout(10):
        with pytest.raises(TransportError, match="not connected"):
            await transport.publish(message(), timeout=30)


@pytest.mark.parametrize("many", [False, True])
async def test_a_cancelled_publish_leaves_nothing_behind(nats_server, many):
    async with connected(nats_server.url) as transport:
        nats_server.kill()
        await until(lambda: not transport.is_connected)
        messages = [message(id=str(n)) for n in range(10)]
        if many:
            publishing = [asyncio.create_task(transport.publish_many(messages, timeout=30))]
        else:
            publishing = [
                asyncio.create_task(transport.publish(one, timeout=30)) for one in messages
            ]
        await until(lambda: waiting(transport) == 10)

        for one in publishing:
            one.cancel()
        await asyncio.gather(*publishing, return_exceptions=True)

        await until(lambda: waiting(transport) == 0)
        await until(lambda: transport._outbox._sweep is None)


async def test_a_message_that_cannot_be_written_costs_only_itself(nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        broken = Message("events.one", b"{}", "2", {"bad name": "x"})

        results = await transport.publish_many(
            [message(id="1"), broken, message(id="3")], timeout=5
        )

        assert [type(result).__name__ for result in results] == ["Stored", "InvalidEvent", "Stored"]


async def test_no_more_than_the_window_is_unconfirmed(monkeypatch):
    monkeypatch.setattr(outbox, "WINDOW", 8)
    async with FakeServer() as server, connected(server.url) as transport:
        publishing = asyncio.create_task(
            transport.publish_many([message(id=str(n)) for n in range(100)], timeout=30)
        )
        await until(lambda: server.received.count(b"HPUB ") == 8)
        assert await transport.flush(5)

        assert server.received.count(b"HPUB ") == 8
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)


@pytest.fixture
def numbers():
    """Numbered messages without end, and how many were taken."""

    class Numbers:
        taken = 0

        def __iter__(self):
            for number in itertools.count():
                self.taken += 1
                yield message(id=str(number))

    return Numbers()


async def test_messages_are_read_only_while_there_is_room(monkeypatch, numbers):
    monkeypatch.setattr(outbox, "WINDOW", 8)
    async with FakeServer() as server, connected(server.url) as transport:
        publishing = asyncio.create_task(transport.publish_many(iter(numbers), timeout=30))
        await until(lambda: server.received.count(b"HPUB ") == 8)
        assert await transport.flush(5)

        assert numbers.taken == 9  # and one waits for room
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)


async def test_after_one_that_ran_out_of_time_no_more_are_read(monkeypatch, numbers):
    monkeypatch.setattr(outbox, "WINDOW", 8)
    async with FakeServer() as server, connected(server.url) as transport:
        async with asyncio.timeout(5):
            results = await transport.publish_many(iter(numbers), timeout=0.3)

        assert {type(one) for one in results} <= {PublishError, TransportError}
        assert len(results) == numbers.taken <= 17  # a window, and what it left room for


async def test_without_a_connection_no_more_are_read(nats_server, numbers):
    async with connected(nats_server.url) as transport:
        pass

    [result] = await transport.publish_many(iter(numbers), timeout=30)

    assert isinstance(result, TransportError)


async def test_the_loop_has_its_turns_while_many_are_published(nats_server):
    async with connected(nats_server.url) as transport:
        await make_stream(transport)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await transport.publish_many([message(id=str(n)) for n in range(1_280)], timeout=10)
        counting.cancel()

        assert turns >= 10


async def test_the_streams_own_word_counts_whoever_else_replies(quick_resends, nats_server):
    answers = [b"OK", b"[1]", b"{}", b'{"error":"no"}', b'{"error":{}}', b"\xff"]

    async with Proxy(nats_server) as proxy, connected(proxy.url) as transport:
        await make_stream(transport)
        told: list[bytes] = []

        def tell(line: bytes) -> bool:
            """The publish is lost; in its place come others' replies to it."""
            if not line.startswith(b"HPUB events.one") or told:
                return False
            reply = line.split()[2]
            told.append(b"".join(b"PUB %b %d\r\n%b\r\n" % (reply, len(a), a) for a in answers))
            return True

        proxy.drop = tell
        publishing = asyncio.create_task(transport.publish(message(), timeout=20))
        await until(lambda: told)
        await raw(nats_server.url, told[0])
        result = await publishing

    assert (result.stream, result.sequence) == (STREAM, 1)


async def test_an_id_that_is_on_its_way_may_be_stored(quick_resends):
    class Replicating(FakeServer):
        def answer(self, line, writer):
            super().answer(line, writer)
            words = line.split()
            if line.startswith(b"SUB "):
                self.sids = {**getattr(self, "sids", {}), words[1].removesuffix(b".*"): words[2]}
            if line.startswith(b"HPUB "):
                body = b'{"error":{"code":409,"err_code":10158,"description":"in process"}}'
                sid = self.sids[words[2].rpartition(b".")[0]]
                writer.write(b"MSG %b %b %d\r\n%b\r\n" % (words[2], sid, len(body), body))

    async with Replicating() as server, connected(server.url) as transport:
        with pytest.raises(PublishError, match=r"in process \(10158\); it may or may not be"):
            await transport.publish(message(), timeout=0.3)

    assert server.received.count(b"HPUB ") >= 2


def test_long_subjects_fill_no_memory() -> None:
    tracemalloc.start()
    try:
        for number in range(100):
            with pytest.raises(InvalidSubject):
                frame(f"{number}.{'a' * 50_000}", b"", b"", b"", max_payload=10)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1_000_000


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"stream":"S", "seq":7}', Stored("S", 7, False)),
        (b'{"stream":"S","domain":"hub", "seq":7}', Stored("S", 7, False)),
        (b'{"stream":"S", "seq":7,"duplicate": true}', Stored("S", 7, True)),
        (b'{"stream":"S", "seq":7, "val":"12"}', Stored("S", 7, False)),
        (b'{"seq":7,"stream":"S"}', Stored("S", 7, False)),
        (b'{"stream":"T", "seq":7}', Stored("T", 7, False)),
        (b'{"stream":"S", "seq":}', None),
        (b'{"stream":"S", "seq":7', None),
        (b'{"stream":"S", "seq":7]', None),
        (b"", None),
        (b":", None),
        (b"[]", None),
        (b'{"stream":"S"}', None),
    ],
)
async def test_an_answer_reads_the_same_after_one_that_was_alike(answer, expected, nats_server):
    async with connected(nats_server.url) as transport:
        box = transport._outbox
        await make_stream(transport)
        await transport.publish(message(), timeout=5)
        for usual in (b'{"stream":"S", "seq":1}', b'{"stream":"S","domain":"hub", "seq":1}'):
            batch = Batch()
            box._submit(batch, batch.add(), message(id=usual.decode()), 1e9, 0.0)
            box._on_answer(box._inbox + b"%d" % box._token, b"", None, usual)
        batch = Batch()
        box._submit(batch, batch.add(), message(id="x"), 1e9, 0.0)

        box._on_answer(box._inbox + b"%d" % box._token, b"", None, answer)

        assert batch.left == (1 if expected is None else 0)
        assert expected is None or batch.results == [expected]

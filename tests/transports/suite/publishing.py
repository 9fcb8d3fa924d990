"""Publishing: stored once per id, each message its own result."""

from __future__ import annotations

import asyncio

import pytest

from omni_worker.errors import EventTooLarge, InvalidEvent, NoStream, NotConnected
from omni_worker.transports.base import Message, Stored, Transport

from ...waiting import until
from .backend import SECOND, Backend, make_stream, publish


class Publishing:
    """Promises of publish and publish_many."""

    async def test_a_published_message_is_stored_with_its_id_and_headers(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)

        stored = await transport.publish(
            Message("s.a", b"body", "id-1", {"traceparent": "00-1"}), timeout=5
        )

        assert Stored("S", 1, duplicate=False) == stored
        message = await transport.operators.message("S", 1)
        assert message is not None
        assert (message.subject, message.body, message.sequence) == ("s.a", b"body", 1)
        assert message.headers == {"Nats-Msg-Id": ["id-1"], "traceparent": ["00-1"]}

    async def test_the_same_id_is_stored_once(self, transport: Transport) -> None:
        await make_stream(transport)
        await publish(transport, "one", "two")

        again = await transport.publish(Message("s.x", b"{}", "one"), timeout=5)

        assert Stored("S", 1, duplicate=True) == again
        assert await _messages(transport) == 2

    async def test_of_a_hundred_publishers_of_one_id_one_stores_it(self, backend: Backend) -> None:
        transports = [await backend.connect() for _ in range(4)]
        await make_stream(transports[0])

        results = await asyncio.gather(
            *(
                transports[number % 4].publish(Message("s.x", b"{}", "one"), timeout=10)
                for number in range(100)
            )
        )

        assert sorted(result.duplicate for result in results) == [False] + [True] * 99
        assert {result.sequence for result in results} == {1}
        assert await _messages(transports[0]) == 1

    async def test_an_id_counts_in_its_whole_stream(self, transport: Transport) -> None:
        await make_stream(transport)
        await publish(transport, "one", subject="s.a")

        [again] = await publish(transport, "one", subject="s.b")

        assert again.duplicate

    async def test_an_id_is_forgotten_after_the_duplicate_window(
        self, transport: Transport
    ) -> None:
        await make_stream(transport, duplicate_window=SECOND // 5)
        await publish(transport, "one")

        async def is_new() -> bool:
            [again] = await publish(transport, "one")
            return not again.duplicate

        await until(is_new)
        assert await _messages(transport) == 2

    async def test_publish_many_keeps_the_order(self, transport: Transport) -> None:
        await make_stream(transport)
        messages = [Message(f"s.{n % 7}", b"%d" % n, f"id-{n}") for n in range(3_000)]

        results = await transport.publish_many(messages, timeout=10)

        assert [Stored("S", n + 1, duplicate=False) for n in range(3_000)] == results
        last = await transport.operators.message("S", 3_000)
        assert last is not None
        assert last.body == b"2999"

    async def test_each_of_many_ends_as_its_own_result(self, transport: Transport) -> None:
        await make_stream(transport)
        messages = [
            Message("s.a", b"", "1"),
            Message("nobody.stores.this", b"", "2"),
            Message("s.a", bytes(transport.max_payload), "3"),
            Message("s.a", b"", "4", {"bad name": "x"}),
            Message("s.a", b"", "5", {"name": "line\r\nbreak"}),
            Message("s.a", b"", "1"),
            Message("s.a", b"", "6"),
        ]

        results = await transport.publish_many(messages, timeout=5)

        kinds = [type(result) for result in results]
        assert [
            Stored, NoStream, EventTooLarge, InvalidEvent, InvalidEvent, Stored, Stored
        ] == kinds  # fmt: skip
        assert [Stored("S", 1, True), Stored("S", 2, False)] == results[-2:]

    async def test_no_messages_have_no_results(self, transport: Transport) -> None:
        assert await transport.publish_many([], timeout=5) == []

    async def test_a_subject_no_stream_stores_is_an_error(self, transport: Transport) -> None:
        await make_stream(transport)

        with pytest.raises(NoStream, match=r"nobody\.here"):
            await transport.publish(Message("nobody.here", b"", "1"), timeout=5)

    async def test_too_large_with_its_headers_is_refused_and_breaks_nothing(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        headers = len(b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n")
        most = bytes(transport.max_payload - headers)

        with pytest.raises(EventTooLarge):
            await transport.publish(Message("s.a", most + b"!", "1"), timeout=5)
        stored = await transport.publish(Message("s.a", most, "1"), timeout=5)

        assert Stored("S", 1, duplicate=False) == stored
        assert transport.is_connected

    async def test_an_empty_body_is_stored(self, transport: Transport) -> None:
        await make_stream(transport)

        await publish(transport, "1", body=b"")

        message = await transport.operators.message("S", 1)
        assert message is not None
        assert message.body == b""

    async def test_before_open_and_after_close_it_is_not_connected(self, backend: Backend) -> None:
        message = Message("s.a", b"", "1")
        unopened = backend.unopened()
        closed = await backend.connect()
        await make_stream(closed)
        await closed.close()

        for transport in (unopened, closed):
            assert not transport.is_connected
            with pytest.raises(NotConnected):
                await transport.publish(message, timeout=5)
            [result] = await transport.publish_many([message], timeout=5)
            assert isinstance(result, NotConnected)
            with pytest.raises(NotConnected):
                await transport.operators.streams()

    async def test_what_is_on_its_way_when_it_closes_is_confirmed(self, backend: Backend) -> None:
        transport = await backend.connect()
        await make_stream(transport)
        messages = [Message("s.a", b"", str(number)) for number in range(500)]
        publishing = [asyncio.create_task(transport.publish(one, timeout=5)) for one in messages]
        await asyncio.sleep(0)

        await transport.close()

        results = await asyncio.gather(*publishing)
        assert sorted(stored.sequence for stored in results) == list(range(1, 501))

    async def test_it_may_be_opened_again_after_close(self, backend: Backend) -> None:
        transport = await backend.connect()
        await make_stream(transport)
        await transport.close()

        await transport.open("again")

        assert transport.is_connected
        [stored] = await publish(transport, "1")
        assert Stored("S", 1, duplicate=False) == stored

    async def test_it_says_what_the_server_takes_and_is(self, transport: Transport) -> None:
        assert transport.max_payload == 1_048_576
        assert transport.server_version >= (2, 10, 0)
        assert transport.failure is None
        assert await transport.flush(2.0)


async def _messages(transport: Transport) -> int:
    stream = await transport.operators.stream_info("S")
    assert stream is not None
    return stream.state.messages

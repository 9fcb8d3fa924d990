"""Consuming: deliveries that were asked for, what they carry, and how a source ends."""

from __future__ import annotations

from omni_worker.transports.base import Message, Transport
from omni_worker.transports.headers import parse_headers

from ...waiting import until
from .backend import (
    SECOND,
    Backend,
    bodies,
    consume,
    held,
    info,
    make_consumer,
    make_stream,
    needs,
    publish,
    settled,
)


class Consuming:
    """Promises of consume, Source and Delivery."""

    async def test_nothing_is_delivered_before_a_request(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2)

        source, recorder = await consume(transport)

        assert await held(transport) == 0
        assert (recorder.deliveries, source.outstanding) == ([], 0)

    async def test_no_more_is_delivered_than_was_asked_for(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, *range(10))

        source, recorder = await consume(transport, 3)
        await recorder.wait(3)
        source.request(2)
        await recorder.wait(5)

        said = await info(transport)
        assert (said.num_ack_pending, said.num_pending, said.num_waiting) == (5, 5, 0)
        assert recorder.sequences == [1, 2, 3, 4, 5]

    async def test_outstanding_is_what_is_still_to_come(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2)

        source, recorder = await consume(transport, 5)

        assert source.outstanding == 5
        await recorder.wait(2)
        assert source.outstanding == 3

    async def test_a_delivery_never_arrives_inside_the_request(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        source, recorder = await consume(transport)

        source.request(1)

        assert recorder.deliveries == []
        await recorder.wait(1)

    async def test_a_waiting_request_gets_what_is_published_later(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        _, recorder = await consume(transport, 2)

        await publish(transport, 1, 2)

        await recorder.wait(2)
        assert recorder.sequences == [1, 2]

    async def test_order_is_the_streams(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, *range(1_000))

        source, recorder = await consume(transport, 500)
        source.request(500)
        await recorder.wait(1_000)

        assert list(range(1, 1_001)) == recorder.sequences

    async def test_a_delivery_carries_what_was_published(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await transport.publish(
            Message("s.a.wa-001", b"\xff\x00\r\n", "id-1", {"x": "ä"}), timeout=5
        )

        source, recorder = await consume(transport, 1)
        [delivery] = await recorder.wait(1)

        message = await transport.operators.message("S", 1)
        assert message is not None
        assert (delivery.subject, delivery.body) == ("s.a.wa-001", b"\xff\x00\r\n")
        assert parse_headers(delivery.raw_headers) == {"Nats-Msg-Id": ["id-1"], "x": ["ä"]}
        assert source is delivery.source
        assert (source.stream, source.consumer) == ("S", "c")
        assert (1, 1, message.stored_at) == (
            delivery.count, delivery.sequence, delivery.stored_at
        )  # fmt: skip

    async def test_a_foreign_message_has_no_headers(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await backend.store(b"s.foreign", b"")

        _, recorder = await consume(transport, 1)
        [delivery] = await recorder.wait(1)

        assert (delivery.subject, delivery.body) == ("s.foreign", b"")
        assert parse_headers(delivery.raw_headers) == {}

    async def test_an_event_with_a_status_header_is_delivered(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await backend.store(b"s.a", b"one", b"NATS/1.0\r\nStatus: 408\r\n\r\n")
        await backend.store(b"s.a", b"two", b"NATS/1.0 409 Consumer Deleted\r\nx: y\r\n\r\n")

        source, recorder = await consume(transport, 3)
        first, second = await recorder.wait(2)

        assert bodies(recorder.deliveries) == [b"one", b"two"]
        assert parse_headers(first.raw_headers) == {"Status": ["408"]}
        assert parse_headers(second.raw_headers) == {"x": ["y"]}
        assert source.outstanding == 1

    async def test_broken_headers_cost_the_headers_only(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "odd bytes")
        await make_stream(transport)
        await make_consumer(transport)
        await backend.store(b"s.a", b"one", b"NATS/1.0\r\nno colon\r\n: no name\r\na: b\r\n\r\n")
        await backend.store(b"s.a", b"two", b"NATS/1.0\r\nx: \xff\xfe\r\n\r\n")

        _, recorder = await consume(transport, 2)
        first, second = await recorder.wait(2)

        assert bodies(recorder.deliveries) == [b"one", b"two"]
        assert parse_headers(first.raw_headers) == {"a": ["b"]}
        assert parse_headers(second.raw_headers) == {"x": ["\udcff\udcfe"]}

    async def test_odd_bytes_in_a_subject_harm_nobody(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "odd bytes")
        await make_stream(transport)
        await make_consumer(transport)
        for subject in (b"s.\xff\xfe", b"s.a\x0bb", b"s.a\x0cb", "s.é".encode()):
            await backend.store(subject, subject)
        await publish(transport, "after")

        _, recorder = await consume(transport, 5)
        deliveries = await recorder.wait(5)

        subjects = [one.subject.encode("utf-8", "surrogateescape") for one in deliveries[:4]]
        assert subjects == bodies(deliveries[:4])
        for delivery in deliveries:
            delivery.ack()
        await settled(transport)

    async def test_two_sources_share_a_consumer(self, backend: Backend) -> None:
        one, other = await backend.connect(), await backend.connect()
        await make_stream(one)
        await make_consumer(one)
        _, first = await consume(one, 50)
        _, second = await consume(one, 50)
        _, third = await consume(other, 50)

        async def all_ask() -> bool:  # in a cluster a request travels to the leader
            return (await info(one)).num_waiting == 3

        await until(all_ask)

        await publish(one, *range(90))

        recorders = (first, second, third)
        await until(lambda: sum(len(one.deliveries) for one in recorders) >= 90)
        everything = first.sequences + second.sequences + third.sequences
        assert list(range(1, 91)) == sorted(everything)
        assert [len(one.deliveries) for one in recorders] == [30, 30, 30]

    async def test_several_filters_are_one_consumer(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, filter_subjects=["s.a", "s.b.>"])
        for number, subject in enumerate(("s.a", "s.a.x", "s.b", "s.b.x", "s.b.x.y", "s.a")):
            await publish(transport, number, subject=subject)

        _, recorder = await consume(transport, 10)
        await recorder.wait(4)

        assert recorder.sequences == [1, 4, 5, 6]
        assert (await info(transport)).num_pending == 0

    async def test_the_count_grows_and_the_identity_stays(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        _, recorder = await consume(transport, 3)

        for count in (1, 2):
            (await recorder.wait(count))[-1].nak()
        await recorder.wait(3)

        identities = {
            (one.source.stream, one.sequence, one.stored_at) for one in recorder.deliveries
        }
        assert len(identities) == 1
        assert recorder.counts(1) == [1, 2, 3]

    async def test_a_message_past_its_age_is_not_delivered(self, transport: Transport) -> None:
        await make_stream(transport, max_age=SECOND // 5, duplicate_window=SECOND // 5)
        await make_consumer(transport)
        await publish(transport, 1)

        async def is_gone() -> bool:
            # In a cluster each server drops it by its own clock: also where the consumer's is.
            stored = await transport.operators.message("S", 1)
            return stored is None and (await info(transport)).num_pending == 0

        await until(is_gone)
        _, recorder = await consume(transport, 5)
        await publish(transport, 2)
        await recorder.wait(1)

        assert recorder.sequences == [2]

    async def test_a_stream_can_be_a_copy_of_another(self, transport: Transport) -> None:
        await make_stream(transport, "O")
        await publish(transport, 1, subject="o.a")
        await publish(transport, 2, subject="o.b")
        await transport.operators.create_stream(
            {
                "name": "S",
                "sources": [
                    {"name": "O", "filter_subject": "o.a"},
                    {"name": "O", "filter_subject": "o.a.>"},
                ],
            }
        )
        await make_consumer(transport)
        _, recorder = await consume(transport, 5)
        await recorder.wait(1)

        await publish(transport, 3, subject="o.a.x")
        await publish(transport, 4, subject="o.b.x")
        await recorder.wait(2)

        first, second = recorder.deliveries
        assert [first.subject, second.subject] == ["o.a", "o.a.x"]
        assert parse_headers(first.raw_headers)["Nats-Msg-Id"] == ["1"]
        assert [
            parse_headers(one.raw_headers)["Nats-Stream-Source"][0].split()[:2]
            for one in (first, second)
        ] == [["O", "1"], ["O", "3"]]

"""Outages: what a broken link costs, what it does not, and how a transport ends."""

from __future__ import annotations

import asyncio

import pytest

from omni_worker.errors import NotConnected, PublishError, TransportError
from omni_worker.transports.base import LinkChange, Message, Stored, Transport

from ...waiting import until
from .backend import (
    Backend,
    consume,
    consumer_config,
    held,
    info,
    make_consumer,
    make_stream,
    needs,
    publish,
    settled,
)

TRIES = 25  # about half a second


class Outages:
    """Promises about a link that breaks and comes back, or does not."""

    @pytest.fixture(autouse=True)
    def _can_disconnect(self, request: pytest.FixtureRequest, backend: Backend) -> None:
        if request.function.__name__ in vars(Outages):
            needs(backend, "disconnect")

    async def test_it_says_whether_it_is_connected(
        self, backend: Backend, transport: Transport
    ) -> None:
        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        assert not await transport.flush(0.1)

        await backend.reconnect()
        await until(lambda: transport.is_connected)
        assert await transport.flush(2.0)

    async def test_a_watcher_is_called_when_a_link_is_lost_and_when_it_is_back(
        self, backend: Backend, transport: Transport
    ) -> None:
        changes: list[LinkChange] = []
        transport.watch(changes.append)

        await lose_and_mend(backend, transport)

        await until(lambda: [one.is_up for one in changes] == [False, True])
        assert [one.cause is not None for one in changes] == [True, False]

    async def test_a_source_is_told_and_may_ask_again(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport, 10)
        await publish(transport, 1)
        await recorder.wait(1)

        await lose_and_mend(backend, transport)
        await until(lambda: recorder.resumptions == 1)
        assert source.outstanding == 0
        await publish(transport, 2)
        source.request(10)

        await recorder.wait(2)
        assert recorder.sequences == [1, 2]

    async def test_answers_given_while_the_link_is_down_are_sent_afterwards(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2, 3)
        source, recorder = await consume(transport, 3)
        first, second, third = await recorder.wait(3)

        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        first.ack()
        second.term("enough")
        third.nak()
        await backend.reconnect()
        await until(lambda: recorder.resumptions == 1)
        source.request(10)

        await recorder.wait(4)
        assert recorder.sequences == [1, 2, 3, 3]
        recorder.deliveries[3].ack()
        await settled(transport)

    async def test_acks_lost_with_the_link_are_given_again(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2)
        source, recorder = await consume(transport, 2)
        first, second = await recorder.wait(2)

        first.ack()
        second.term("enough")
        await backend.disconnect()  # in the same turn of the loop: neither has left
        await until(lambda: not transport.is_connected)
        await backend.reconnect()
        await until(lambda: transport.is_connected)

        await settled(transport)
        source.request(10)
        assert recorder.sequences == [1, 2]

    async def test_acks_given_again_are_none_of_a_consumer_made_anew(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        _, recorder = await consume(transport, 1)
        [delivery] = await recorder.wait(1)
        delivery.ack()
        await settled(transport)
        other = await backend.beside()

        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        await other.operators.delete_consumer("S", "c")
        await other.operators.create_consumer("S", consumer_config("c", deliver_policy="all"))
        _, held_there = await consume(other, 1)  # the same sequence, and another's to answer
        await held_there.wait(1)
        await backend.reconnect()
        await until(lambda: recorder.resumptions == 1)
        await publish(transport, 2)  # a round trip and more, behind what a new link says first

        assert await held(transport) == 1

    async def test_a_source_that_waits_says_since_when_it_hears_nothing(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, _ = await consume(transport)
        assert source.silent_for == 0.0  # nothing is asked for

        source.request(10)
        await info(transport)
        assert source.silent_for < 5
        await backend.disconnect()
        await until(lambda: source.silent_for > 0.1)
        await backend.reconnect()

        await until(lambda: source.silent_for == 0.0)

    async def test_a_request_into_a_broken_link_is_none(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport)
        await backend.disconnect()
        await until(lambda: not transport.is_connected)

        source.request(10)
        assert source.outstanding == 0
        await backend.reconnect()
        await until(lambda: recorder.resumptions == 1)

        assert (await info(transport)).num_waiting == 0

    async def test_what_was_delivered_into_a_broken_link_comes_again(
        self, backend: Backend
    ) -> None:
        one, other = await backend.connect(), await backend.connect()
        await make_stream(one)
        await make_consumer(one, ack_wait=0.5)
        await publish(one, *range(50))
        _, first = await consume(one, 50)
        await one.flush(1.0)

        await lose_and_mend(backend, one, other)
        _, second = await consume(other, 100)

        await until(lambda: len(set(second.sequences)) == 50)
        assert len(first.deliveries) <= 50

    async def test_nothing_is_delivered_to_those_who_are_gone(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport, 10)
        await transport.flush(2.0)

        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        await backend.store(b"s.a", b"meanwhile")
        await backend.reconnect()
        await until(lambda: recorder.resumptions == 1)
        source.request(10)

        await recorder.wait(1)
        assert recorder.counts(1) == [1]

    async def test_stop_returns_while_the_link_is_down(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport, 10)
        await backend.disconnect()
        await until(lambda: not transport.is_connected)

        await asyncio.wait_for(source.stop(), 2.0)
        await backend.reconnect()
        await until(lambda: transport.is_connected)

        assert await transport.flush(2.0)
        assert recorder.resumptions == 0
        assert (await info(transport)).num_waiting == 0

    async def test_a_publish_waits_for_the_link(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await backend.disconnect()
        await until(lambda: not transport.is_connected)

        waiting = asyncio.create_task(transport.publish(Message("s.a", b"", "1"), timeout=10))
        await backend.reconnect()

        assert Stored("S", 1, duplicate=False) == await waiting

    async def test_publishes_under_way_are_stored_once_each(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        messages = [Message("s.a", b"", str(n)) for n in range(1_000)]
        waiting = asyncio.create_task(transport.publish_many(messages, timeout=10))
        await asyncio.sleep(0)

        await lose_and_mend(backend, transport)

        results = await waiting
        assert all(isinstance(result, Stored) for result in results)
        stream = await transport.operators.stream_info("S")
        assert stream is not None
        assert stream.state.messages == 1_000

    async def test_a_publish_never_sent_is_certainly_not_stored(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await backend.disconnect()
        await until(lambda: not transport.is_connected)

        with pytest.raises(TransportError) as caught:
            await transport.publish(Message("s.a", b"", "1"), timeout=0.3)

        assert not isinstance(caught.value, PublishError)

    async def test_close_ends_waiting_publishes(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        waiting = asyncio.create_task(transport.publish(Message("s.a", b"", "1"), timeout=30))
        await asyncio.sleep(0)

        await transport.close()

        with pytest.raises(NotConnected):
            await asyncio.wait_for(waiting, 2.0)

    async def test_a_consumer_deleted_meanwhile_is_lost(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport, 10)
        await transport.flush(1.0)

        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        await backend.reconnect()
        await until(lambda: recorder.resumptions == 1)
        await transport.operators.delete_consumer("S", "c")
        source.request(10)

        await until(lambda: bool(recorder.causes))

    async def test_a_question_waits_for_the_link(
        self, backend: Backend, transport: Transport
    ) -> None:
        await make_stream(transport)
        await backend.disconnect()
        await until(lambda: not transport.is_connected)

        waiting = asyncio.create_task(transport.operators.stream_info("S"))
        await backend.reconnect()

        assert await waiting is not None

    async def test_a_transport_that_gave_up_says_why_to_everybody(self, backend: Backend) -> None:
        backend.tries = TRIES
        transport = await backend.connect()
        await make_stream(transport)
        watching = asyncio.create_task(transport.failed())
        await backend.disconnect()
        await until(lambda: not transport.is_connected)
        waiting = asyncio.create_task(transport.publish(Message("s.a", b"", "1"), timeout=30))
        await asyncio.sleep(0)

        await backend.give_up(transport)

        cause = await asyncio.wait_for(watching, 5.0)
        assert cause is transport.failure
        for publishing in (waiting, transport.publish(Message("s.a", b"", "2"), timeout=30)):
            with pytest.raises(TransportError):
                await asyncio.wait_for(publishing, 2.0)
        with pytest.raises(TransportError):
            await asyncio.wait_for(transport.operators.streams(), 2.0)

    async def test_it_may_be_opened_again_after_it_gave_up(self, backend: Backend) -> None:
        backend.tries = TRIES
        transport = await backend.connect()
        await make_stream(transport)
        await backend.disconnect()
        await backend.give_up(transport)
        await asyncio.wait_for(transport.failed(), 5.0)

        await backend.reconnect()
        await transport.open("again")

        assert transport.is_connected
        assert transport.failure is None
        [stored] = await publish(transport, 1)
        assert stored.sequence == 1


async def lose_and_mend(backend: Backend, *transports: Transport) -> None:
    """Break the links and wait until they stand again."""
    await backend.disconnect()
    await until(lambda: not any(one.is_connected for one in transports))
    await backend.reconnect()
    await until(lambda: all(one.is_connected for one in transports))

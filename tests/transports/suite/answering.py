"""Answering: what ack, nak, term and in_progress do, and what no answer does."""

from __future__ import annotations

import asyncio
from functools import partial

from omni_worker.transports.base import Transport

from ...waiting import until
from .backend import (
    Backend,
    consume,
    held,
    info,
    make_consumer,
    make_stream,
    needs,
    publish,
    settled,
)

ACK_WAIT = 0.5  # seconds, where a test waits for it to pass


class Answering:
    """Promises of a delivery's four answers, and of ack_wait."""

    async def test_an_acked_message_never_comes_again(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=ACK_WAIT)
        await publish(transport, 1, 2)
        _, recorder = await consume(transport, 10)
        first, _ = await recorder.wait(2)

        first.ack()

        await until(lambda: recorder.counts(2) == [1, 2])
        assert recorder.counts(1) == [1]
        assert await held(transport) == 1

    async def test_a_confirmed_ack_is_with_the_server(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        _, recorder = await consume(transport, 10)
        [delivery] = await recorder.wait(1)

        confirmed = await delivery.confirm()
        again = await delivery.confirm()

        assert (confirmed, again) == (True, True)
        assert await held(transport) == 0

    async def test_an_ack_to_a_consumer_that_is_gone_is_not_confirmed(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        _, recorder = await consume(transport, 1)
        [delivery] = await recorder.wait(1)
        await transport.operators.delete_consumer("S", "c")

        assert not await delivery.confirm()

    async def test_a_naked_message_comes_again_at_once(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        _, recorder = await consume(transport, 10)
        [delivery] = await recorder.wait(1)

        delivery.nak()

        await recorder.wait(2)
        assert recorder.counts(1) == [1, 2]
        said = await info(transport)
        assert (said.num_ack_pending, said.num_redelivered) == (1, 1)

    async def test_a_delayed_nak_is_waited_for(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2)
        _, recorder = await consume(transport, 10)
        first, second = await recorder.wait(2)
        started = asyncio.get_running_loop().time()

        first.nak(0.3)
        second.nak(0.1)

        await recorder.wait(4)
        waited = asyncio.get_running_loop().time() - started
        assert recorder.sequences == [1, 2, 2, 1]
        assert 0.3 <= waited < 10

    async def test_a_delay_may_be_longer_than_ack_wait(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.2)
        await publish(transport, 1)
        _, recorder = await consume(transport, 10)
        [delivery] = await recorder.wait(1)
        started = asyncio.get_running_loop().time()

        delivery.nak(0.6)

        await recorder.wait(2)
        assert asyncio.get_running_loop().time() - started >= 0.6

    async def test_a_delayed_nak_leaves_others_alone(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        _, recorder = await consume(transport, 10)
        [delivery] = await recorder.wait(1)

        delivery.nak(60.0)
        await publish(transport, 2)

        await recorder.wait(2)
        assert recorder.sequences == [1, 2]

    async def test_delayed_naks_count_against_max_ack_pending(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, max_ack_pending=2)
        await publish(transport, 1, 2, 3)
        _, recorder = await consume(transport, 10)
        first, second = await recorder.wait(2)

        first.nak(0.4)
        second.nak(60.0)
        await recorder.wait(3)
        recorder.deliveries[2].ack()
        await recorder.wait(4)

        assert recorder.sequences == [1, 2, 1, 3]

    async def test_max_ack_pending_bounds_what_is_held(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, max_ack_pending=2)
        await publish(transport, 1, 2, 3)
        _, recorder = await consume(transport, 10)
        first, _ = await recorder.wait(2)
        said = await info(transport)
        assert (said.num_ack_pending, said.num_pending) == (2, 1)

        first.ack()

        await recorder.wait(3)
        assert recorder.sequences == [1, 2, 3]

    async def test_a_terminated_message_never_comes_again(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=ACK_WAIT)
        await publish(transport, 1, 2)
        _, recorder = await consume(transport, 10)
        first, _ = await recorder.wait(2)

        first.term("why: \r\nPUB x 0\n ä" + "long " * 1_000)

        await until(lambda: recorder.counts(2) == [1, 2])
        assert recorder.counts(1) == [1]
        assert await held(transport) == 1

    async def test_in_progress_holds_a_message(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=ACK_WAIT)
        await publish(transport, 1, 2)
        _, recorder = await consume(transport, 10)
        _, second = await recorder.wait(2)

        def keep_holding() -> bool:
            second.in_progress()
            return len(recorder.counts(1)) == 3

        await until(keep_holding)
        assert recorder.counts(2) == [1]

    async def test_an_unanswered_message_comes_again_after_ack_wait(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.3)
        await publish(transport, 1, 2)
        _, recorder = await consume(transport, 10)
        await recorder.wait(2)
        started = asyncio.get_running_loop().time()

        await recorder.wait(6)

        waited = asyncio.get_running_loop().time() - started
        assert recorder.sequences == [1, 2, 1, 2, 1, 2]
        assert recorder.counts(1) == [1, 2, 3]
        assert 0.5 <= waited < 10

    async def test_without_a_request_nothing_comes_again(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.2)
        await make_consumer(transport, "clock", ack_wait=0.2)
        await publish(transport, 1)
        source, recorder = await consume(transport, 1)
        _, clock = await consume(transport, 10, name="clock")
        await recorder.wait(1)

        await clock.wait(3)  # two ack_waits have passed

        assert recorder.counts(1) == [1]
        source.request(1)
        await recorder.wait(2)
        assert recorder.counts(1) == [1, 2]

    async def test_redeliveries_come_before_new_messages_and_show_that_those_wait(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.2)
        await make_consumer(transport, "clock", ack_wait=0.2, max_ack_pending=1)
        await publish(transport, 1, 2, 3, 4)
        source, recorder = await consume(transport, 2)
        await recorder.wait(2)
        _, clock = await consume(transport, 10, name="clock")
        await clock.wait(3)  # two ack_waits have passed

        source.request(4)

        await recorder.wait(6)
        assert recorder.sequences == [1, 2, 1, 2, 3, 4]
        assert all(one.pending for one in recorder.deliveries[2:4])

    async def test_a_late_ack_of_an_earlier_delivery_counts(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.2)
        await publish(transport, 1)
        source, recorder = await consume(transport, 1)
        [first] = await recorder.wait(1)
        source.request(1)
        await recorder.wait(2)

        first.ack()
        recorder.deliveries[1].nak()
        source.request(1)

        await settled(transport)
        assert recorder.counts(1) == [1, 2]

    async def test_answers_are_taken_after_stop(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2)
        source, recorder = await consume(transport, 2)
        first, second = await recorder.wait(2)
        await source.stop()

        first.ack()
        second.term("enough")

        await settled(transport)

    async def test_answers_to_a_consumer_that_is_gone_harm_nobody(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1)
        _, recorder = await consume(transport, 1)
        [delivery] = await recorder.wait(1)
        await transport.operators.delete_consumer("S", "c")

        delivery.in_progress()
        delivery.nak(1.0)
        delivery.ack()

        assert await transport.flush(2.0)
        [stored] = await publish(transport, 2)
        assert not stored.duplicate

    async def test_the_ack_floor_is_below_everything_held(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2, 3, 4)
        _, recorder = await consume(transport, 4)
        first, second, third, fourth = await recorder.wait(4)

        for left, floor, delivery in ((3, 0, third), (2, 1, first), (1, 3, second), (0, 4, fourth)):
            delivery.ack()
            await until(partial(_holds, transport, left))
            # A cluster counts an ack before its replicas have agreed on the floor. It only grows:
            # one that had been above what is held would never be equal again.
            await until(partial(_floor_is, transport, floor))

    async def test_a_lost_ack_shows_as_a_redelivery(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "drop_answers")
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.3)
        await publish(transport, 1)
        _, recorder = await consume(transport, 5)
        [delivery] = await recorder.wait(1)

        backend.drop_answers(transport, 1)
        delivery.ack()
        await recorder.wait(2)
        recorder.deliveries[1].ack()

        await settled(transport)
        assert recorder.counts(1) == [1, 2]


async def _holds(transport: Transport, count: int) -> bool:
    return await held(transport) == count


async def _floor_is(transport: Transport, sequence: int) -> bool:
    return bool((await info(transport)).ack_floor == sequence)

"""Ending: how a source stops, closes or is lost, and what becomes of what it asked for."""

from __future__ import annotations

import asyncio

from omni_worker.transports.base import Transport

from ...waiting import until
from .backend import consume, held, info, make_consumer, make_stream, publish


class Ending:
    """Promises of stop, close and lost."""

    async def test_stop_leaves_nothing_on_its_way(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, max_ack_pending=-1)
        await publish(transport, *range(2_000))
        source, recorder = await consume(transport, 5_000)
        await recorder.wait(1)

        await source.stop()

        received = len(recorder.deliveries)
        assert received == await held(transport)
        await publish(transport, "later")

        async def the_rest_waits() -> bool:
            return (await info(transport)).num_pending == 2_001 - received

        await until(the_rest_waits)
        assert (0, received) == (source.outstanding, len(recorder.deliveries))

    async def test_a_withdrawn_request_brings_nothing_and_a_later_one_all(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 0)
        source, recorder = await consume(transport, 40)
        await recorder.wait(1)

        await source.withdraw()
        await publish(transport, *range(1, 11))

        async def all_of_them_wait() -> bool:
            waiting = await info(transport)
            return (waiting.num_pending, waiting.num_waiting) == (10, 0)

        await until(all_of_them_wait)  # a cluster's consumer counts them a moment later
        source.request(40)
        await recorder.wait(11)

        assert [one.sequence for one in recorder.deliveries] == list(range(1, 12))

    async def test_what_set_out_before_a_withdrawal_has_arrived_after_it(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await publish(transport, *range(100))

        for turns in range(8):
            await make_consumer(transport, f"c{turns}")
            source, recorder = await consume(transport, 50, name=f"c{turns}")
            await _let_pass(turns)
            await source.withdraw()

            assert len(recorder.deliveries) == await held(transport, f"c{turns}")
            assert source.outstanding == 0

    async def test_a_stop_waits_for_what_set_out_at_any_moment(self, transport: Transport) -> None:
        await make_stream(transport)
        await publish(transport, *range(100))

        for turns in range(8):
            await make_consumer(transport, f"c{turns}")
            source, recorder = await consume(transport, 100, name=f"c{turns}")
            await _let_pass(turns)
            await source.stop()
            received = len(recorder.deliveries)

            assert received == await held(transport, f"c{turns}")
            assert received == len(recorder.deliveries)

    async def test_what_is_handed_back_after_stop_goes_to_others(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, *range(20))
        source, recorder = await consume(transport, 40)
        await recorder.wait(20)

        await source.stop()
        for delivery in recorder.deliveries:
            delivery.nak()
        _, other = await consume(transport, 20)
        await other.wait(20)

        assert len(recorder.deliveries) == 20
        assert [delivery.count for delivery in other.deliveries] == [2] * 20

    async def test_stop_twice_and_request_after_it_do_nothing(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport, 5)

        await source.stop()
        await source.stop()
        source.request(5)
        await publish(transport, 1)

        assert await held(transport) == 0
        assert (recorder.deliveries, source.outstanding) == ([], 0)

    async def test_a_closed_source_receives_nothing(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport, ack_wait=0.5)
        source, recorder = await consume(transport, 5)
        await transport.flush(2.0)

        await source.close()
        source.request(5)
        # In a cluster the consumer's leader hears of it a moment later; until then it would deliver
        # to a source that is gone, and another one would get the message only as a redelivery.
        await until(lambda: _nobody_asks(transport))
        await publish(transport, 1)
        _, other = await consume(transport, 1)
        await other.wait(1)

        assert recorder.deliveries == []
        assert other.counts(1) == [1]

    async def test_a_source_closed_at_any_moment_receives_nothing_more(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await publish(transport, *range(100))

        for turns in range(8):
            await make_consumer(transport, f"c{turns}")
            source, recorder = await consume(transport, 100, name=f"c{turns}")
            await _let_pass(turns)
            await source.close()
            received = len(recorder.deliveries)

            await transport.flush(2.0)
            assert received == len(recorder.deliveries)

    async def test_a_deleted_consumer_is_lost(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport, 5)
        await until(lambda: _is_waiting(transport))

        await transport.operators.delete_consumer("S", "c")

        await until(lambda: bool(recorder.causes))
        assert len(recorder.causes) == 1
        assert "c" in str(recorder.causes[0])
        assert source.outstanding == 0

    async def test_a_source_that_is_told_of_its_end_asks_no_more(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        source, recorder = await consume(transport, 0)
        cause = RuntimeError("gone")

        source.lose(cause)
        source.lose(RuntimeError("again"))
        source.request(1)

        assert recorder.causes == [cause]
        assert source.outstanding == 0

    async def test_a_consumer_that_is_not_there_is_lost_on_request(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)

        _, recorder = await consume(transport, 5)

        await until(lambda: bool(recorder.causes))
        assert len(recorder.causes) == 1


async def _nobody_asks(transport: Transport) -> bool:
    return (await info(transport)).num_waiting == 0


async def _is_waiting(transport: Transport) -> bool:
    return bool((await info(transport)).num_waiting)


async def _let_pass(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)

"""Starting: where a new consumer begins."""

from __future__ import annotations

from typing import Any

import pytest

from omni_worker.transports.base import Transport
from omni_worker.transports.timestamps import timestamp

from .backend import Backend, consume, info, make_consumer, make_stream, needs, publish

BEFORE = 5  # messages stored before the consumer is made; one more comes after


class Starting:
    """What the deliver policies mean."""

    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            ({}, [1, 2, 3, 4, 5, 6]),
            ({"deliver_policy": "all"}, [1, 2, 3, 4, 5, 6]),
            ({"deliver_policy": "new"}, [6]),
            ({"deliver_policy": "last"}, [5, 6]),
            ({"deliver_policy": "by_start_sequence", "opt_start_seq": 4}, [4, 5, 6]),
            ({"deliver_policy": "by_start_time", "opt_start_time": None}, [3, 4, 5, 6]),
            ({"deliver_policy": "last", "filter_subject": "s.3"}, [3]),
            ({"deliver_policy": "all", "filter_subject": "s.3"}, [3]),
            ({"deliver_policy": "last", "filter_subject": "s.6"}, [6]),
        ],
        ids=str,
    )
    async def test_a_consumer_starts_where_its_policy_says(
        self, transport: Transport, config: dict[str, Any], expected: list[int]
    ) -> None:
        await make_stream(transport)
        for number in range(1, BEFORE + 1):
            await publish(transport, number, subject=f"s.{number}")
        if "opt_start_time" in config:
            third = await transport.operators.message("S", 3)
            assert third is not None
            config = {**config, "opt_start_time": timestamp(third.stored_at)}

        await make_consumer(transport, **config)
        await publish(transport, 6, subject="s.6")

        _, recorder = await consume(transport, 10)
        await recorder.wait(len(expected))
        assert expected == recorder.sequences
        assert (await info(transport)).num_pending == 0

    async def test_a_start_sequence_of_the_future_is_waited_for(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "future start")  # older servers begin at the next message
        await make_stream(transport)
        await publish(transport, 1)
        await make_consumer(transport, deliver_policy="by_start_sequence", opt_start_seq=4)
        _, recorder = await consume(transport, 10)

        await publish(transport, 2, 3, 4, 5)

        await recorder.wait(2)
        assert recorder.sequences == [4, 5]

    async def test_a_start_time_of_the_future_begins_at_the_next_message(
        self, transport: Transport
    ) -> None:
        await make_stream(transport)
        await publish(transport, 1)
        await make_consumer(
            transport, deliver_policy="by_start_time", opt_start_time="2150-01-01T00:00:00Z"
        )
        _, recorder = await consume(transport, 10)

        await publish(transport, 2)

        await recorder.wait(1)
        assert recorder.sequences == [2]

    async def test_a_consumer_goes_on_where_it_was(self, transport: Transport) -> None:
        await make_stream(transport)
        await make_consumer(transport)
        await publish(transport, 1, 2, 3)
        source, recorder = await consume(transport, 2)
        await recorder.wait(2)
        await source.stop()

        _, other = await consume(transport, 5)

        await other.wait(1)
        assert other.sequences == [3]

    async def test_widened_filters_count_from_where_it_stands(self, transport: Transport) -> None:
        await make_stream(transport)
        config = await make_consumer(transport, filter_subject="s.a")
        await publish(transport, 1, subject="s.a")
        await publish(transport, 2, subject="s.b")
        _, recorder = await consume(transport, 1)
        await recorder.wait(1)

        wider = {**config.raw["config"], "filter_subjects": ["s.a", "s.b"]}
        del wider["filter_subject"]
        await transport.operators.update_consumer("S", wider)
        await publish(transport, 3, subject="s.b")
        recorder.deliveries[0].source.request(5)

        await recorder.wait(3)
        assert recorder.sequences == [1, 2, 3]

    async def test_all_see_the_same_server_by_its_identity(self, backend: Backend) -> None:
        one, other = await backend.connect(), await backend.beside()

        assert one.server_id
        assert one.server_id == other.server_id

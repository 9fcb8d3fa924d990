"""Atomic batches: several messages that one stream stores together, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omni_worker.errors import (
    ApiError,
    EventTooLarge,
    NoStream,
    OmniWorkerError,
    PublishError,
    TransportError,
)
from omni_worker.transports.atomic import LEAST_VERSION
from omni_worker.transports.base import Message, Transport

from .backend import Backend, Recorder, make_stream, needs, publish

EXPECTED = "Nats-Expected-Last-Subject-Sequence"


async def atomic_stream(transport: Transport, **config: Any) -> None:
    if transport.server_version < LEAST_VERSION:
        pytest.skip("atomic batches need nats-server 2.12.1")
    await make_stream(transport, allow_atomic=True, **config)


def some(*subjects: str) -> list[Message]:
    return [Message(subject, b"%d" % number, "") for number, subject in enumerate(subjects, 1)]


async def count(transport: Transport, stream: str = "S") -> int:
    info = await transport.operators.stream_info(stream)
    assert info is not None
    return info.state.messages


class Atomic:
    """Promises of a batch."""

    async def test_a_batch_is_stored_in_its_order(self, transport: Transport) -> None:
        await atomic_stream(transport)
        batch = some("s.a", "s.b", "s.a")
        batch[1] = batch[1]._replace(headers={"traceparent": "t"})

        last = await transport.publish_atomic(batch, timeout=5)

        assert last == ("S", 3, False)
        found = [await transport.operators.message("S", one) for one in (1, 2, 3)]
        assert [(one.subject, one.body) for one in found if one is not None] == [
            ("s.a", b"1"), ("s.b", b"2"), ("s.a", b"3"),
        ]  # fmt: skip
        headers = [dict(one.headers) for one in found if one is not None]
        assert len({one.pop("Nats-Batch-Id")[0] for one in headers}) == 1
        assert headers == [
            {"Nats-Batch-Sequence": ["1"]},
            {"Nats-Batch-Sequence": ["2"], "traceparent": ["t"]},
            {"Nats-Batch-Sequence": ["3"], "Nats-Batch-Commit": ["1"]},
        ]

    async def test_a_batch_of_one_and_one_of_a_thousand(self, transport: Transport) -> None:
        await atomic_stream(transport)

        one = await transport.publish_atomic(some("s.a"), timeout=5)
        thousand = await transport.publish_atomic(some(*["s.a"] * 1000), timeout=10)

        assert (one.sequence, thousand.sequence) == (1, 1001)

    async def test_consumers_get_a_batch(self, transport: Transport) -> None:
        await atomic_stream(transport)
        config = {"name": "c", "durable_name": "c", "ack_policy": "explicit"}
        await transport.operators.create_consumer("S", config)
        recorder = Recorder()
        source = await transport.consume("S", "c", recorder)
        source.request(10)

        await transport.publish_atomic(some("s.a", "s.b"), timeout=5)

        assert [one.body for one in await recorder.wait(2)] == [b"1", b"2"]

    @pytest.mark.parametrize("wrong", ["expected", "size", "subject", "id", "ids", "own"])
    async def test_a_batch_with_one_bad_message_stores_nothing(
        self, transport: Transport, wrong: str
    ) -> None:
        await atomic_stream(transport, max_msg_size=1000)
        await make_stream(transport, "T")
        await transport.publish(Message("s.a", b"", "known"), timeout=5)
        batch = some("s.b", "s.c", "s.d")
        expect_none = {EXPECTED: "0"}
        codes = {
            "expected": (batch[1]._replace(subject="s.a", headers=expect_none), 10071),
            "own": (batch[1]._replace(subject="s.b", headers=expect_none), 10164),
            "size": (batch[1]._replace(body=b"x" * 1001), 10054),
            "subject": (batch[1]._replace(subject="t.a"), 10176),
            "id": (batch[1]._replace(id="known"), 10201),
            "ids": (batch[1]._replace(id="twice"), 10201),
        }
        batch[1], code = codes[wrong]
        if wrong == "ids":
            batch[2] = batch[2]._replace(id="twice")

        with pytest.raises(ApiError) as refused:
            await transport.publish_atomic(batch, timeout=5)

        # A server says only that one in the middle is missing.
        assert refused.value.err_code in (code, 10176)
        assert await count(transport) == 1
        await transport.publish_atomic(some("s.b"), timeout=5)
        assert await count(transport) == 2

    async def test_a_batch_with_a_message_too_large_sends_nothing(
        self, transport: Transport
    ) -> None:
        await atomic_stream(transport)
        batch = some("s.a", "s.b")
        batch[1] = batch[1]._replace(body=b"x" * transport.max_payload)

        with pytest.raises(EventTooLarge, match=r"s\.b: "):
            await transport.publish_atomic(batch, timeout=5)

        assert await count(transport) == 0

    async def test_a_second_one_is_refused_if_its_first_message_expects_none(
        self, transport: Transport
    ) -> None:
        await atomic_stream(transport)
        batch = some("s.a", "s.a", "s.a")
        batch[0] = batch[0]._replace(headers={EXPECTED: "0"})
        await transport.publish_atomic(batch, timeout=5)

        with pytest.raises(ApiError) as refused:
            await transport.publish_atomic(batch, timeout=5)

        assert refused.value.err_code == 10071
        assert await count(transport) == 3

    async def test_more_than_a_thousand_are_refused(self, transport: Transport) -> None:
        await atomic_stream(transport)

        with pytest.raises(ApiError) as refused:
            await transport.publish_atomic(some(*["s.a"] * 1001), timeout=5)

        assert refused.value.err_code == 10199
        assert await count(transport) == 0

    async def test_a_stream_takes_batches_only_if_it_is_configured_to(
        self, transport: Transport
    ) -> None:
        if transport.server_version < LEAST_VERSION:
            pytest.skip("atomic batches need nats-server 2.12.1")
        made = await make_stream(transport)
        await publish(transport, 1)  # in a cluster it has a leader then

        with pytest.raises(ApiError) as refused:
            await transport.publish_atomic(some("s.a", "s.b"), timeout=5)
        raw = made.raw["config"]
        await transport.operators.update_stream({**raw, "allow_atomic": True})
        await transport.publish_atomic(some("s.a", "s.b"), timeout=5)
        await transport.operators.update_stream(raw)
        with pytest.raises(ApiError):
            await transport.publish_atomic(some("s.a", "s.b"), timeout=5)

        assert refused.value.err_code == 10174
        assert await count(transport) == 1 + 2

    async def test_no_stream_for_a_batch(self, transport: Transport) -> None:
        if transport.server_version < LEAST_VERSION:
            pytest.skip("atomic batches need nats-server 2.12.1")

        with pytest.raises(NoStream):
            await transport.publish_atomic(some("s.a", "s.b"), timeout=5)

    async def test_an_older_server_is_told_by_its_version(self, transport: Transport) -> None:
        if transport.server_version >= LEAST_VERSION:
            pytest.skip("this server has atomic batches")
        await make_stream(transport)

        with pytest.raises(TransportError, match=r"need nats-server 2\.12\.1 or newer"):
            await transport.publish_atomic(some("s.a", "s.b"), timeout=5)

        assert await count(transport) == 0

    async def test_a_link_that_breaks_leaves_all_or_none(
        self, backend: Backend, transport: Transport
    ) -> None:
        needs(backend, "disconnect")
        await atomic_stream(transport)
        other = await backend.beside()
        sizes = []

        for turns in range(8):
            batch = asyncio.create_task(transport.publish_atomic(some(*["s.a"] * 300), timeout=5))
            for _ in range(turns):
                await asyncio.sleep(0)
            await backend.disconnect()
            await backend.reconnect()
            result = (await asyncio.gather(batch, return_exceptions=True))[0]
            sizes.append(await count(other))
            is_known = not isinstance(result, PublishError)
            assert isinstance(result, (tuple, OmniWorkerError))
            if is_known:
                before = sizes[-2] if len(sizes) > 1 else 0
                assert (sizes[-1] > before) == isinstance(result, tuple)

        assert all(size % 300 == 0 for size in sizes)

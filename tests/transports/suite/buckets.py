"""Buckets: values that only one of several can write first."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from omni_worker.errors import BucketUnavailable
from omni_worker.transports.base import Transport
from omni_worker.transports.key_value import Entry

from ...waiting import until
from .backend import Backend


class Buckets:
    """Promises of KeyValue."""

    async def test_a_key_nobody_wrote_is_none(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)

        assert await bucket.get("key") is None

    async def test_a_created_key_can_be_read_by_everybody(self, backend: Backend) -> None:
        one, other = await backend.connect(), await backend.connect()

        revision = await (await one.bucket("notes", ttl=60)).create("a.key", b"value")

        assert revision is not None
        read = await (await other.bucket("notes", ttl=60)).get("a.key")
        assert Entry(b"value", revision) == read

    async def test_a_key_that_exists_is_not_created(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)
        revision = await bucket.create("key", b"first")
        assert revision is not None

        assert await bucket.create("key", b"second") is None

        assert Entry(b"first", revision) == await bucket.get("key")

    async def test_of_several_creators_one_wins(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)

        results = await asyncio.gather(*(bucket.create("key", b"%d" % n) for n in range(20)))

        [winner] = [n for n, revision in enumerate(results) if revision is not None]
        entry = await bucket.get("key")
        assert entry is not None
        assert b"%d" % winner == entry.value

    async def test_an_update_needs_the_last_revision(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)
        first = await bucket.create("key", b"1")
        await bucket.create("other", b"x")
        assert first is not None

        second = await bucket.update("key", b"2", first)
        late = await bucket.update("key", b"3", first)

        assert second is not None
        assert second > first
        assert late is None
        assert Entry(b"2", second) == await bucket.get("key")

    async def test_an_update_does_not_create(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)

        assert await bucket.update("key", b"1", 7) is None

        assert await bucket.get("key") is None

    async def test_a_put_writes_whatever_stands_there(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)

        first = await bucket.put("key", b"1")
        second = await bucket.put("key", b"2")

        assert second > first
        assert Entry(b"2", second) == await bucket.get("key")
        assert await bucket.update("key", b"3", first) is None

    async def test_an_empty_value_is_a_value(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)

        revision = await bucket.create("key", b"")

        assert revision is not None
        assert Entry(b"", revision) == await bucket.get("key")
        assert await bucket.create("key", b"x") is None

    async def test_a_deleted_key_may_be_created_again(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)
        await bucket.create("key", b"1")

        await bucket.delete("key")

        assert await bucket.get("key") is None
        assert await bucket.create("key", b"2") is not None

    async def test_deleting_what_is_not_there_is_no_error(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=60)

        await bucket.delete("key")

        assert await bucket.get("key") is None

    async def test_a_key_is_gone_after_its_ttl(self, transport: Transport) -> None:
        bucket = await transport.bucket("notes", ttl=0.3)

        async def is_kept() -> bool:
            with suppress(BucketUnavailable):  # a new stream of a cluster elects its leader first
                return await bucket.create("key", b"1") is not None
            return False

        await until(is_kept)

        async def is_gone() -> bool:
            return await bucket.get("key") is None

        await until(is_gone)
        assert await bucket.create("key", b"2") is not None

    async def test_a_standing_bucket_is_used_as_it_is(self, transport: Transport) -> None:
        first = await transport.bucket("notes", ttl=60)
        await first.create("key", b"1")

        second = await transport.bucket("notes", ttl=3600)

        assert await second.get("key") is not None
        stream = await transport.operators.stream_info("KV_notes")
        assert stream is not None
        assert stream.raw["config"]["max_age"] == 60 * 10**9

    async def test_a_bucket_that_was_deleted_is_created_again(
        self, backend: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        bucket = await (await backend.connect()).bucket("notes", ttl=60)
        await bucket.create("key", b"lost")
        await backend.delete_stream("KV_notes")

        revision = await bucket.create("key", b"value")

        assert revision is not None
        assert Entry(b"value", revision) == await bucket.get("key")
        assert "the bucket notes was deleted and is created again" in caplog.text

    async def test_a_bucket_that_refuses_writes_says_so_by_name(self, backend: Backend) -> None:
        transport = await backend.connect()
        bucket = await transport.bucket("notes", ttl=60)
        await bucket.put("key", b"value")
        info = await transport.operators.stream_info("KV_notes")
        assert info is not None

        await transport.operators.update_stream({**info.config.raw, "max_msg_size": 80})

        with pytest.raises(BucketUnavailable, match="the bucket notes refuses writes"):
            await bucket.create("other", b"value" * 20)

"""Buckets: a write that no server answers, where the bucket exists or was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from omni_worker.errors import ApiError, BucketUnavailable
from omni_worker.transports import bucket as buckets
from omni_worker.transports.bucket import Bucket


class Store:
    """Store whose first writes have no answer; its stream exists unless it is missing."""

    def __init__(self, unanswered: int, *, missing: int = 0) -> None:
        self.unanswered, self.missing = unanswered, missing
        self.writes = self.created = 0

    async def stream_info(self, stream: str) -> Any:
        return None if self.missing else object()

    async def create_stream(self, config: Mapping[str, Any]) -> Any:
        self.missing -= 1
        self.created += 1

    async def put(self, subject: str, body: bytes, headers: bytes) -> int:
        self.writes += 1
        if self.writes <= self.unanswered:
            raise ApiError("no responders", code=503, err_code=10076)
        return self.writes


def made(store: Store, *, create: bool = True) -> Bucket:
    return Bucket(cast("Any", store), "notes", ttl=60, replicas=3, create=create)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PAUSES", (0.0, 0.0, 0.0))


async def test_a_new_bucket_that_is_not_heard_of_yet_is_written_again() -> None:
    store = Store(3)

    assert await made(store).put("key", b"1") == 4
    assert store.created == 0


async def test_a_deleted_bucket_is_created_again_and_written() -> None:
    store = Store(1, missing=1)

    assert await made(store).put("key", b"1") == 2
    assert store.created == 1


@pytest.mark.parametrize("missing", [0, 1_000], ids=["silent", "deleted again and again"])
async def test_a_bucket_that_stays_unanswered_ends_in_an_error(missing: int) -> None:
    store = Store(1_000, missing=missing)

    with pytest.raises(BucketUnavailable, match="the bucket notes does not answer"):
        await made(store).put("key", b"1")
    assert store.writes == 4


async def test_without_the_right_to_create_it_nothing_is_tried_again() -> None:
    store = Store(1)

    with pytest.raises(BucketUnavailable, match="the bucket notes is missing"):
        await made(store, create=False).put("key", b"1")
    assert store.writes == 1

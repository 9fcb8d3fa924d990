"""Key-value buckets over any adapter: streams in the KV layout of all NATS tools (ADR-8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import ApiError
from ..topology import DUPLICATE_WINDOW, NANO
from .base import Entry, StoredMessage
from .headers import format_headers
from .infos import StreamInfo

# A cluster answers with the second code if another write has overtaken this one on its way.
WRONG_REVISIONS = (10071, 10164)
_REMOVALS = ("DEL", "PURGE")


class BucketStore(Protocol):
    """Operations a bucket needs from an adapter: one stream, last message of a subject, write."""

    async def stream_info(self, stream: str) -> StreamInfo | None:
        """Return the stream, None if there is none."""

    async def create_stream(self, config: Mapping[str, Any]) -> StreamInfo:
        """Create the stream. Raises ApiError if a different one exists."""

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of one subject, None if there is none."""

    async def put(self, subject: str, body: bytes, headers: bytes) -> int:
        """Store one message with its own headers; return its sequence. Raises ApiError."""


class Bucket:
    """A KeyValue of the port, over the stream `KV_<name>`."""

    def __init__(self, store: BucketStore, name: str) -> None:
        self._store = store
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def ensure(self, *, ttl: float, replicas: int) -> None:
        """Create the bucket if it is missing; an existing one is used unchanged."""
        if await self._store.stream_info(self._stream) is not None:
            return
        try:
            await self._store.create_stream(
                {
                    "name": self._stream,
                    "subjects": [self._prefix + ">"],
                    "retention": "limits",
                    "storage": "file",
                    "discard": "new",
                    "max_msgs_per_subject": 1,
                    "max_age": int(ttl * NANO),
                    "duplicate_window": int(min(DUPLICATE_WINDOW, ttl) * NANO),
                    "num_replicas": replicas,
                    "allow_rollup_hdrs": True,
                    "deny_delete": True,
                    "allow_direct": True,
                }
            )
        except ApiError:
            # Another process created it between our check and our creation.
            if await self._store.stream_info(self._stream) is None:
                raise

    async def get(self, key: str) -> Entry | None:
        """Return the value, None if there is none."""
        last = await self._store.last_message(self._stream, self._prefix + key)
        return None if last is None or _is_removal(last) else Entry(last.body, last.sequence)

    async def create(self, key: str, value: bytes) -> int | None:
        """Write a key that does not exist."""
        revision = await self.update(key, value, 0)
        if revision is not None:
            return revision
        last = await self._store.last_message(self._stream, self._prefix + key)
        if last is None or not _is_removal(last):
            return None
        return await self.update(key, value, last.sequence)  # a deleted key leaves a marker behind

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Replace exactly this revision."""
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        try:
            return await self._store.put(self._prefix + key, value, format_headers(headers))
        except ApiError as error:
            if error.err_code in WRONG_REVISIONS:
                return None
            raise

    async def put(self, key: str, value: bytes) -> int:
        """Write over any existing value."""
        return await self._store.put(self._prefix + key, value, b"")

    async def delete(self, key: str) -> None:
        """Write a delete marker; the marker expires after the bucket's ttl."""
        headers = {"KV-Operation": "DEL"}
        await self._store.put(self._prefix + key, b"", format_headers(headers))


def _is_removal(message: StoredMessage) -> bool:
    return any(value in _REMOVALS for value in message.headers.get("KV-Operation", ()))

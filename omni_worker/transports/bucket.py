"""Key-value buckets over any adapter: streams in the KV layout of all NATS tools (ADR-8)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import ApiError, BucketUnavailable, PermissionDenied
from ..topology import DUPLICATE_WINDOW, NANO
from .base import StoredMessage
from .headers import format_headers
from .infos import StreamInfo
from .key_value import Entry

# A cluster answers with the second code if another write has overtaken this one on its way.
WRONG_REVISIONS = (10071, 10164)
SEALED = 10109
FULL = (10077, 10122)  # max_bytes; the storage of the account or the server
NO_RESPONDERS = (10076, 10039)
# Seconds until a bucket is tried again that exists and does not answer: in a cluster the other
# servers hear a little later than we do that it was created.
PAUSES = (0.05, 0.1, 0.25)
_REMOVALS = ("DEL", "PURGE")


log = logging.getLogger("omni_worker.transport.server")


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
    """A KeyValue of the port, over the stream `KV_<name>`.

    A bucket that was deleted is created again, where that is allowed; what it held is lost.
    """

    def __init__(
        self, store: BucketStore, name: str, *, ttl: float, replicas: int, create: bool
    ) -> None:
        self._store = store
        self._name = name
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._ttl = ttl
        self._replicas = replicas
        self._create = create

    async def ensure(self) -> None:
        """Create the bucket if it is missing; an existing one is used unchanged."""
        if not self._create or await self._store.stream_info(self._stream) is not None:
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
                    "max_age": int(self._ttl * NANO),
                    "duplicate_window": int(min(DUPLICATE_WINDOW, self._ttl) * NANO),
                    "num_replicas": self._replicas,
                    "allow_rollup_hdrs": True,
                    "deny_delete": True,
                    "allow_direct": True,
                }
            )
        except (ApiError, PermissionDenied) as error:
            # Another process may have created it between our check and our creation.
            if await self._store.stream_info(self._stream) is None:
                raise BucketUnavailable(
                    f"the bucket {self._name} is missing and cannot be created: {error}"
                ) from error

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
            return await self._put(key, value, format_headers(headers))
        except ApiError as error:
            if error.err_code in WRONG_REVISIONS:
                return None
            raise

    async def put(self, key: str, value: bytes) -> int:
        """Write over any existing value."""
        return await self._put(key, value, b"")

    async def delete(self, key: str) -> None:
        """Write a delete marker; the marker expires after the bucket's ttl."""
        headers = {"KV-Operation": "DEL"}
        await self._put(key, b"", format_headers(headers))

    async def _put(self, key: str, value: bytes, headers: bytes) -> int:
        """Write, and again if the bucket was deleted or does not answer yet.

        Raises BucketUnavailable with what to do.
        """
        pauses = iter(PAUSES)
        while True:
            try:
                return await self._store.put(self._prefix + key, value, headers)
            except PermissionDenied as error:
                raise BucketUnavailable(f"the bucket {self._name}: {error}") from error
            except ApiError as error:
                if error.err_code in WRONG_REVISIONS:
                    raise
                is_silent = error.err_code in NO_RESPONDERS and self._create
                if not is_silent or (pause := next(pauses, None)) is None:
                    raise BucketUnavailable(self._why(error)) from error
                if not await self._is_created_again():
                    await asyncio.sleep(pause)

    async def _is_created_again(self) -> bool:
        """Return True if the bucket was missing and exists now."""
        if not self._create or await self._store.stream_info(self._stream) is not None:
            return False
        await self.ensure()
        log.warning("the bucket %s was deleted and is created again", self._name)
        return True

    def _why(self, error: ApiError) -> str:
        name = f"the bucket {self._name}"
        if error.err_code in NO_RESPONDERS and not self._create:
            create = "omni-worker plan MODULE:APP --apply creates it"
            return f"{name} is missing, and provisioning is off: {create}"
        if error.err_code in NO_RESPONDERS:
            return f"{name} does not answer; its stream is {self._stream}"
        if error.err_code in FULL:
            return f"{name} is full: raise the limits of its stream {self._stream}"
        if error.err_code == SEALED:
            return f"{name} is sealed: delete its stream {self._stream}, it is created again"
        return f"{name} refuses writes: {error}"


def _is_removal(message: StoredMessage) -> bool:
    return any(value in _REMOVALS for value in message.headers.get("KV-Operation", ()))

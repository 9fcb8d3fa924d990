"""Key-value buckets: streams of the shape every NATS tool knows as KV (ADR-8)."""

from __future__ import annotations

import base64

from ...errors import ApiError
from ...topology import DUPLICATE_WINDOW, NANO
from ..base import Entry
from .api import Api
from .connection import Connection
from .headers import format_headers

WRONG_REVISION = 10071
_EMPTY_MARKERS = (b"KV-Operation: DEL", b"KV-Operation: PURGE")


class Bucket:
    """A KeyValue of the port, over the stream `KV_<name>`."""

    def __init__(self, connection: Connection, api: Api, name: str) -> None:
        self._connection = connection
        self._api = api
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def ensure(self, *, ttl: float, replicas: int) -> None:
        """Make the bucket when it is missing; one that stands is used as it is."""
        if await self._api.stream_info(self._stream) is not None:
            return
        try:
            await self._api.create_stream(
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
            # Another process made it between the question and the creation.
            if await self._api.stream_info(self._stream) is None:
                raise

    async def get(self, key: str) -> Entry | None:
        """The value, None when there is none."""
        entry = await self._last(key)
        return entry if entry is not None and entry.value else None

    async def create(self, key: str, value: bytes) -> int | None:
        """Write a key that does not exist."""
        revision = await self._put(key, value, expected=0)
        if revision is not None:
            return revision
        entry = await self._last(key)  # a deleted key leaves a marker behind
        if entry is None or entry.value:
            return None
        return await self._put(key, value, expected=entry.revision)

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Write over exactly this revision."""
        return await self._put(key, value, expected=revision)

    async def delete(self, key: str) -> None:
        """Leave a marker; it goes with the bucket's ttl."""
        await self._put(key, b"", headers={"KV-Operation": "DEL"})

    async def _last(self, key: str) -> Entry | None:
        try:
            found = await self._api.ask(
                f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key}
            )
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        message = found["message"]
        headers = base64.b64decode(message.get("hdrs") or "")
        gone = any(marker in headers for marker in _EMPTY_MARKERS)
        value = b"" if gone else base64.b64decode(message.get("data") or "")
        return Entry(value, message["seq"])

    async def _put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> int | None:
        headers = dict(headers or {})
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        try:
            answer = await self._api.put(self._prefix + key, value, format_headers(headers))
        except ApiError as error:
            if error.err_code == WRONG_REVISION:
                return None
            raise
        return int(answer["seq"])

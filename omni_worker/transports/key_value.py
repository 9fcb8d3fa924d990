"""Key-value buckets: the part of the port by which processes tell each other things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a bucket with its revision."""

    value: bytes
    revision: int


class KeyValue(Protocol):
    """A bucket shared by processes. A key expires ``ttl`` seconds after its last write."""

    async def get(self, key: str) -> Entry | None:
        """Return the value and its revision, None if the key does not exist or has expired."""

    async def create(self, key: str, value: bytes) -> int | None:
        """Write a key that does not exist; the revision, or None if another process was faster."""

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Replace exactly this revision; the new revision, or None if the value has changed."""

    async def put(self, key: str, value: bytes) -> int:
        """Write over any existing value; the revision."""

    async def delete(self, key: str) -> None:
        """Delete a key."""

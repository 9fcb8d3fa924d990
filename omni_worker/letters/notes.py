"""Notes of dead letters: which ones our workers stored, in a bucket that only they may write."""

from __future__ import annotations

import hashlib

from ..transports.key_value import KeyValue


async def keep_letter(bucket: KeyValue, id: str, digest: str) -> None:
    """Note that a letter with this id and digest is ours."""
    await bucket.put(_key(id), digest.encode())


async def is_ours(bucket: KeyValue, id: str, digest: str) -> bool:
    """Tell if a letter with this id and digest was noted."""
    entry = await bucket.get(_key(id))
    return entry is not None and entry.value == digest.encode()


def _key(id: str) -> str:
    # The ids of other programs may hold any characters.
    return "letter-" + hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:32]

"""Marks: the state of each dead letter, in a bucket of ours. The letter itself never changes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import TopologyError
from ..transports.base import Transport
from ..transports.key_value import KeyValue
from .read import DeadLetter, LetterState

BUCKET = "omni-worker-letters"
STREAM = f"KV_{BUCKET}"
LEAST = 30 * 86_400.0  # minimum seconds a mark is kept; longer if dead letters are kept longer
FOR_EVER = 10 * 365 * 86_400.0  # if the stream of the dead letters has no age limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Latest state of a dead letter; ``revision`` 0: no mark yet."""

    state: LetterState = LetterState.OPEN
    at: int = 0  # epoch milliseconds
    times: int = 0  # how often the event was sent back
    after: int = 0  # last sequence of our own stream before the event was sent back
    revision: int = 0


class Marks:
    """Marks on one server. Reading creates nothing."""

    def __init__(self, transport: Transport, *, create: bool) -> None:
        self._transport = transport
        self._create = create
        self._bucket: KeyValue | None = None

    async def exist(self) -> bool:
        """Return True if any dead letter was ever marked."""
        return await self._transport.operators.stream_info(STREAM) is not None

    async def of(self, letters: Sequence[DeadLetter]) -> list[Mark]:
        """Read the marks of these dead letters, concurrently."""
        if not letters or (self._bucket is None and not await self.exist()):
            return [Mark()] * len(letters)
        bucket = await self._open(LEAST)
        return await asyncio.gather(*(_read(bucket, letter.id) for letter in letters))

    async def write(
        self,
        letter: DeadLetter,
        mark: Mark,
        state: LetterState,
        *,
        at: int,
        after: int | None = None,
    ) -> Mark | None:
        """Replace ``mark`` with a new state; None if another process was faster."""
        after = mark.after if after is None else after
        bucket = await self._open_for_writing(letter.stream)
        times = mark.times + (
            state is LetterState.RETRYING and mark.state is not LetterState.RETRYING
        )
        value = json.dumps({"state": state, "at": at, "times": times, "after": after}).encode()
        key = mark_key(letter.id)
        if mark.revision:
            revision = await bucket.update(key, value, mark.revision)
        else:
            revision = await bucket.create(key, value)
        if revision is None:
            return None
        return Mark(state=state, at=at, times=times, after=after, revision=revision)

    async def _open(self, ttl: float) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._transport.bucket(BUCKET, ttl=ttl)
        return self._bucket

    async def _open_for_writing(self, stream: str) -> KeyValue:
        if self._bucket is not None:
            return self._bucket
        if not self._create and not await self.exist():
            raise TopologyError(
                f"the bucket {BUCKET} is missing, and provisioning is off:"
                " omni-worker plan MODULE:APP --apply creates it"
            )
        info = await self._transport.operators.stream_info(stream)
        kept = 0.0 if info is None else info.config.max_age
        return await self._open(max(LEAST, kept or FOR_EVER))


async def _read(bucket: KeyValue, id: str) -> Mark:
    entry = await bucket.get(mark_key(id))
    return Mark() if entry is None else read_mark(entry.value, entry.revision)


def read_mark(value: bytes, revision: int) -> Mark:
    """Read a mark; one that we cannot parse leaves its dead letter open."""
    try:
        raw = json.loads(value)
        return Mark(
            state=LetterState(raw["state"]), at=int(raw["at"]), times=int(raw["times"]),
            after=int(raw.get("after", 0)), revision=revision,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return Mark(revision=revision)


def mark_key(id: str) -> str:
    """Return the key of a dead letter's mark."""
    # The ids of other programs may hold any characters.
    return hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:32]

"""Marks: what became of a dead letter, in a bucket of ours. The letter itself is never touched."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import TopologyError
from ..transports.base import KeyValue, Transport
from .read import DeadLetter, LetterState

BUCKET = "omni-worker-letters"
STREAM = f"KV_{BUCKET}"
LEAST = 30 * 86_400.0  # seconds a mark lives at least; longer where letters do
FOR_EVER = 10 * 365 * 86_400.0  # where the letters' stream has no age limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The last word on a letter; ``revision`` 0 is none yet."""

    state: LetterState = LetterState.OPEN
    at: int = 0  # epoch milliseconds
    times: int = 0  # how often it was sent back
    revision: int = 0


class Marks:
    """The marks of one server. Reading creates nothing."""

    def __init__(self, transport: Transport, *, create: bool) -> None:
        self._transport = transport
        self._create = create
        self._bucket: KeyValue | None = None

    async def exist(self) -> bool:
        """Whether anything was ever marked."""
        return await self._transport.operators.stream_info(STREAM) is not None

    async def of(self, letters: Sequence[DeadLetter]) -> list[Mark]:
        """The marks of these letters, asked for side by side."""
        if not letters or (self._bucket is None and not await self.exist()):
            return [Mark()] * len(letters)
        bucket = await self._open(LEAST)
        return await asyncio.gather(*(_read(bucket, letter.id) for letter in letters))

    async def write(
        self, letter: DeadLetter, mark: Mark, state: LetterState, *, at: int
    ) -> Mark | None:
        """Put a new word on top of ``mark``; None when somebody else was faster."""
        bucket = await self._open_for_writing(letter.stream)
        times = mark.times + (
            state is LetterState.RETRYING and mark.state is not LetterState.RETRYING
        )
        value = json.dumps({"state": state, "at": at, "times": times}).encode()
        key = _key(letter.id)
        if mark.revision:
            revision = await bucket.update(key, value, mark.revision)
        else:
            revision = await bucket.create(key, value)
        if revision is None:
            return None
        return Mark(state=state, at=at, times=times, revision=revision)

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
                " omni-worker plan MODULE:APP --apply makes it"
            )
        info = await self._transport.operators.stream_info(stream)
        kept = 0.0 if info is None else info.config.max_age
        return await self._open(max(LEAST, kept or FOR_EVER))


async def _read(bucket: KeyValue, id: str) -> Mark:
    entry = await bucket.get(_key(id))
    if entry is None:
        return Mark()
    try:
        raw = json.loads(entry.value)
        return Mark(
            state=LetterState(raw["state"]), at=int(raw["at"]), times=int(raw["times"]),
            revision=entry.revision,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return Mark(revision=entry.revision)


def _key(id: str) -> str:
    # Other programs' ids may be anything.
    return hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()[:32]

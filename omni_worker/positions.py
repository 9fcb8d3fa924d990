"""Positions: where a consumer that does not exist at the moment has to continue.

Noted before a consumer of ours is deleted, or when others deleted it. A process that is killed
before it recreates the consumer leaves the position to the next one: `start_from` could skip some.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from .errors import ApiError, OmniWorkerError, PermissionDenied, TransportError
from .topology import NOTES_BUCKET, TAG, Config
from .transports.base import Operators
from .transports.key_value import KeyValue

log = logging.getLogger("omni_worker.provision")

PATIENCE = 2.0  # seconds for one change; without the note only a process killed now loses events
TRIES = 5  # other processes note theirs too
ORIGIN = TAG + "origin"  # in a consumer's tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a stream, and the consumer that was there."""

    start: int  # the first sequence that may be unsettled
    end: int  # the last one that may be settled
    origin: str  # the first of the consumers that follow each other
    stream_created: int  # sequences of a stream that was recreated mean nothing

    def joined(self, other: Position) -> Position:
        """Return a position for both, if they are of one consumer."""
        if (self.origin, self.stream_created) != (other.origin, other.stream_created):
            return self
        return replace(self, start=min(self.start, other.start), end=max(self.end, other.end))

    def placed(self, config: Config) -> Config:
        """Return the configuration of a new consumer that begins here."""
        begins = {"deliver_policy": "by_start_sequence", "opt_start_seq": self.start}
        kept = {key: value for key, value in config.items() if key != "opt_start_time"}
        tag = {**(config.get("metadata") or {}), ORIGIN: self.origin}
        return {**kept, **begins, "metadata": tag}


class Positions:
    """Positions of consumers, in the bucket of the notes."""

    def __init__(self, bucket: Callable[[], Awaitable[KeyValue]]) -> None:
        self._open_bucket = bucket

    async def keep(self, stream: str, consumer: str, position: Position) -> None:
        """Note a position, joined with what other processes noted."""
        key = _key(stream, consumer)
        with suppress(OmniWorkerError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                bucket = await self._open_bucket()
                for _ in range(TRIES):
                    entry = await bucket.get(key)
                    noted = None if entry is None else _read(entry.value)
                    joined = position if noted is None else position.joined(noted)
                    value = json.dumps(asdict(joined)).encode()
                    written = (
                        await bucket.create(key, value)
                        if entry is None
                        else await bucket.update(key, value, entry.revision)
                    )
                    if written is not None:
                        return

    async def drop(self, stream: str, consumer: str) -> None:
        """Delete the note: the consumer exists, and is past the position."""
        with suppress(OmniWorkerError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                bucket = await self._open_bucket()
                await bucket.delete(_key(stream, consumer))


async def read_position(operators: Operators, stream: str, consumer: str) -> Position | None:
    """Read a noted position; None if there is none, or if it is of an older stream of that name.

    Raises TransportError if it is not known: a consumer created without it could skip events.
    """
    subject = f"$KV.{NOTES_BUCKET}.{_key(stream, consumer)}"
    try:
        found = await operators.last_message(f"KV_{NOTES_BUCKET}", subject)
    except PermissionDenied as error:
        log.info("whether %s is to continue somewhere is not known: %s", consumer, error)
        return None
    except ApiError as error:  # the server's trouble, not an answer: it is asked again
        raise TransportError(str(error)) from error
    position = None if found is None else _read(found.body)
    if position is None:
        return None
    info = await operators.stream_info(stream)
    return position if info is not None and info.created == position.stream_created else None


def _key(stream: str, consumer: str) -> str:
    return hashlib.sha256(f"position\n{stream}\n{consumer}".encode()).hexdigest()[:32]


def _read(value: bytes) -> Position | None:
    """Return None for what cannot be read, as the marker of a deletion."""
    try:
        raw: Mapping[str, Any] = json.loads(value)
        return Position(
            start=int(raw["start"]),
            end=int(raw["end"]),
            origin=str(raw["origin"]),
            stream_created=int(raw["stream_created"]),
        )
    except (ValueError, KeyError, TypeError):
        return None

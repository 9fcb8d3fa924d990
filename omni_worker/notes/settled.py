"""SettledNotes: what the processes of one handler have settled of a stream, told to each other.

They are written when something keeps the server's ack floor down for longer than a look takes, and
read when the consumer is recreated: all after its ack floor is delivered again, to any process.
A consumer that an operator recreated has another ``origin``: what was noted before is not read.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..errors import OmniWorkerError
from ..positions import Positions
from ..recently_settled import BLOCK, Block, SettledMemory
from ..transports.key_value import KeyValue
from .ledger import Ledger

PATIENCE = 2.0  # seconds for one of these; without notes some events run once more
TRIES = 5  # to write a block that others write, too
MOST_READ = 512  # blocks, the highest of them

_HEAD = struct.Struct(">QQQQ")


class SettledNotes:
    """Notes of one handler, in the bucket of its other notes."""

    def __init__(
        self,
        bucket: Callable[[], Awaitable[KeyValue]],
        handler: str,
        ledger: Ledger | None = None,
    ) -> None:
        self.positions = Positions(bucket)
        self.ledger = ledger  # where every settled event is to be noted, for the audit
        self._open_bucket = bucket
        self._bucket: KeyValue | None = None
        self._handler = handler

    async def share(self, memory: SettledMemory, stream: str, *origins: str) -> None:
        """Write what was settled since the last call; blocks that cannot be written come next time.

        What others noted in the same blocks is learned. A handler's consumers of one stream share
        their memory: it is noted for each, since each may be the one that is deleted.
        """
        end = asyncio.get_running_loop().time() + PATIENCE
        for number, _ in list(memory.changed()):
            try:
                async with asyncio.timeout_at(end):
                    is_written = True
                    for origin in origins:
                        key = self._key(stream, origin, number)
                        is_written &= await self._merge(key, number, memory)
            except (
                OmniWorkerError,
                TimeoutError,
            ):  # a bucket that takes no writes is reported by health
                is_written = False
            if not is_written:
                memory.share_again(number)

    async def learn(
        self, memory: SettledMemory, stream: str, origin: str, start: int, end: int
    ) -> None:
        """Take in what was noted between two sequences."""
        numbers = range(start // BLOCK, end // BLOCK + 1)[-MOST_READ:]

        async def read(number: int) -> None:
            bucket = await self._notes()
            entry = await bucket.get(self._key(stream, origin, number))
            block = None if entry is None else read_block(entry.value)
            if block is not None:
                memory.learn(number, block)

        with suppress(OmniWorkerError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(read(number) for number in numbers))

    async def _merge(self, key: str, number: int, memory: SettledMemory) -> bool:
        bucket = await self._notes()
        for _ in range(TRIES):
            entry = await bucket.get(key)
            noted = None if entry is None else read_block(entry.value)
            if noted is not None:
                memory.learn(number, noted)
            block = memory.blocks.get(number)
            if block is None or block == noted:
                return True
            if entry is None:
                written = await bucket.create(key, write_block(block))
            else:
                written = await bucket.update(key, write_block(block), entry.revision)
            if written is not None:
                return True
        return False

    async def _notes(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._open_bucket()
        return self._bucket

    def _key(self, stream: str, origin: str, number: int) -> str:
        return block_key(self._handler, stream, origin, number)


def block_key(handler: str, stream: str, origin: str, number: int) -> str:
    """Return the key of a block of settled sequences."""
    identity = f"settled\n{handler}\n{stream}\n{origin}\n{number}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def write_block(block: Block) -> bytes:
    """Return a block as bytes: its ends, and the bits between."""
    bits = block.bits.to_bytes(BLOCK // 8, "big")
    return _HEAD.pack(*block.low, *block.high) + zlib.compress(bits, 1)


def read_block(value: bytes) -> Block | None:
    """Return None for what cannot be read: nothing is recognised by it."""
    try:
        low, low_at, high, high_at = _HEAD.unpack_from(value)
        packed = zlib.decompressobj()
        unpacked = packed.decompress(value[_HEAD.size :], BLOCK // 8 + 1)
    except (struct.error, zlib.error):
        return None
    if len(unpacked) != BLOCK // 8 or not packed.eof:
        return None
    return Block(int.from_bytes(unpacked, "big"), (low, low_at), (high, high_at))

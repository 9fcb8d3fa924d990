"""Recently settled: deliveries of one stream that a handler has answered, so that none runs twice.

An acknowledgement can be lost on the way, a server killed with -9 forgets its last 100 ms of them,
and a recreated consumer delivers again all that came after one event that waits for its retry. What
comes back to this process is recognised here and acknowledged again, unrun.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

GENERATION = 8_192  # events kept singly; older ones are kept in blocks
BLOCK = 32_768  # sequences of a block: a bit for each
FEW = 100  # bits that are set one by one
MOST_BLOCKS = 2_048  # 8 MiB; the lowest are forgotten first


@dataclass(slots=True)
class Block:
    """Settled sequences of one block, and when the first and the last of them were stored.

    Sequences repeat when a stream is recreated: a delivery is recognised only between the two.
    """

    bits: int = field(repr=False)
    low: tuple[int, int]  # sequence and stored timestamp
    high: tuple[int, int]

    def holds(self, sequence: int, stored_at: int) -> bool:
        """Tell whether this delivery was settled."""
        is_between = self.low[1] <= stored_at <= self.high[1]
        return is_between and bool(self.bits >> (sequence % BLOCK) & 1)

    def merged(self, other: Block) -> Block | None:
        """Return both together; None if they are of two streams of one name."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        ends = sorted((self.low, self.high, other.low, other.high))
        times = [stored_at for _, stored_at in ends]
        if times != sorted(times) or _differ(self, other) or _differ(other, self):
            return None
        return Block(self.bits | other.bits, low, high)


class SettledMemory:
    """Remembers answered deliveries above the server's ack floor, however long that stays behind.

    No gap is closed: only what was answered is recognised.
    """

    __slots__ = ("_changed", "_current", "_folded", "blocks")

    def __init__(self) -> None:
        self._current: dict[int, int] = {}
        self._folded = 0  # of the current ones, also in a block
        self.blocks: dict[int, Block] = {}
        self._changed: set[int] = set()  # numbers of blocks that grew since they were shared

    def add(self, sequence: int, stored_at: int) -> None:
        """Remember a delivery that was acknowledged or terminated."""
        current = self._current
        current[sequence] = stored_at
        if len(current) >= GENERATION:
            self._fold()
            self._current = {}
            self._folded = 0

    def holds(self, sequence: int, stored_at: int) -> bool:
        """Tell whether exactly this delivery was answered before."""
        known = self._current.get(sequence)
        if known is not None:
            return known == stored_at
        block = self.blocks.get(sequence // BLOCK)
        return block is not None and block.holds(sequence, stored_at)

    @property
    def highest(self) -> int:
        """Highest sequence that was settled; 0 if none was."""
        blocks = max((block.high[0] for block in self.blocks.values()), default=0)
        return max(blocks, max(self._current, default=0))

    def forget(self, floor: int) -> None:
        """Forget blocks that lie below the ack floor: nothing of them comes again."""
        for number in [one for one in self.blocks if (one + 1) * BLOCK <= floor]:
            del self.blocks[number]
            self._changed.discard(number)

    def clear(self) -> None:
        """Forget everything: what comes again is wanted again."""
        self._current.clear()
        self._folded = 0
        self.blocks.clear()
        self._changed.clear()

    def changed(self) -> Iterator[tuple[int, Block]]:
        """Yield the blocks that grew since the last call, with their numbers."""
        self._fold()
        changed, self._changed = self._changed, set()
        for number in sorted(changed):
            if number in self.blocks:
                yield number, self.blocks[number]

    def share_again(self, number: int) -> None:
        """Count a block as changed: it could not be shared."""
        self._changed.add(number)

    def learn(self, number: int, block: Block) -> bool:
        """Take in what another process settled; False if it is of another stream."""
        known = self.blocks.get(number)
        merged = block if known is None else known.merged(block)
        if merged is None:
            return False
        self.blocks[number] = merged
        return True

    def _fold(self) -> None:
        """Put single deliveries into blocks, all of a generation at once."""
        news = list(islice(self._current, self._folded, None))
        self._folded = len(self._current)
        for number, first, last, bits in _in_blocks(news):
            low, high = (first, self._current[first]), (last, self._current[last])
            self._take(number, Block(bits, low, high))
        if len(self.blocks) > MOST_BLOCKS:
            for number in sorted(self.blocks)[: len(self.blocks) - MOST_BLOCKS]:
                del self.blocks[number]

    def _take(self, number: int, block: Block) -> None:
        if not self.learn(number, block):
            self.blocks[number] = block  # of a stream that was recreated
        self._changed.add(number)


def _differ(one: Block, other: Block) -> bool:
    """Tell whether an end of one is settled in the other, but was stored at another time."""
    return any(
        one.low[0] <= sequence <= one.high[0] and not one.low[1] <= stored_at <= one.high[1]
        for sequence, stored_at in (other.low, other.high)
    )


def _in_blocks(sequences: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield each block's number, its first and last sequence of these, and its bits."""
    if not sequences:
        return
    low, high = min(sequences), max(sequences)
    if high - low + 1 == len(sequences):  # no gap, as nearly always
        for number in range(low // BLOCK, high // BLOCK + 1):
            begin = number * BLOCK
            first, last = max(low, begin), min(high, begin + BLOCK - 1)
            yield number, first, last, (1 << last - first + 1) - 1 << first - begin
        return
    offsets: dict[int, list[int]] = {}
    for sequence in sequences:
        offsets.setdefault(sequence // BLOCK, []).append(sequence % BLOCK)
    for number, here in offsets.items():
        begin = number * BLOCK
        yield number, min(here) + begin, max(here) + begin, _bits(here)


def _bits(offsets: list[int]) -> int:
    if len(offsets) < FEW:
        bits = 0
        for offset in offsets:
            bits |= 1 << offset
        return bits
    digits = bytearray(b"0") * BLOCK  # one number of many digits is made at once
    for offset in offsets:
        digits[BLOCK - 1 - offset] = 49  # "1"; the first digit counts most
    return int(digits, 2)

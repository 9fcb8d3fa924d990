"""Results: what became of many messages, in a few bytes for each that is stored."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, overload

from .base import Stored

_OTHER = 0  # the place of a result that is kept as it is: an error, or one still to come
_MOST_STREAMS = 100  # a place is one byte: stream and duplicate


class Results(Sequence[Stored | Exception]):
    """Results of many messages, as objects only when they are asked for.

    A million confirmations are 9 MB here, and 150 MB as a list of objects.
    """

    __slots__ = ("_others", "_place_of", "_places", "_sequences", "_streams")

    def __init__(self) -> None:
        self._places = bytearray()
        self._sequences = array("Q")
        self._streams: list[str] = [""]
        self._place_of: dict[str, int] = {}
        self._others: dict[int, Stored | Exception] = {}

    def add(self) -> int:
        """Make room for one more result; returns its index."""
        self._places.append(_OTHER)
        self._sequences.append(0)
        return len(self._places) - 1

    def put(self, index: int, result: Stored | Exception) -> None:
        """Set a result."""
        if not isinstance(result, Stored):
            self._places[index] = _OTHER
            self._others[index] = result
            return
        stream, sequence, duplicate = result
        try:
            place = self._place_of.get(stream) or self._add_stream(stream)
            self._sequences[index] = sequence
        except (TypeError, OverflowError):  # no name, or no sequence of a stream
            place = _OTHER
        if place == _OTHER:
            self._others[index] = result
        else:
            self._places[index] = place + bool(duplicate)

    def put_stored(self, index: int, stream: str, sequence: int) -> None:
        """Set the usual result: stored, and no duplicate."""
        place = self._place_of.get(stream)
        if place and sequence >> 64 == 0:
            self._places[index] = place
            self._sequences[index] = sequence
        else:
            self.put(index, Stored(stream, sequence, False))

    def errors(self) -> dict[int, Exception]:
        """Return what was not stored, by its index, in order."""
        return {
            index: other
            for index, other in sorted(self._others.items(), key=lambda item: item[0])
            if isinstance(other, Exception)
        }

    def _add_stream(self, stream: str) -> int:
        if len(self._streams) > _MOST_STREAMS:
            return _OTHER
        self._place_of[stream] = place = 2 * len(self._streams)
        self._streams.append(stream)
        return place

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Stored | Exception: ...
    @overload
    def __getitem__(self, index: slice) -> list[Stored | Exception]: ...
    def __getitem__(self, index: int | slice) -> Stored | Exception | list[Stored | Exception]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        place, sequence = self._places[index], self._sequences[index]
        if place != _OTHER:
            return Stored(self._streams[place >> 1], sequence, bool(place & 1))
        return self._others[index if index >= 0 else len(self) + index]

    def __iter__(self) -> Iterator[Stored | Exception]:
        streams, others = self._streams, self._others
        for index, (place, sequence) in enumerate(zip(self._places, self._sequences, strict=True)):
            if place:
                yield Stored(streams[place >> 1], sequence, place & 1 == 1)
            else:
                yield others[index]

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def _same(one: object, other: object) -> bool:
    return one is other or one == other

"""Confirmations: what ``publish_many`` returns, with the ids of its events kept in few bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from ..errors import PublishError
from ..events import Published
from ..transports.base import Stored
from ..transports.results import Results

_TOGETHER = 64  # ids in one text, which is a third of their size as texts of their own


class PublishManyError(PublishError):
    """Some of many events were not confirmed; the others are stored.

    ``published`` has None where ``errors`` (index → error) has the reason.
    """

    def __init__(
        self, published: list[Published | None], errors: dict[int, Exception], event_id: str
    ) -> None:
        first = next(iter(errors.values()))
        noun = "event was" if len(published) == 1 else "events were"
        super().__init__(
            f"{len(errors)} of {len(published)} {noun} not confirmed; the first: {first}",
            event_id=event_id,
        )
        self.published = published
        self.errors = errors


class Ids:
    """Ids of many events in their order; printable, as every id of ours."""

    __slots__ = ("_before", "_joined", "_last", "_split")

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._last: list[str] = []  # not joined yet
        self._before = 0  # how many are joined
        self._split: tuple[int, list[str]] = (-1, [])  # the part that was asked for last

    def add(self, id: str) -> None:
        """Add the id of the next event."""
        last = self._last
        last.append(id)
        if len(last) == _TOGETHER:
            self._joined.append("\n".join(last))
            self._before += _TOGETHER
            last.clear()

    def __len__(self) -> int:
        return self._before + len(self._last)

    def __getitem__(self, index: int) -> str:
        if index >= self._before:
            return self._last[index - self._before]
        part, place = divmod(index, _TOGETHER)
        known, ids = self._split
        if known != part:
            ids = self._joined[part].split("\n")
            self._split = (part, ids)
        return ids[place]


class Confirmations(Sequence[Published]):
    """The server's confirmations of many events, in their order; each is made when asked for.

    A list of them would take five times the memory: ``list(confirmations)`` is one.
    """

    __slots__ = ("_ids", "_results")

    def __init__(self, ids: Ids, results: Sequence[Stored | Exception]) -> None:
        self._ids = ids
        self._results = results  # no error among them

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Published: ...
    @overload
    def __getitem__(self, index: slice) -> list[Published]: ...
    def __getitem__(self, index: int | slice) -> Published | list[Published]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        stored = self._results[index]
        assert not isinstance(stored, Exception)
        return Published(self._ids[index if index >= 0 else len(self) + index], *stored)

    def __iter__(self) -> Iterator[Published]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            one == two for one, two in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def errors_of(results: Sequence[Stored | Exception]) -> dict[int, Exception]:
    """Return what was not stored, by its index, in order."""
    if isinstance(results, Results):
        return results.errors()
    return {index: one for index, one in enumerate(results) if isinstance(one, Exception)}

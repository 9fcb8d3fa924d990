"""Waiting: what a publish waits for. One confirmation, or those of many together."""

from __future__ import annotations

import asyncio
from typing import Any

from ...errors import TransportError
from ..base import Stored

_UNKNOWN = TransportError("not known yet")  # stands where a result is still to come


class _Waiting:
    """``done`` is the future its caller awaits."""

    __slots__ = ("done", "ends_early")

    def __init__(self) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # What a batch has not read yet would not be stored either; of one message nobody asks.
        self.ends_early = False

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.done.cancelled()


class Single(_Waiting):
    """One message: ``done`` has its result, which may be the reason why it is not stored."""

    __slots__ = ()

    def put(self, index: int, result: Stored | Exception) -> None:
        """It is stored, or is not."""
        if not self.done.done():
            self.done.set_result(result)


class Batch(_Waiting):
    """What one call publishes: its results as they come in, and one future for all of them."""

    __slots__ = ("is_whole", "left", "results")

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Stored | Exception] = []
        self.left = 0
        self.is_whole = False  # nothing more comes

    def stops(self) -> bool:
        """Whether no more are to be read; asked again after every wait."""
        return self.ends_early

    def add(self) -> int:
        """One more: the index of its result."""
        self.results.append(_UNKNOWN)
        self.left += 1
        return len(self.results) - 1

    def end(self) -> None:
        """There are no more."""
        self.is_whole = True
        if not self.left:
            self._finish()

    def put(self, index: int, result: Stored | Exception) -> None:
        """One is stored, or is not."""
        self.results[index] = result
        self.left -= 1
        if not self.left and self.is_whole:
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

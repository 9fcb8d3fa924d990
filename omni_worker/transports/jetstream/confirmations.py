"""Confirmations: a publish waits for one of them, or a batch for many together."""

from __future__ import annotations

import asyncio
from typing import Any

from ..base import Stored
from ..results import Results


class _Waiting:
    """``done`` is the future its caller awaits."""

    __slots__ = ("done", "ends_early")

    def __init__(self) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # True stops a batch: its unread messages would not be stored either. Else unused.
        self.ends_early = False

    @property
    def is_given_up(self) -> bool:
        """True if the caller has stopped waiting."""
        return self.done.cancelled()


class Single(_Waiting):
    """Confirmation of one message: ``done`` has its result, or the reason why it is not stored."""

    __slots__ = ()

    def put(self, index: int, result: Stored | Exception) -> None:
        """Set the result: stored, or the reason why not."""
        if not self.done.done():
            self.done.set_result(result)

    def put_stored(self, index: int, stream: str, sequence: int) -> None:
        """Set the usual result: stored, and no duplicate."""
        self.put(index, Stored(stream, sequence, False))


class Batch(_Waiting):
    """Confirmations of one call: results as they come in, and one future for all of them."""

    __slots__ = ("is_whole", "left", "results")

    def __init__(self) -> None:
        super().__init__()
        self.results = Results()
        self.left = 0
        self.is_whole = False  # all messages are added

    def stops(self) -> bool:
        """Return True if reading messages must stop; called after every wait."""
        return self.ends_early

    def add(self) -> int:
        """Add a message; return the index of its result."""
        self.left += 1
        return self.results.add()

    def end(self) -> None:
        """Mark the batch as complete."""
        self.is_whole = True
        if not self.left:
            self._finish()

    def put(self, index: int, result: Stored | Exception) -> None:
        """Set one result: stored, or the reason why not."""
        self.results.put(index, result)
        self.left -= 1
        if not self.left and self.is_whole:
            self._finish()

    def put_stored(self, index: int, stream: str, sequence: int) -> None:
        """Set the usual result: stored, and no duplicate."""
        self.results.put_stored(index, stream, sequence)
        self.left -= 1
        if not self.left and self.is_whole:
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

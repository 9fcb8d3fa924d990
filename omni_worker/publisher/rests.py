"""Rests: an event that was driven by hand goes on in a task of its own."""

from __future__ import annotations

import asyncio
from asyncio import _enter_task, _leave_task  # for tasks that are not asyncio's own
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from ..errors import PublishError
from ..events import Published
from .passages import Passage

CUT_OFF = PublishError("its publish middleware was cancelled", event_id="")
ENDED = object()  # what an event waits for that has ended


class Rest(Coroutine[Any, None, None]):
    """The rest of an event, as a coroutine for its task.

    While it runs the passage stays the current task, as it was before: a cancel scope wants to be
    left in the task in which it was entered.
    """

    def __init__(
        self,
        passage: Passage,
        end_well: Callable[[object], None],
        end: Callable[[Published | Exception], None],
    ) -> None:
        self._passage = passage
        self._end_well = end_well
        self._end = end
        self._is_begun = False

    def send(self, value: None) -> Any:
        """Go on until it waits again; returns what for. Raises StopIteration at its end."""
        passage = self._passage
        if not self._is_begun:
            self._is_begun = True
            if passage.waits_for is not passage:
                if passage.waits_for is ENDED:
                    raise StopIteration
                return passage.waits_for
            if passage.outcome is None:
                passage.confirmation = asyncio.get_running_loop().create_future()
                return next(iter(passage.confirmation.__await__()))
        return self._go(passage.coroutine.send, None)

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        """Go on from an error, usually that its task is cancelled."""
        self._is_begun = True
        if self._passage.waits_for is ENDED:
            raise StopIteration
        return self._go(self._passage.coroutine.throw, error if value is None else value)

    def close(self) -> None:
        """End it where it waits."""
        self._passage.coroutine.close()

    def __await__(self) -> Generator[Any, None, None]:
        raise TypeError("a rest is for its task")

    def _go(self, step: Callable[[Any], Any], given: Any) -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        _leave_task(loop, task)
        _enter_task(loop, self._passage)  # type: ignore[arg-type]
        try:
            return step(given)
        except StopIteration as end:
            self._end_well(end.value)
        except Exception as error:
            self._end(error)
        except asyncio.CancelledError:
            self._end(CUT_OFF)
            if task.cancelling():
                raise
        finally:
            _leave_task(loop, self._passage)  # type: ignore[arg-type]
            _enter_task(loop, task)
        raise StopIteration

"""Driven events: an event whose publish middlewares are driven by hand, and how it gets a task.

While its middlewares run it is the current task: no other object would say which event a timeout
or a cancel scope is about.
"""

from __future__ import annotations

import asyncio
from asyncio import _enter_task, _leave_task, current_task  # for tasks that are not asyncio's own
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context, copy_context
from typing import Any, Protocol

from ..errors import PublishError
from ..events import Event, Published
from ..transports.base import Message, Stored
from .drafts import Draft
from .passages import Passage

CUT_OFF = PublishError("its publish middleware was cancelled", event_id="")
ENDED = object()  # what an event waits for that has ended


class Batch:
    """Events whose messages are sent together; each of them awaits ``confirmed``."""

    __slots__ = ("confirmed", "events")

    def __init__(self) -> None:
        self.events: list[Driven] = []
        self.confirmed: asyncio.Future[Sequence[Stored | Exception]]
        self.confirmed = asyncio.get_running_loop().create_future()

    def park(self, event: Driven) -> None:
        """Add an event that waits for its confirmation."""
        # As a task does with what it waits for: the next event may wait for it as well.
        self.confirmed._asyncio_future_blocking = False
        event.place = len(self.events)
        self.events.append(event)


class Driver(Protocol):
    """Drives events, and sends those that have tasks of their own."""

    def compose(self, event: Passage, changed: Event[Any], /) -> Message:
        """Build the message for what the middlewares made of an event."""

    async def send_alone(self, event: Driven, message: Message) -> Stored:
        """Send a message in its turn; wait for its confirmation."""

    def open_task(self, event: Driven) -> asyncio.Task[None]:
        """Open the task that goes on with an event."""


class Driven(Passage):
    """Event that is driven by hand; its middlewares get it as their ``call_next``.

    Asked for anything a task has, it opens a real one, which then goes on with the event.
    """

    __slots__ = (
        "batch", "context", "coroutine", "driver", "index", "message", "place", "task", "waits_for",
    )  # fmt: skip

    def __init__(self, driver: Driver, draft: Draft, id: str, index: int) -> None:
        self.draft = draft
        self.id = id
        self.driver = driver
        self.index = index
        self.context: Context = copy_context()
        self.coroutine: Coroutine[Any, Any, Published] | None = None  # not begun
        self.task: asyncio.Task[None] | None = None
        self.waits_for: Any = None
        self.batch: Batch  # in which its message is sent, and the place of that
        self.message: Message
        self.place: int

    async def __call__(self, event: Event[Any]) -> Published:
        """Publish the event, as the middlewares left it."""
        message = self.driver.compose(self, event)
        current: object = current_task()
        if current is self and self.task is None:
            self.message = message
            stored = (await self.batch.confirmed)[self.place]
            if isinstance(stored, Exception):
                raise stored
        else:  # in a task, its own or another
            stored = await self.driver.send_alone(self, message)
        return Published(message.id, stored.stream, stored.sequence, stored.duplicate)

    def get_name(self) -> str:
        """Return the task's name. Logging asks for it with every line, which needs no task."""
        return f"publish-{self.index}" if self.task is None else self.task.get_name()

    def own_task(self) -> asyncio.Task[None]:
        """Return the task that goes on with the event; it is opened once."""
        if self.task is None:
            self.task = self.driver.open_task(self)
        return self.task


def _of_its_task(name: str) -> property:
    return property(lambda event: getattr(event.own_task(), name))


# What a task has. Not by ``__getattr__``, which would slow down every other attribute as well.
for _name in dir(asyncio.Task):
    if not _name.startswith("__") and not hasattr(Driven, _name):
        setattr(Driven, _name, _of_its_task(_name))


class Rest(Coroutine[Any, None, None]):
    """The rest of an event, as a coroutine for its task.

    While it runs the event stays the current task, as it was before: a cancel scope wants to be
    left in the task in which it was entered.
    """

    def __init__(
        self,
        event: Driven,
        end_well: Callable[[Driven, object], None],
        end: Callable[[Driven, Published | Exception], None],
    ) -> None:
        self._event = event
        self._end_well = end_well
        self._end = end
        self._is_begun = False

    def send(self, value: None) -> Any:
        """Go on until it waits again; returns what for. Raises StopIteration at its end."""
        event = self._event
        if self._is_begun:
            return self._go("send", None)
        self._is_begun = True
        if event.waits_for is ENDED:
            raise StopIteration
        if event.waits_for is event.batch.confirmed:
            event.batch.confirmed._asyncio_future_blocking = True  # see ``park``
        return event.waits_for

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        """Go on from an error, usually that its task is cancelled."""
        self._is_begun = True
        if self._event.waits_for is ENDED:
            raise StopIteration
        return self._go("throw", error if value is None else value)

    def close(self) -> None:
        """End it where it waits."""
        if self._event.coroutine is not None:
            self._event.coroutine.close()

    def __await__(self) -> Generator[Any, None, None]:
        raise TypeError("a rest is for its task")

    def _go(self, step: str, given: Any) -> Any:
        event = self._event
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        _leave_task(loop, task)
        _enter_task(loop, event)  # type: ignore[arg-type]
        try:
            return getattr(event.coroutine, step)(given)
        except StopIteration as end:
            self._end_well(event, end.value)
        except Exception as error:
            self._end(event, error)
        except asyncio.CancelledError:
            self._end(event, CUT_OFF)
            if task.cancelling():
                raise
        finally:
            _leave_task(loop, event)  # type: ignore[arg-type]
            _enter_task(loop, task)
        raise StopIteration

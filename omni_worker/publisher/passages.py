"""Passages: an event on its way through publish middlewares; it is what they call to publish it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

from pydantic import BaseModel

from ..events import Event, Published, came_on, raw_metadata
from ..transports.base import Message, Stored
from ..wire import ENVELOPE
from .drafts import Draft


class Passage:
    """Passage of one event, and how its message is made and sent.

    Middlewares get it as their ``call_next``, so that no context has to be kept for each event.
    In a pipeline it is the current task as well while its middlewares run: no other object would
    say which event a timeout or a cancel scope is about. Asked for anything a task has, it opens
    a real one, which then goes on with the event.
    """

    __slots__ = (
        "__weakref__", "by_hand", "compose", "confirmation", "context", "coroutine", "draft",
        "event", "id", "index", "message", "metadata", "open_task", "outcome", "store", "subject",
        "task", "waits_for",
    )  # fmt: skip

    def __init__(
        self,
        draft: Draft,
        id: str,
        compose: Compose,
        store: Store,
        index: int = 0,
        open_task: Callable[[Passage], asyncio.Task[None]] | None = None,
    ) -> None:
        self.draft = draft
        self.id = id
        self.compose = compose
        self.store = store
        self.index = index
        self.open_task = open_task
        self.task: asyncio.Task[None] | None = None
        self.by_hand = True
        self.confirmation: asyncio.Future[None] | None = None  # awaited by its task
        self.outcome: Stored | Exception | None = None  # of its message
        self.context: Context
        self.coroutine: Coroutine[Any, Any, Published]
        self.message: Message
        self.waits_for: Any = None
        # As the event went in; see ``enter``.
        self.subject: str
        self.metadata: dict[str, Any]
        self.event: Event[Any]

    async def __call__(self, event: Event[Any]) -> Published:
        """Publish the event, as the middlewares left it."""
        message = self.compose(self, event)
        stored = await self.store(self, message)
        return Published(message.id, stored.stream, stored.sequence, stored.duplicate)

    def __await__(self) -> Generator[Passage, None, Stored]:
        """Wait for the confirmation of the message; its driver goes on when that has come."""
        yield self
        outcome, self.outcome = self.outcome, None
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        return outcome

    def __getattr__(self, name: str) -> Any:
        """Look up what a task has: from now on the event has a task of its own."""
        if name.startswith("__") or name in Passage.__slots__ or self.open_task is None:
            raise AttributeError(name)
        return getattr(self.own_task(), name)

    def get_name(self) -> str:
        """Return the task's name. Logging asks for it with every line, which needs no task."""
        return f"publish-{self.index}" if self.task is None else self.task.get_name()

    def own_task(self) -> asyncio.Task[None]:
        """Return the task that goes on with the event; it is opened once."""
        if self.task is None:
            assert self.open_task is not None
            self.by_hand = False
            self.task = self.open_task(self)
        return self.task

    def enter(self, subject: str, metadata: dict[str, Any], timestamp: int) -> Event[Any]:
        """Make the event that middlewares see; note what it is made of, to compare it later."""
        self.subject = subject
        self.metadata = metadata
        self.event = event = event_of(self.draft, self.id, timestamp, metadata, subject)
        return event

    def is_unchanged(self, event: Event[Any]) -> bool:
        """Return True if an event's address and metadata are those it went in with.

        False whenever this is not certain. The payload and the timestamp do not count.
        """
        if event is not self.event or self.draft.metadata:
            return False
        fields = vars(event)
        return (
            fields["id"] is self.id
            and fields["type"] is self.draft.type
            and (fields["metadata"] is self.metadata or metadata_of(event) == self.metadata)
        )

    def confirm(self, outcome: Stored | Exception) -> None:
        """Note what became of its message."""
        self.outcome = outcome
        if self.confirmation is not None and not self.confirmation.done():
            self.confirmation.set_result(None)


Compose = Callable[[Passage, Event[Any]], Message]
Store = Callable[[Passage, Message], Awaitable[Stored]]

_ANY_EVENT = Event[Any]  # pydantic takes longer to look it up than to make one
_EVENT_FIELDS = frozenset(Event.model_fields)

# What pydantic's own constructor fills in, once its checks are through.
_new = object.__new__
_set_fields = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def event_of(
    draft: Draft, id: str, timestamp: int, metadata: dict[str, Any], subject: str
) -> Event[Any]:
    """The event that middlewares see, on the subject it is about to be published to.

    ``id``, the draft's type and ``metadata`` are checked already.
    """
    fields = {"id": id, "type": draft.type, "payload": draft.payload, "timestamp": timestamp}
    if draft.metadata or draft.extra:  # keys of any name, values of any type: pydantic sorts them
        extra = {key: value for key, value in draft.extra.items() if key not in ENVELOPE}
        event = _ANY_EVENT(**fields, metadata=metadata, **extra)
    else:
        # Past pydantic, which would check it all again.
        fields["metadata"] = metadata
        event = _new(_ANY_EVENT)
        _set_fields(event, fields)
        _set_fields_set(event, set(_EVENT_FIELDS))
        _set_extra(event, {})
        _set_private(event, None)
    return came_on(event, subject)


def metadata_of(event: Event[Any]) -> dict[str, Any]:
    """Return the keys that say something, by their names on the wire."""
    return {key: value for key, value in raw_metadata(event).items() if value is not None}

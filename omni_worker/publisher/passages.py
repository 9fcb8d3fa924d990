"""Passages: an event on its way through publish middlewares, from its draft to its message."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ..events import Event, raw_metadata
from ..wire import ENVELOPE
from .drafts import Draft


class Passage:
    """Passage of one event: what it is made of, to tell whether middlewares changed it."""

    __slots__ = ("__weakref__", "draft", "event", "id", "metadata", "subject")

    def __init__(self, draft: Draft, id: str) -> None:
        self.draft = draft
        self.id = id
        # As the event went in; see ``enter``.
        self.subject: str
        self.metadata: dict[str, Any]
        self.event: Event[Any]

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
        fields = event.__dict__
        return (
            fields["id"] is self.id
            and fields["type"] is self.draft.type
            and (fields["metadata"] is self.metadata or metadata_of(event) == self.metadata)
        )


_ANY_EVENT = Event[Any]  # pydantic takes longer to look it up than to make one
_EVENT_FIELDS = frozenset(Event.model_fields)

# What pydantic's own constructor fills in, once its checks are through.
_new = object.__new__
_set_fields = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_get_extra = BaseModel.__dict__["__pydantic_extra__"].__get__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__
_set_address = _ANY_EVENT._address.__set__  # type: ignore[attr-defined]


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
    _set_address(event, (subject, draft.type))  # as ``came_on``
    return event


def parts_of(event: Event[Any]) -> tuple[str, Any, dict[str, Any] | None]:
    """Return the type, the payload and the unknown keys of an event.

    Not by its attributes: pydantic's ``__getattr__`` makes each of them slow.
    """
    fields = event.__dict__
    return fields["type"], fields["payload"], _get_extra(event)


def metadata_of(event: Event[Any]) -> dict[str, Any]:
    """Return the keys that say something, by their names on the wire."""
    return {key: value for key, value in raw_metadata(event).items() if value is not None}
